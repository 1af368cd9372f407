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

  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const known = keyOf(wanted) && keyed.get(keyOf(wanted));
      if (known && known !== at && isAlike(known, wanted)) old.insertBefore(known, at);
      const match = known || at;
      if (match && isAlike(match, wanted)) {
        if (match === at) at = at.nextSibling;
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
