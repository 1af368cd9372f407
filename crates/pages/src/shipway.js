// Keeps the page true: when the log says that something changed, the content is fetched anew. Without this script the page
// reads the same and is simply not alive.
"use strict";

const wanted = document.body.dataset.events;
// While nothing in the log moves, counters and ages still do.
const REFRESH_MS = 5000;
// Many events at once are one change to the eye.
const SETTLE_MS = 150;

// What a page shows of a log; the whole is behind the link.
const LOG_LINES = 5000;

let pending = null;

// Makes `shown` equal to `fresh` and leaves what is equal untouched: focus, selection, typed text, opened details and scroll
// positions stay. A script owns the inside of an element with `data-log` or `data-keep`.
function patch(shown, fresh) {
  if (shown.isEqualNode(fresh)) return;
  if (shown.nodeType !== fresh.nodeType || shown.nodeName !== fresh.nodeName || (shown.id ?? "") !== (fresh.id ?? "")) {
    shown.replaceWith(fresh);
    return;
  }
  if (shown.nodeType !== Node.ELEMENT_NODE) {
    shown.nodeValue = fresh.nodeValue;
    return;
  }
  if ("log" in shown.dataset || "keep" in shown.dataset) return;
  for (const { name } of [...shown.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") shown.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (shown.getAttribute(name) !== value && !(name === "open" && shown.nodeName === "DETAILS")) shown.setAttribute(name, value);
  }
  const before = [...shown.childNodes], after = [...fresh.childNodes];
  after.forEach((child, index) => (before[index] ? patch(before[index], child) : shown.append(child)));
  for (const child of before.slice(after.length)) child.remove();
}

// Logs that were opened, by their address: they outlive a refresh of what is around them.
const logs = new Map();

function follow(details) {
  const pre = details.querySelector("pre");
  let lines = [];
  pre.textContent = "";
  const source = new EventSource(details.dataset.log);
  source.onmessage = (event) => {
    // The browser reconnects by itself, after the event that came last: nothing is missed and nothing comes twice.
    lines = lines.concat(JSON.parse(event.data).text.split("\n").slice(0, -1)).slice(-LOG_LINES);
    const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
    pre.textContent = lines.join("\n");
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  };
  source.addEventListener("end", () => source.close());
  return source;
}

function attachLogs() {
  for (const details of document.querySelectorAll("details[data-log]")) {
    const known = logs.get(details.dataset.log);
    if (known) {
      details.replaceWith(known);
      continue;
    }
    logs.set(details.dataset.log, details);
    let source = null;
    details.addEventListener("toggle", () => {
      source?.close();
      source = details.open ? follow(details) : null;
    });
  }
}

async function refresh() {
  pending = null;
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
  if (fresh) patch(document.getElementById("content"), fresh);
  attachLogs();
}

function soon() {
  pending ??= setTimeout(() => refresh().catch(() => {}), SETTLE_MS);
}

// Buttons post to the API, as JSON and to this server only. The page follows the log, so what was done shows by itself.
async function post(button) {
  button.disabled = true;
  const headers = { "content-type": "application/json" };
  const answer = await fetch(button.dataset.post, { method: "POST", headers, body: "{}" });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    button.disabled = false;
    button.title = problem.detail ?? `the server responded with ${answer.status}`;
    button.textContent = `${button.textContent}: refused`;
    return;
  }
  soon();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) post(button).catch(() => { button.disabled = false; });
});

attachLogs();

if (wanted) {
  const events = new EventSource("/api/v1/events?" + (wanted === "all" ? "" : wanted));
  events.onopen = () => document.body.classList.add("follows");
  events.onerror = () => document.body.classList.remove("follows");
  for (const kind of ["service", "run", "rollout"]) events.addEventListener(kind, soon);
  setInterval(soon, REFRESH_MS);
  document.addEventListener("visibilitychange", soon);
}

// `/` focuses the search box, as long as nothing is being typed elsewhere.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  event.preventDefault();
  document.getElementById("search")?.select();
});
