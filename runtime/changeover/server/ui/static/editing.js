// The editor in a browser: where the cursor is, a way to each problem, and what was typed is kept until it is built.
"use strict";

const SAVE_AFTER_MS = 300;
const LINES_NUMBERED = 20000;

function keyOf(path) {
  return `changeover edit ${path}`;
}

// What was typed and not built, in this tab alone. A browser may refuse to keep it: then it is not kept.
const kept = {
  get(path) {
    try {
      return JSON.parse(sessionStorage.getItem(keyOf(path)));
    } catch (error) {
      return null;
    }
  },
  set(path, told) {
    try {
      sessionStorage.setItem(keyOf(path), JSON.stringify(told));
    } catch (error) { /* full, or forbidden */ }
  },
  remove(path) {
    try {
      sessionStorage.removeItem(keyOf(path));
    } catch (error) { /* forbidden */ }
  },
};

class Draft {
  constructor(root) {
    this.root = root;
    this.path = root.dataset.path;
    this.area = root.querySelector("textarea");
    this.base = root.querySelector("input[name=base]");
    this.numbers = this.area.wrap === "off" ? this.addNumbers() : null;
    this.lines = 0;
    this.area.addEventListener("input", () => this.typed());
    for (const name of ["click", "keyup", "focus"]) this.area.addEventListener(name, () => this.showPlace());
    this.showPlace();
    this.offer();
    if (this.area.dataset.line) this.jump(Number(this.area.dataset.line), 1);
  }

  addNumbers() {
    const box = document.createElement("div");
    const numbers = document.createElement("pre");
    box.className = "numbered";
    numbers.className = "numbers";
    numbers.setAttribute("aria-hidden", "true");
    this.area.replaceWith(box);
    box.append(numbers, this.area);
    this.area.addEventListener("scroll", () => { numbers.scrollTop = this.area.scrollTop; });
    return numbers;
  }

  typed() {
    this.showPlace();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keep(), SAVE_AFTER_MS);
  }

  keep() {
    clearTimeout(this.timer);
    if (this.area.value !== this.area.defaultValue || kept.get(this.path)) {
      kept.set(this.path, { text: this.area.value, base: this.base.value, at: Date.now() });
    }
  }

  showPlace() {
    const before = this.area.value.slice(0, this.area.selectionStart).split("\n");
    const lines = this.area.value.split("\n").length;
    this.root.querySelector(".place").textContent = `Line ${before.length} of ${lines}, column ${before.at(-1).length + 1}`;
    if (!this.numbers || lines === this.lines) return;
    this.lines = lines;
    const shown = Math.min(lines, LINES_NUMBERED);
    this.numbers.textContent = Array.from({ length: shown }, (_, place) => place + 1).join("\n") + "\n\n\n";
    this.numbers.scrollTop = this.area.scrollTop;
  }

  jump(line, column) {
    const { area } = this;
    const lines = area.value.split("\n");
    const place = Math.min(Math.max(line, 1), lines.length) - 1;
    const start = lines.slice(0, place).reduce((sum, one) => sum + one.length + 1, 0);
    const at = start + Math.min(column - 1, lines[place].length);
    area.focus();
    area.setSelectionRange(at, start + lines[place].length);
    area.scrollTop = Math.max(0, this.heightOf(area.value.slice(0, start)) - area.clientHeight / 3);
    area.scrollIntoView({ block: "nearest" });
    this.showPlace();
  }

  // How high a text stands in the area, as its lines are broken there.
  heightOf(text) {
    const style = getComputedStyle(this.area);
    const mirror = document.createElement("div");
    mirror.className = this.area.wrap === "off" ? "mirror" : "mirror is-broken";
    for (const name of ["font", "letterSpacing", "tabSize", "lineHeight"]) mirror.style[name] = style[name];
    mirror.style.width = `${this.area.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)}px`;
    mirror.textContent = text;
    document.body.append(mirror);
    const height = mirror.getBoundingClientRect().height;
    mirror.remove();
    return height;
  }

  offer() {
    const found = kept.get(this.path);
    if (!found || found.text === this.area.value) return;
    const notice = this.root.querySelector(".kept");
    const told = document.createElement("p");
    const isOlder = found.base !== this.base.value;
    told.textContent = `A text that you typed here (${new Date(found.at).toLocaleString()}) was not built.`
      + (isOlder ? " The folder's file has changed since then: a build tells how." : "");
    const take = this.button("Take it", () => {
      this.base.value = found.base;  // so that nothing of somebody else is replaced unseen
      this.area.value = found.text;
      this.area.dispatchEvent(new Event("input", { bubbles: true }));
    });
    const leave = this.button("Throw it away", () => kept.remove(this.path));
    const row = document.createElement("p");
    row.className = "act";
    row.append(take, leave);
    notice.replaceChildren(told, row);
    notice.hidden = false;
  }

  button(text, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", () => {
      act();
      this.root.querySelector(".kept").hidden = true;
      this.area.focus();
    });
    return made;
  }
}

function showFound(text) {
  const told = document.createElement("p");
  told.className = "notice bad";
  told.textContent = text;
  document.getElementById("found").replaceChildren(told);
}

const form = document.getElementById("edit");
if (form) {
  const drafts = [...form.querySelectorAll(".draft")].filter((root) => root.querySelector("textarea")).map((root) => new Draft(root));
  form.addEventListener("submit", () => drafts.forEach((draft) => draft.keep()));
  addEventListener("pagehide", () => drafts.forEach((draft) => draft.keep()));
  form.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-line]");
    if (!link) return;
    event.preventDefault();
    const area = document.getElementById(link.getAttribute("href").slice(1));
    drafts.find((draft) => draft.area === area)?.jump(Number(link.dataset.line), Number(link.dataset.column));
  });
  form.addEventListener("htmx:error", () => showFound("The server does not answer. What you type is kept in this tab."));
  form.addEventListener("htmx:before:swap", (event) => {
    const status = event.detail.ctx?.response?.status ?? 200;
    if (status < 300) return;
    event.preventDefault();
    showFound(status === 401 ? "The session is over. What you type is kept in this tab: reload the page and sign in." : `The server answered ${status}: it was not checked.`);
  });
}

const built = document.getElementById("built");
if (built) for (const path of JSON.parse(built.dataset.paths)) kept.remove(path);
