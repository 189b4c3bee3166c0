// The night's data: script files beside the page, each of them loaded when it is first shown.

const root = document.documentElement;
const arrivals = new Map(); // file name -> what takes its content
const loads = new Map(); // file name -> promise of its content

window.nightshift = (name, content) => {
  arrivals.get(name)?.(content);
  arrivals.delete(name);
};

const scripts = window.trustedTypes?.createPolicy("nightshift", { createScriptURL: (url) => url }) ?? {
  createScriptURL: (url) => url,
};

const load = (name) => {
  if (!loads.has(name)) loads.set(name, new Promise((take, refuse) => request(name, take, refuse)));
  return loads.get(name);
};

const request = (name, take, refuse) => {
  const script = document.createElement("script");
  const end = () => {
    script.remove();
    if (!arrivals.delete(name)) return;
    loads.delete(name); // another click tries again
    refuse(Object.assign(new Error(`${root.dataset.files}${name}.js`), { name: "MissingFile" }));
  };
  arrivals.set(name, take);
  script.addEventListener("load", end);
  script.addEventListener("error", end);
  script.src = scripts.createScriptURL(`${root.dataset.files}${name}.js`);
  document.head.append(script);
};

const numbers = (Kind, text) =>
  new Kind(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);

// Which category each row belongs to, and where each category starts; rows lie by category.
const spread = (counts) => {
  const starts = [];
  let total = 0;
  for (const count of counts) {
    starts.push(total);
    total += count;
  }
  const category = new Uint16Array(total);
  counts.forEach((count, number) => category.fill(number, starts[number], starts[number] + count));
  return { starts, category, total };
};

// Names are text from outside: shown through text nodes alone, hidden characters spelled out.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
const visible = (text) =>
  (text ?? "")
    .replace(/\s*[\r\n]\s*/g, " ")
    .replace(HIDDEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
const fileName = (uri) => visible(uri.slice(uri.lastIndexOf("/") + 1) || uri);
const count = (number) => number.toLocaleString("en-US");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const decimal = (number) => (number === null ? "none" : number.toPrecision(3));
const pValue = (number) => (number === null ? "none" : String(Number(number.toPrecision(2))));

const percent = (share) => `${Number((share * 100).toPrecision(2))} %`;

const find = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};
const address = (uri) => {
  const name = uri.slice(uri.lastIndexOf("/") + 1) || uri;
  const folder = uri.slice(0, uri.length - name.length);
  return make("bdi", { class: "uri" }, make("span", {}, visible(folder)), make("b", {}, visible(name)));
};

const fillSelect = (select, entries) => {
  for (const [value, text] of entries) select.append(make("option", { value }, text));
};

// Buttons for the page before and after, above and below a list.
const showPager = (pagers, { at, size, total, go }) => {
  const last = Math.max(Math.ceil(total / size) - 1, 0);
  for (const pager of pagers) {
    const step = (text, to, off) => {
      const button = make("button", { type: "button", disabled: off ? "" : undefined }, text);
      button.addEventListener("click", () => go(to));
      return button;
    };
    const from = total ? at * size + 1 : 0;
    const where = `${count(from)}–${count(Math.min((at + 1) * size, total))} of ${count(total)}`;
    pager.replaceChildren(
      step("Previous", at - 1, at === 0), make("span", {}, where), step("Next", at + 1, at >= last));
    pager.hidden = total <= size;
  }
};
