// What a run says, as it comes: its events, its messages token by token, the words in which two answers differ.
// Everything that is said is put in as text.
"use strict";

const SHOWN_CHARS = 20000;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((block) => (typeof block === "string" ? block : block?.text ?? "")).join("");
}

// Server-sent events of a body as they come: {id, event, data}.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    kept += value;
    for (let end; (end = kept.indexOf("\n\n")) >= 0; kept = kept.slice(end + 2)) {
      const found = { id: "", event: "", data: "" };
      for (const line of kept.slice(0, end).split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (found.event) yield found;
    }
  }
}

// Messages as they are made, token by token.
class Talk {
  constructor(root) {
    this.list = root.appendChild(element("ol", "talk"));
    this.messages = new Map();
    this.state = null;
  }

  startAgain() {
    for (const [id, { item }] of this.messages) {
      if (id === "asked") continue;
      item.remove();
      this.messages.delete(id);
    }
  }

  asked(body) {
    const messages = body.input?.messages;
    const said = Array.isArray(messages) ? messages.map((one) => textOf(one.content)).join("\n") : null;
    const text = said ?? JSON.stringify(body.input ?? body.command?.resume, null, 1);
    this.one("asked", "person", body.command ? "person, in answer" : "person").words.data = text.slice(0, SHOWN_CHARS);
  }

  one(id, type, by) {
    let found = this.messages.get(id);
    if (!found) {
      const item = this.list.appendChild(element("li", `from-${type}`));
      item.append(element("p", "from", by));
      const words = item.appendChild(element("p", "text")).appendChild(new Text(""));
      found = { item, words, calls: new Map(), size: 0 };
      this.messages.set(id, found);
    }
    return found;
  }

  // Whether the message says anything yet.
  take(message) {
    const isTool = message.type === "tool";
    const isPiece = message.type === "AIMessageChunk";
    if (message.type === "human" || message.type === "system") return false;
    const who = isTool ? "tool" : "agent";
    const found = this.one(message.id, who, `${who} ${message.name ?? ""}`);
    const text = textOf(message.content);
    if (isPiece) this.append(found, text);
    else found.words.data = text.slice(0, SHOWN_CHARS);
    const calls = isPiece ? message.tool_call_chunks : message.tool_calls;
    for (const [place, call] of (calls ?? []).entries()) this.call(found, call.index ?? place, call, isPiece);
    return Boolean(text || calls?.length);
  }

  append(found, text) {
    const room = SHOWN_CHARS - found.size;
    if (room > 0) found.words.appendData(text.slice(0, room));
    found.size += text.length;
  }

  call(found, place, call, isPiece) {
    let made = found.calls.get(place);
    if (!made) {
      const line = found.item.appendChild(element("div", "call"));
      line.append(element("span", "label", "calls "));
      const name = line.appendChild(element("code"));
      line.append(" ");
      const args = line.appendChild(element("span", "value")).appendChild(new Text(""));
      found.calls.set(place, made = { name, args });
    }
    if (call.name) made.name.textContent = call.name;
    if (isPiece) made.args.appendData(call.args ?? "");
    else made.args.data = JSON.stringify(call.args).slice(0, SHOWN_CHARS);
  }

  // The values beside the messages: all there is to see of a graph that says nothing.
  values(told) {
    const { messages, __interrupt__, ...others } = told ?? {};
    if (!Object.keys(others).length) return;
    this.state ??= this.list.parentNode.appendChild(element("pre", "values"));
    this.state.textContent = JSON.stringify(others, null, 1).slice(0, SHOWN_CHARS);
  }
}

// Places of a longest common subsequence.
function common(a, b) {
  const wide = b.length + 1;
  const length = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      length[i * wide + j] = a[i] === b[j] ? length[(i + 1) * wide + j + 1] + 1 : Math.max(length[(i + 1) * wide + j], length[i * wide + j + 1]);
    }
  }
  const places = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) places.push([i++, j++]);
    else if (length[(i + 1) * wide + j] >= length[i * wide + j + 1]) i += 1;
    else j += 1;
  }
  return places;
}

function mark(root, words, kept) {
  const same = new Set(kept);
  root.replaceChildren(...words.map((word, place) => (same.has(place) || !word.trim() ? new Text(word) : element("mark", "", word))));
}
