// The playground in a browser: each side runs and streams by itself.
"use strict";

const play = document.getElementById("play");
const say = document.getElementById("say");
const TRY_AGAIN_MS = 1000;
const TRIES = 120;

function seconds(ms) {
  return ms < 999.5 ? `${Math.round(ms)} ms` : `${(ms / 1000).toPrecision(3)} s`;
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// The answer to a request as a problem that can be shown.
async function problemOf(answer) {
  if (answer.status === 401) return { detail: "The session is over.", hint: "Sign in again: reload this page." };
  const told = await answer.json().catch(() => null);
  return told?.detail ? told : { detail: `The server answered ${answer.status}.` };
}

class Side {
  constructor(root) {
    this.root = root;
    this.name = root.dataset.side;
    this.version = root.dataset.version;
    this.threadPath = `${play.dataset.api}/threads/${encodeURIComponent(root.dataset.thread)}`;
    this.isBusy = false;
    this.isUnusable = root.hasAttribute("data-unusable");
    this.stopped = false;
    this.find("stop").addEventListener("click", () => this.stop());
    if (root.hasAttribute("data-busy")) this.joinLast();
  }

  find(name) {
    return this.root.querySelector(`.${name}`);
  }

  tell(text) {
    this.find("facts-now").textContent = text;
  }

  wrong(problem) {
    const notice = element("div", "notice bad");
    notice.setAttribute("role", "alert");
    notice.append(element("p", "", problem.detail));
    if (problem.hint) notice.append(element("p", "hint", problem.hint));
    this.find("wrong").replaceChildren(notice);
  }

  begin() {
    this.isBusy = true;
    this.stopped = false;
    this.runPath = "";
    this.lastId = "-1";
    this.failed = "";
    this.began = performance.now();
    this.firstAt = 0;
    this.attempt = Infinity;
    this.isJoined = false;
    this.answered = "";
    this.find("wrong").replaceChildren();
    this.find("now").replaceChildren();
    this.talk = new Talk(this.find("now"));
    showBusy();
  }

  // Run with an input or a command, to the end. An answer is for the state that it was asked in, `since`.
  async run(body, since = "") {
    this.begin();
    this.talk.asked(body);
    this.tell(`${this.version} is asked…`);
    for (const asked of this.root.querySelectorAll(".waits")) asked.hidden = true;
    const wanted = {
      ...body,
      assistant_id: play.dataset.graph,
      stream_mode: ["messages-tuple", "values"],
      stream_subgraphs: true,
      stream_resumable: true,  // so that it can be joined from its beginning when the server comes back
      if_not_exists: "create",
      multitask_strategy: "reject",
      on_disconnect: "continue",
    };
    let has_begun = false;
    try {
      const answer = await fetch(`${this.threadPath}/runs/stream`, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          Accept: "text/event-stream",
          "Changeover-Version": this.version,
          ...(since && { "If-Match": `"${since}"` }),
        },
        body: JSON.stringify(wanted),
      });
      if (answer.ok) {
        has_begun = true;
        await this.follow(answer);
      } else this.wrong(await problemOf(answer));
    } catch (error) {
      if (has_begun) await this.goOn();
      else this.wrong({ detail: "The server does not answer.", hint: "Whether this run began is not known: look at the thread before you send it again." });
    }
    await this.end(has_begun);
  }

  // Read the stream to its end. Throws where it is cut.
  async follow(answer) {
    this.runPath = answer.headers.get("Content-Location") || this.runPath;
    this.answered = answer.headers.get("Changeover-Version") || this.answered;
    this.find("stop").hidden = false;
    this.tell(`${this.answered || this.version} is at work…`);
    for await (const { id, event, data } of eventsOf(answer.body)) {
      if (id) this.lastId = id;
      this.take(event, JSON.parse(data));
    }
  }

  take(event, data) {
    const kind = event.split("|")[0];
    if (kind === "messages" && this.talk.take(data[0])) this.firstAt ||= performance.now();
    else if (event === "values") this.talk.values(data);
    else if (kind === "metadata") this.takeAttempt(data);
    else if (kind === "error") this.failed = data.message ? `${data.error}: ${data.message}` : String(data.error ?? "it failed");
  }

  // A server that died took its attempt with it: the next one says everything anew.
  takeAttempt({ attempt, changeover_version }) {
    if (attempt > this.attempt) this.talk.startAgain();
    this.attempt = attempt;
    this.answered = changeover_version || this.answered;
  }

  // The connection is cut: the run goes on, or waits for its server, and is joined where it was left.
  async goOn() {
    for (let tried = 1; tried <= TRIES; tried += 1) {
      if (this.stopped) return;
      if (tried > 1 || !this.isJoined) {
        this.tell(`The connection is cut. The run goes on without it; joining it again (${tried})…`);
        await pause(TRY_AGAIN_MS);
      }
      try {
        const answer = await fetch(`${this.runPath}/stream`, { headers: { "Last-Event-ID": this.lastId } });
        if (answer.status >= 500) continue;
        if (!answer.ok) return this.wrong(await problemOf(answer));
        return await this.follow(answer);
      } catch (error) { /* not yet */ }
    }
    this.wrong({ detail: "The server does not answer.", hint: "Reload this page once it does: the thread keeps what was said." });
  }

  // A run that was at work when the page was opened.
  async joinLast() {
    this.begin();
    this.isJoined = true;
    this.tell(`${this.version} is at work…`);
    try {
      const answer = await fetch(`${this.threadPath}/runs?limit=1`);
      const [run] = answer.ok ? await answer.json() : [];
      if (run) {
        this.runPath = `${this.threadPath}/runs/${run.run_id}`;
        this.answered = run.version;
        this.find("stop").hidden = false;
        await this.goOn();
      }
    } catch (error) { /* the end tells */ }
    await this.end(true);
  }

  async stop() {
    const button = this.find("stop");
    button.disabled = true;
    this.stopped = true;
    this.tell("Stopping…");
    try {
      const answer = await fetch(`${this.runPath}/cancel?action=interrupt&reason=stopped+in+the+playground`, { method: "POST" });
      if (!answer.ok) this.wrong(await problemOf(answer));
    } catch (error) {
      this.wrong({ detail: "The server does not answer: the run was not stopped." });
    }
    button.disabled = false;
  }

  async end(has_begun) {
    const passed = performance.now() - this.began;
    this.find("stop").hidden = true;
    if (this.failed && !this.stopped) this.wrong({ detail: this.failed });
    if (has_begun) await this.showThread();
    this.isBusy = false;
    for (const asked of this.root.querySelectorAll(".waits")) asked.hidden = false;
    const first = this.firstAt ? `, first words after ${seconds(this.firstAt - this.began)}` : "";
    const other = this.answered && this.answered !== this.version ? ` It was asked of ${this.version}.` : "";
    if (!has_begun) this.tell("");
    else if (this.isJoined) this.tell(`${this.answered || this.version} ${this.stopped ? "was stopped" : "is done"}.`);
    else this.tell(`${this.answered || this.version} ${this.stopped ? "was stopped" : "took"} ${this.stopped ? "after " : ""}${seconds(passed)} in all${first}.${other}`);
    showBusy();
    compare();
  }

  // What the thread says, as the server shows it, in place of what was streamed.
  async showThread() {
    const query = new URLSearchParams(placeOfPage());
    query.set("side", this.name);
    for (let tried = 1; tried <= TRIES; tried += 1) {
      try {
        const answer = await fetch(`${play.dataset.base}/playground/column?${query}`, { headers: { Accept: "text/html" } });
        if (answer.ok) {
          const made = new DOMParser().parseFromString(await answer.text(), "text/html");
          this.find("so-far").replaceChildren(...made.body.childNodes);
          this.find("now").replaceChildren();
          return;
        }
      } catch (error) { /* not yet */ }
      this.tell(`The server does not answer. Asking again (${tried})…`);
      await pause(TRY_AGAIN_MS);
    }
  }
}

