// The log beside the jobs: loads lines as it is scrolled, opens steps and single lines, searches on the server, follows a running
// job. Everything it shows is HTML of the server; without it the same links load whole pages.
(() => {
  "use strict";
  const panel = document.getElementById("log");
  if (!panel?.dataset.base) return;
  const base = panel.dataset.base;
  // Lines that are loaded at once, and those that the page holds at most.
  const LINES = 500;
  const LINES_MAX = 4000;
  // How near to an end, in pixels, more is loaded.
  const NEAR = 600;

  let lines = () => panel.querySelector(".log-lines");
  // Loads happen one after the other; `loads` counts those that are not done.
  let loading = Promise.resolve();
  let loads = 0;
  let follower = null;

  const number = (name) => Number(lines()?.dataset[name] ?? 0);

  async function fetchFragment(query) {
    const answer = await fetch(`${base}/log?${query}`, { headers: { accept: "text/html" } });
    const text = await answer.text();
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    return answer.ok ? fresh : null;
  }

  function jobQuery(more) {
    const { job, attempt } = lines().dataset;
    return new URLSearchParams({ job, attempt, ...more });
  }

  // Brings a line into the middle of the panel without moving the page.
  function reveal(line) {
    for (let around = line.closest("details:not([open])"); around; around = around.parentElement.closest("details:not([open])")) around.open = true;
    const box = lines();
    const place = line.getBoundingClientRect().top - box.getBoundingClientRect().top;
    box.scrollTop += place - box.clientHeight / 3;
  }

  function mark(line) {
    for (const old of panel.querySelectorAll(".focus")) {
      old.classList.remove("focus");
      old.removeAttribute("aria-current");
    }
    line.classList.add("focus");
    line.setAttribute("aria-current", "location");
  }

  function showFocus() {
    const line = panel.querySelector(".focus");
    if (line) reveal(line);
    else if (number("last") >= number("total") && number("first") > 1) lines().scrollTop = lines().scrollHeight;
  }

  // Replaces the panel by the one of another place or job.
  async function open(query) {
    const answer = await fetch(`${base}?${query}`, { headers: { accept: "text/html" } });
    if (!answer.ok) return false;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("log");
    if (!fresh) return false;
    panel.replaceChildren(...fresh.childNodes);
    attach();
    showFocus();
    return true;
  }

  // The first and last step of what is loaded may continue in what is added.
  function joinSteps(first, second) {
    if (!first || !second || first.dataset.step !== second.dataset.step) return false;
    second.querySelector(":scope > summary")?.remove();
    first.append(...second.childNodes);
    second.remove();
    return true;
  }

  // Steps that were running when their lines were loaded may have ended.
  function updateHeads(fragment) {
    const heads = fragment?.querySelector("template.log-heads")?.content;
    for (const step of heads ? lines().querySelectorAll("details.log-step") : []) {
      const head = heads.querySelector(`[data-step="${step.dataset.step}"]`);
      const shown = step.querySelector(":scope > summary");
      if (head && shown && shown.innerHTML !== head.innerHTML) shown.replaceChildren(...head.cloneNode(true).childNodes);
    }
  }

  function updateNumbers() {
    const all = lines().querySelectorAll("[data-line]");
    if (!all.length) return;
    lines().dataset.first = all[0].dataset.line;
    lines().dataset.last = all[all.length - 1].dataset.line;
    const neighbours = panel.querySelector(".log-neighbours");
    if (neighbours) neighbours.textContent = `lines ${number("first")} to ${number("last")} of ${number("total")}`;
  }

  // Takes lines away at the far end, so that a long log does not fill the memory.
  function trim(fromStart) {
    const all = [...lines().querySelectorAll("[data-line]")];
    const surplus = all.length - LINES_MAX;
    if (surplus <= 0) return;
    const height = lines().scrollHeight;
    for (const line of fromStart ? all.slice(0, surplus) : all.slice(-surplus)) line.remove();
    for (const empty of lines().querySelectorAll("details")) if (!empty.querySelector("[data-line]")) empty.remove();
    if (fromStart) lines().scrollTop -= height - lines().scrollHeight;
  }

  // `query` is asked for the parameters once the loads before are done.
  function load(query, where) {
    loads += 1;
    loading = loading.then(() => loadLines(query(), where)).catch(() => {}).finally(() => { loads -= 1; });
    return loading;
  }

  async function loadLines(query, where) {
    const fragment = await fetchFragment(query);
    updateHeads(fragment);
    const fresh = fragment?.querySelector(".log-lines");
    const box = lines();
    if (!fresh || fresh.dataset.job !== box.dataset.job || fresh.dataset.attempt !== box.dataset.attempt) return;
    box.dataset.total = fresh.dataset.total;
    const before = box.scrollHeight - box.scrollTop;
    if (!fresh.querySelector("[data-line]")) return;
    const isKnown = where === "after" ? Number(fresh.dataset.first) <= number("last") : Number(fresh.dataset.last) >= number("first");
    if (isKnown) return;
    const hadNone = !box.querySelector("[data-line]");
    if (hadNone) box.replaceChildren();
    if (where === "after") {
      joinSteps(box.lastElementChild, fresh.firstElementChild);
      box.append(...fresh.childNodes);
      trim(true);
    } else {
      const joined = fresh.lastElementChild && box.firstElementChild?.dataset.step === fresh.lastElementChild.dataset.step;
      if (joined) {
        const old = box.firstElementChild;
        joinSteps(fresh.lastElementChild, old);
      }
      box.prepend(...fresh.childNodes);
      trim(false);
    }
    updateNumbers();
    if (where === "before") box.scrollTop = box.scrollHeight - before;
  }

  function later() {
    return load(() => jobQuery({ from: number("last") + 1, count: LINES }), "after");
  }

  function earlier() {
    const query = () => {
      const first = number("first");
      const from = Math.max(1, first - LINES);
      return jobQuery({ from, count: first - from });
    };
    return load(query, "before");
  }

  function scrolled() {
    const box = lines();
    if (loads) return;
    if (box.scrollTop + box.clientHeight > box.scrollHeight - NEAR && number("last") < number("total")) later();
    else if (box.scrollTop < NEAR && number("first") > 1) earlier();
  }

  const isAtEnd = (box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 24;

  // The server tells when the log has grown; the lines are fetched as they are shown.
  function follow() {
    follower?.close();
    follower = null;
    const box = lines();
    if (!box) return;
    const { job, attempt } = box.dataset;
    const address = base.replace("/runs/", "/api/v1/runs/") + `/jobs/${job}/log/lines?attempt=${attempt}`;
    const source = new EventSource(address);
    follower = source;
    source.onmessage = async (event) => {
      const { total } = JSON.parse(event.data);
      const here = lines();
      if (follower !== source || total <= number("total") && number("last") >= total) return;
      const follows = isAtEnd(here) && number("last") >= number("total");
      here.dataset.total = total;
      if (follows) await showNewLines(total);
    };
    source.addEventListener("end", async () => {
      source.close();
      if (follower === source && number("last")) updateHeads(await fetchFragment(jobQuery({ from: number("last"), count: 1 })));
    });
  }

  // Loads up to the end and shows it; after a large burst of lines only the last ones.
  async function showNewLines(total) {
    if (total - number("last") > LINES_MAX) {
      await open(jobQuery({ at: "end" }));
    }
    for (let before = -1; number("last") < number("total") && number("last") !== before;) {
      before = number("last");
      await later();
    }
    lines().scrollTop = lines().scrollHeight;
  }

  async function search(form) {
    const text = new FormData(form).get("search");
    const results = panel.querySelector(".log-results");
    if (!text) return results.replaceChildren();
    results.textContent = "Searching…";
    const fragment = await fetchFragment(jobQuery({ search: text }));
    if (fragment) results.replaceChildren(...fragment.childNodes);
    else results.textContent = "The search failed: try again.";
  }

  function attach() {
    lines()?.addEventListener("scroll", scrolled, { passive: true });
    follow();
  }

  // `#job:step:line`; without a line the beginning of the step, without a step any.
  function openHash() {
    const [job, step, line] = decodeURIComponent(location.hash.slice(1)).split(":");
    if (!job || step === undefined) return;
    const known = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (known?.dataset.line) {
      mark(known);
      reveal(known);
    } else {
      open(line ? new URLSearchParams({ job, line }) : new URLSearchParams({ job, step }));
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    if (link.classList.contains("line-number")) {
      const line = link.closest("[data-line]");
      event.preventDefault();
      history.replaceState(null, "", `#${line.id}`);
      mark(line);
      return;
    }
    if (!link.hasAttribute("data-log-link")) return;
    event.preventDefault();
    const address = new URL(link.href.baseVal ?? link.href, location.href);
    open(address.searchParams).then((done) => {
      if (!done) location.assign(address);
      else history.replaceState(null, "", address.hash || location.pathname);
      panel.scrollIntoView({ block: "nearest" });
    });
  });

  document.addEventListener("submit", (event) => {
    if (!panel.contains(event.target)) return;
    event.preventDefault();
    search(event.target);
  });

  addEventListener("hashchange", openHash);
  attach();
  if (location.hash) openHash();
  else showFocus();
})();
