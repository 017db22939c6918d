// Small helpers; elements are kept by key and updated in place.

export const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

export const say = (element, text) => {
  const next = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== next) element.textContent = next;
  element.hidden = next === "";
  return element;
};

// Keep one child per item, in order; `update(element, item)` writes what changed.
export const reconcile = (parent, items, key, create, update) => {
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let child = present.get(id);
    present.delete(id);
    if (!child) {
      child = create(item);
      child.dataset.key = id;
    }
    if (child !== place) parent.insertBefore(child, place);
    else place = place.nextElementSibling;
    update(child, item);
  }
  for (const child of present.values()) child.remove();
};

export const button = () => make("button", { type: "button", class: "angelos-button" });

const rows = (text) => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));

export const showDiff = (element, hunk, where) => {
  const lines = [
    ...(where ? [["at", where]] : []),
    ...rows(hunk.before).map((row) => ["minus", `- ${row}`]),
    ...rows(hunk.after).map((row) => ["plus", `+ ${row}`]),
  ];
  const key = JSON.stringify(lines);
  if (element.dataset.shown === key) return;
  element.dataset.shown = key;
  element.replaceChildren(
    ...lines.map(([kind, text]) => make("div", { class: `angelos-${kind}` }, text)),
  );
};
