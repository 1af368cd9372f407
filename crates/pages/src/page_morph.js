// Makes a part of the page equal to a newer version of it and touches only what differs: focus, scroll positions, opened details
// and what is being typed stay. Elements with `data-keep` are left to their own script.
const shipwayMorph = (() => {
  "use strict";
  const keyOf = (node) => node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "";
  const isAlike = (old, fresh) =>
    old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);

  function updateAttributes(old, fresh) {
    // What a person has opened or closed stays as it is.
    const isTheirs = (name) => name === "open" && old.nodeName === "DETAILS";
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && !isTheirs(name) && !name.startsWith("data-live")) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value && !isTheirs(name)) old.setAttribute(name, value);
  }

  function nextAlike(at, wanted) {
    for (let node = at; node; node = node.nextSibling) if (isAlike(node, wanted)) return node;
    return null;
  }

  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      // Without a key the next node of its kind: one before it may have gone.
      const match = keyOf(wanted) ? keyed.get(keyOf(wanted)) : nextAlike(at, wanted);
      if (match && isAlike(match, wanted)) {
        if (match === at) at = at.nextSibling;
        else old.insertBefore(match, at);
        morphNode(match, wanted);
      } else {
        old.insertBefore(document.importNode(wanted, true), at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function morphNode(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if ("keep" in old.dataset || old.isEqualNode(fresh)) return;
    updateAttributes(old, fresh);
    morphChildren(old, fresh);
  }
  return morphChildren;
})();
