// Buttons that post to the API: first a question that says what will happen, then the request, as JSON and to this server only. A
// refusal of the server stays at the foot of the window, also when the button goes. The page follows the log, so what was done shows by itself.
(() => {
  "use strict";
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // Resolves to the reason (perhaps empty) when confirmed, and to null otherwise.
  function confirmed(button) {
    return new Promise((resolve) => {
      const reason = element("input", { type: "text", maxLength: 500, autocomplete: "off" });
      const label = element("label", {}, "Reason (shown in the history) ", reason);
      const yes = element("button", { type: "submit", value: "yes", className: "act strong" }, button.textContent);
      const no = element("button", { type: "submit", value: "no", className: "act", formNoValidate: true }, "Cancel");
      const asked = "reason" in button.dataset ? [label] : [];
      const form = element("form", { method: "dialog" },
        element("h2", { id: "question" }, `${button.textContent}?`),
        element("p", {}, button.dataset.effect), ...asked, element("div", { className: "buttons" }, yes, no));
      const dialog = element("dialog", { className: "question" }, form);
      dialog.setAttribute("aria-labelledby", "question");
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes" ? reason.value.trim() : null);
        button.focus();
      });
      document.body.append(dialog);
      dialog.showModal();
    });
  }

  const key = () => globalThis.crypto?.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;

  async function send(button, reason) {
    const body = JSON.parse(button.dataset.body ?? "{}");
    if (reason) body.reason = reason;
    const headers = { "content-type": "application/json", "idempotency-key": key() };
    const token = document.querySelector('meta[name="shipway-csrf"]')?.content;
    if (token) headers["x-shipway-csrf"] = token;
    const answer = await fetch(button.dataset.post, { method: "POST", headers, body: JSON.stringify(body) });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.detail ?? `The server responded with status ${answer.status}.`);
    return said;
  }

  // A rollout that the request has started is where to look next.
  function startedRollout(said) {
    const id = Array.isArray(said.rollouts) ? said.rollouts[0] : undefined;
    const found = /^([a-z0-9-]+)\/ro(\d+)$/.exec(id ?? "");
    return found && `/rollouts/${found[1]}/${found[2]}`;
  }

  async function press(button) {
    const refusal = document.getElementById("refusal");
    const effect = button.dataset.effect;
    const reason = effect ? await confirmed(button) : "";
    if (reason === null) return;
    button.disabled = true;
    refusal.textContent = "";
    try {
      const said = await send(button, reason);
      const next = startedRollout(said);
      if (next) location.assign(next);
      else document.dispatchEvent(new Event("shipway:changed"));
    } catch (error) {
      refusal.textContent = `Not done: ${error.message}`;
      document.dispatchEvent(new Event("shipway:changed"));
    } finally {
      button.disabled = false;
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button[data-post]");
    if (!button) return;
    event.preventDefault();
    press(button);
  });
})();
