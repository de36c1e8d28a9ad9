// What every page does in a browser: times in the reader's own words, and a word when the server does not answer.
"use strict";

const UNITS = [[86400 * 2, 86400, "d"], [7200, 3600, "h"], [120, 60, "min"], [1, 1, "s"]];

function age(seconds) {
  const [, unit, word] = UNITS.find(([least]) => seconds >= least) ?? [0, 1, ""];
  return word ? `${Math.floor(seconds / unit)} ${word} ago` : "now";
}

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const passed = (Date.now() - at) / 1000;
    const words = passed < 0 ? at.toLocaleString() : age(passed);
    time.title = at.toLocaleString();
    if (time.textContent !== words) time.textContent = words;  // what somebody has marked stays marked
  }
}

function showConnection(isLost) {
  document.getElementById("offline").hidden = !isLost;
}

document.addEventListener("DOMContentLoaded", () => showTimes(document));
document.addEventListener("htmx:after:swap", () => showTimes(document));
setInterval(() => showTimes(document), 10000);

document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail.status === 401) location.reload();  // the session is over: the sign-in page leads back here
  showConnection(true);
});
document.addEventListener("htmx:sse:after:connection", () => showConnection(false));
