// What the operator says about images: kept in this browser, downloadable as JSON Lines.

const CODES = { defect: 1, good: 2, unsure: 3, undo: 0 }; // undo: what was imported is taken back
const storePrefix = `nightshift:${root.dataset.store}:`;
const given = new Map(); // image_uri -> {line, category, key}
const decisions = []; // what undo takes back, the last one at the end

const readGiven = () => {
  for (let index = 0; index < localStorage.length; index += 1) {
    const name = localStorage.key(index);
    if (!name.startsWith(storePrefix)) continue;
    try {
      const entry = JSON.parse(localStorage.getItem(name));
      if (entry.line.label in CODES) given.set(entry.line.image_uri, entry);
    } catch {
      continue; // written by somebody else
    }
  }
};

const keep = (uri, entry) => {
  if (entry) given.set(uri, entry);
  else given.delete(uri);
  try {
    if (entry) localStorage.setItem(storePrefix + uri, JSON.stringify(entry));
    else localStorage.removeItem(storePrefix + uri);
  } catch {
    warnOfLoss();
  }
};

const warnOfLoss = () => {
  find("loss").hidden = false;
};

const labelOf = (image) => given.get(image.uri)?.line.label ?? image.label;

// What a press on a label's button says: the same label once more takes it back.
const pressed = (image, label) => {
  if (labelOf(image) !== label) return label;
  return given.has(image.uri) ? null : "undo";
};

const setLabel = (image, label) => {
  decisions.push({ image, before: given.get(image.uri) });
  keep(image.uri, label && {
    category: image.categoryName,
    key: image.key,
    line: {
      image_uri: image.uri,
      image_etag: image.etag,
      category: image.categoryName,
      label,
      night: root.dataset.night,
      model_name: image.model[0],
      model_version: image.model[1],
      labelled_at: new Date().toISOString(),
    },
  });
};

const undo = () => {
  const decision = decisions.pop();
  if (decision) keep(decision.image.uri, decision.before);
  return decision?.image;
};

const showGiven = () => {
  const values = [...given.values()].map((entry) => entry.line.label);
  const number = (wanted) => values.filter((label) => label === wanted).length;
  find("given").textContent = values.length
    ? `${plural(values.length, "label")} in this browser: ${plural(number("defect"), "defect")}, ` +
      plural(number("good"), "false alarm") +
      (number("unsure") ? `, ${count(number("unsure"))} unsure` : "") + (number("undo") ? `, ${count(number("undo"))} taken back` : "")
    : "No labels in this browser yet";
  find("download").disabled = !values.length;
};

const download = () => {
  const lines = [...given.values()].map((entry) => `${JSON.stringify(entry.line)}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const link = make("a", { href: url, download: `labels-${root.dataset.night}.jsonl` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};

const startLabels = () => {
  try {
    readGiven();
  } catch {
    warnOfLoss();
  }
  find("download").addEventListener("click", download);
  showGiven();
};
