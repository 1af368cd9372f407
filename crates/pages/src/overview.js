// Replaces the rows of the overview that have changed, and keeps ages current.
"use strict";

const AGES_MS = 10000;
// Many pages that are made anew at once are spread over this time.
const RELOAD_SPREAD_MS = 300;

function ageText(seconds) {
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function updateAges() {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time[data-age]")) {
    const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000));
    const text = ageText(seconds);
    if (time.textContent !== text) time.textContent = text;
  }
}

function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

const changes = new EventSource(document.body.dataset.changes);
changes.onopen = () => document.body.classList.add("follows");
changes.onerror = () => document.body.classList.remove("follows");
changes.addEventListener("row", (event) => {
  const { id, html } = JSON.parse(event.data);
  const shown = document.getElementById(id);
  if (shown) shipwayMorph(shown, element(html));
});
changes.addEventListener("counts", (event) => {
  for (const { state, environments } of JSON.parse(event.data)) {
    const count = document.querySelector(`#states [data-state="${state}"] strong`);
    if (count && count.textContent !== String(environments)) count.textContent = environments;
  }
});
// Services came or went, or the server was restarted.
changes.addEventListener("reload", () => setTimeout(() => refresh().catch(() => {}), Math.random() * RELOAD_SPREAD_MS));

setInterval(updateAges, AGES_MS);
document.addEventListener("visibilitychange", updateAges);
