// Replaces the rows of the overview that have changed, and keeps ages current.
"use strict";

const AGES_MS = 10000;
// How near the end of the table, in pixels, the next page is added.
const NEAR = 1500;
// Links to services in trouble that are on no row.
const NEWS_MAX = 5;
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

// A link to a service that is in trouble and on no row of the page; none once it is well, or has a row.
function showTrouble(id, service) {
  const news = document.getElementById("news");
  const known = news?.querySelector(`[data-row="${id}"]`);
  if (!service) return known?.remove();
  if (!news || known || news.childElementCount >= NEWS_MAX) return;
  const link = document.createElement("a");
  link.href = `/services/${service}`;
  link.dataset.row = id;
  link.textContent = `${service} is red`;
  news.append(link);
}

// The next pages are added to the table when its end comes near. `pages` counts those that are shown.
let pages = 1;
// Rows of changed services that the page does not show, by id.
const unseen = new Map();
let adding = null;

async function addPage() {
  const next = document.querySelector('#pager a[rel="next"]');
  const rows = document.querySelector("table.matrix tbody");
  if (!next || !rows) return false;
  const answer = await fetch(next.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  // A service that has changed meanwhile may have moved to a page that is shown already: it is on none of the next ones.
  const changed = [...unseen.values()].map(element);
  unseen.clear();
  for (const row of [...page.querySelectorAll("table.matrix tbody > tr"), ...changed]) {
    if (!document.getElementById(row.id)) rows.append(row);
    showTrouble(row.id, null);
  }
  const pager = document.getElementById("pager");
  pager.replaceChildren(...(page.querySelectorAll('#pager a[rel="next"]')));
  return true;
}

function isEndNear() {
  const pager = document.getElementById("pager");
  return pager && pager.getBoundingClientRect().top < innerHeight + NEAR;
}

// Adds pages while the end is near, and after a refresh those that were there before.
async function addPages(wanted) {
  while ((pages < wanted || isEndNear()) && await addPage()) pages += 1;
}

function fill(wanted = 0) {
  adding ??= addPages(wanted).catch(() => {}).finally(() => { adding = null; });
}

addEventListener("scroll", () => { if (isEndNear()) fill(); }, { passive: true });
document.addEventListener("shipway:refreshed", () => {
  const wanted = pages;
  pages = 1;
  unseen.clear();
  fill(wanted);
});
if (isEndNear()) fill();

const changes = new EventSource(document.body.dataset.changes);
changes.onopen = () => document.body.classList.add("follows");
changes.onerror = () => document.body.classList.remove("follows");
changes.addEventListener("row", (event) => {
  const { id, html, trouble } = JSON.parse(event.data);
  const shown = document.getElementById(id);
  if (shown) shipwayMorph(shown, element(html));
  else unseen.set(id, html);
  showTrouble(id, shown ? null : trouble);
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