function placeOfPage() {
  return [...say.querySelectorAll("input[type=hidden]")].map((input) => [input.name, input.value]);
}

function showBusy() {
  const isBusy = sides.some((side) => side.isBusy);
  say.querySelector("button.main").disabled = isBusy;
}

// Which words of the last answers differ, where both sides have answered.
function compare() {
  if (sides.length < 2 || sides.some((side) => side.isBusy)) return;
  const last = sides.map((side) => [...side.root.querySelectorAll(".so-far .from-agent > .text")].at(-1));
  if (last.some((words) => !words)) return;
  const [a, b] = last.map((words) => words.textContent.split(/(\s+)/));
  if (a.length * b.length > 1e6) return;
  const kept = common(a, b);
  mark(last[0], a, kept.map(([i]) => i));
  mark(last[1], b, kept.map(([, j]) => j));
}

// What a form gives, as it is to be sent; null where it cannot be read, which is then said.
async function bodyOf(form, tell, submitter = null) {
  let answer;
  try {
    answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams(new FormData(form, submitter)) });
  } catch (error) {
    tell("The server does not answer. Nothing was sent.");
    return null;
  }
  const told = answer.ok ? await answer.json() : { problem: await problemOf(answer) };
  if (!told.problem) return told;
  const { problem } = told;
  tell([problem.detail, problem.hint].filter(Boolean).join(" "));
  return null;
}

const sides = [];

if (play && say) {
  sides.push(...[...play.querySelectorAll(".side")].map((root) => new Side(root)));
  const wrong = say.querySelector(".wrong-input");
  say.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sides.some((side) => side.isBusy)) return;
    wrong.hidden = true;
    const body = await bodyOf(say, (text) => { wrong.textContent = text; wrong.hidden = false; });
    if (!body) return;
    history.replaceState(null, "", `?${new URLSearchParams(placeOfPage())}`);  // a reload shows these threads
    const message = say.querySelector("[data-message]");
    if (message) {
      message.value = "";
      message.focus();
    }
    await Promise.all(sides.filter((side) => !side.isUnusable).map((side) => side.run(body)));
  });
  play.addEventListener("submit", async (event) => {
    event.preventDefault();
    const side = sides.find((one) => one.root.contains(event.target));
    if (side.isBusy) return;
    const body = await bodyOf(event.target, (text) => side.wrong({ detail: text }), event.submitter);
    if (body) await side.run(body, event.target.elements.since?.value);
  });
  say.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) say.requestSubmit();
  });
  document.getElementById("say-hint").append(" Ctrl+Enter sends.");
  compare();
}
