// Keeps the page true: when the log says that something changed, the content is fetched anew. Without this script the page
// reads the same and is simply not alive.
"use strict";

const wanted = document.body.dataset.events;
// While nothing in the log moves, counters and ages still do.
const REFRESH_MS = 5000;
// Many events at once are one change to the eye.
const SETTLE_MS = 40;

let pending = null;

async function refresh() {
  pending = null;
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
  if (fresh) shipwayMorph(document.getElementById("content"), fresh);
  document.dispatchEvent(new Event("shipway:refreshed"));
}

function soon() {
  pending ??= setTimeout(() => refresh().catch(() => {}), SETTLE_MS);
}

document.addEventListener("shipway:changed", soon);

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
  if (event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  event.preventDefault();
  document.getElementById("search")?.select();
});
