// Follows the log of an instance: the server sends new lines as HTML, and they stay at the end as long as the reader is there.
(() => {
  "use strict";
  // Lines that the page holds at most.
  const LINES_MAX = 4000;
  // How near to the end, in pixels, counts as the end.
  const NEAR = 40;
  const RECONNECT_MS = 2000;
  const panel = document.getElementById("log");
  const lines = () => panel.querySelector(".log-lines");

  function add(html) {
    const box = lines();
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    box.querySelector(":scope > p")?.remove();
    for (const line of [...fresh.content.children]) {
      // A line that was incomplete is replaced.
      const known = document.getElementById(line.id);
      if (known) known.replaceWith(line);
      else box.append(line);
    }
    while (box.childElementCount > LINES_MAX) box.firstElementChild.remove();
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }

  function follow() {
    const address = lines().dataset.follow;
    if (!address) return;
    const source = new EventSource(address);
    source.addEventListener("lines", (event) => add(JSON.parse(event.data).html));
    source.addEventListener("end", () => source.close());
    source.onerror = () => {
      source.close();
      setTimeout(() => reload().catch(() => setTimeout(reload, RECONNECT_MS)), RECONNECT_MS);
    };
  }

  // After a lost connection the log may have been rotated: it is read anew.
  async function reload() {
    const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("log");
    if (fresh) panel.replaceChildren(...fresh.childNodes);
    lines().scrollTop = lines().scrollHeight;
    follow();
  }

  if (!location.hash) lines().scrollTop = lines().scrollHeight;
  follow();
})();
