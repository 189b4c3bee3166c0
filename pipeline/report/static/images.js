// The notable images: all of them sorted and filtered by the index, one page of them shown.

const PAGE_IMAGES = 24;
// Bits of an image in the index; a usual image is there for the audit alone.
const FLAGGED = 1, DISCOVERY = 2, DEFECT = 4, GOOD = 8, AUDIT = 16, USUAL = 32, UNSURE = 64;
const images = { ids: [], at: 0, current: -1, shown: [], folded: new Set(), turn: 0 };

const openImages = (index, categories) => {
  const { starts, category, total } = spread(index.images.counts);
  Object.assign(images, {
    categories, starts, category, total,
    rows: index.page_rows,
    score: numbers(Float32Array, index.images.score),
    pValue: numbers(Float32Array, index.images.p_value),
    bits: numbers(Uint8Array, index.images.bits),
    key: numbers(Uint32Array, index.images.key),
    label: new Uint8Array(total), // as in CODES; 0 without one
    queue: new Map(index.queue.map((id, place) => [id, place])),
    inQueue: index.queue,
    folded: new Set(JSON.parse(root.dataset.folded)),
  });
  const own = new Map();
  for (const { category: name, key, line } of given.values()) own.set(`${key} ${name}`, line.label);
  for (let id = 0; id < total; id += 1) {
    const label = own.size && own.get(`${images.key[id]} ${categories[category[id]]}`);
    images.label[id] = CODES[label] ?? importedCode(images.bits[id]);
  }
};

const importedCode = (bits) =>
  bits & DEFECT ? CODES.defect : bits & GOOD ? CODES.good : bits & UNSURE ? CODES.unsure : 0;

const fetchImage = async (id) => {
  const number = images.category[id];
  const rank = id - images.starts[number];
  const page = await load(`images-${number}-${Math.floor(rank / images.rows)}`);
  const row = rank % images.rows;
  const statistics = Object.entries(page.statistics).map(([name, values]) => [name, values[row]]);
  return {
    id, statistics,
    uri: page.folder + page.uri[row],
    etag: page.etag[row],
    categoryName: images.categories[number],
    key: images.key[id],
    score: page.score[row],
    pValue: page.p_value[row],
    model: page.models[page.model[row]],
    label: page.label[row],
    size: page.size,
    ignored: page.ignored ?? [],
    boxes: page.boxes?.[row] ?? [],
    regions: page.regions?.[row],
    areaShare: page.area_share?.[row],
    flagged: Boolean(images.bits[id] & FLAGGED),
    isAudit: Boolean(images.bits[id] & AUDIT),
    isDiscovery: Boolean(images.bits[id] & DISCOVERY),
    picture: `${encodeURIComponent(images.categories[number])}/${page.picture[row]}`,
  };
};

const SHOWN = {
  flagged: (id) => images.bits[id] & FLAGGED,
  discoveries: (id) => images.bits[id] & DISCOVERY,
  unflagged: (id) => !(images.bits[id] & (FLAGGED | USUAL)),
  all: (id) => !(images.bits[id] & USUAL),
  audit: (id) => images.bits[id] & AUDIT,
  first: (id) => images.queue.get(id) < budgetEnd(),
  open: (id) => images.bits[id] & FLAGGED && !images.label[id],
  defect: (id) => images.label[id] === CODES.defect,
  good: (id) => images.label[id] === CODES.good,
  unsure: (id) => images.label[id] === CODES.unsure,
};
// Where the budget ends: after a sample that has begun, since it counts only as a whole.
const budgetEnd = () => {
  const isOfSample = (place) => images.bits[images.inQueue[place]] & AUDIT;
  const categoryAt = (place) => images.category[images.inQueue[place]];
  let end = Math.min(Number(find("budget").value), images.inQueue.length);
  while (isOfSample(end - 1) && isOfSample(end) && categoryAt(end) === categoryAt(end - 1)) end += 1;
  return end;
};
const rankOf = (id) => id - images.starts[images.category[id]];
const calm = (id) => (images.bits[id] & FLAGGED ? 0 : 1);
const ORDERS = {
  worst: (a, b) =>
    calm(a) - calm(b) || rankOf(a) - rankOf(b) || images.pValue[a] - images.pValue[b] || a - b,
  unlikely: (a, b) => images.pValue[a] - images.pValue[b] || rankOf(a) - rankOf(b) || a - b,
  likely: (a, b) => images.pValue[b] - images.pValue[a] || rankOf(a) - rankOf(b) || a - b,
  high: (a, b) => images.score[b] - images.score[a] || a - b,
  low: (a, b) => images.score[a] - images.score[b] || a - b,
  category: (a, b) => a - b,
};

const chooseImages = () => {
  const show = find("show").value;
  const wanted = SHOWN[show];
  find("within").hidden = show !== "first";
  find("sort").disabled = show === "first";
  const only = find("category").value === "" ? -1 : Number(find("category").value);
  const limit = Math.fround(find("p-value").value); // as the index holds p-values: 0.05 is 0.05
  const ids = [], foldedAway = new Map();
  for (let id = 0; id < images.total; id += 1) {
    const number = images.category[id];
    if (only >= 0 && number !== only) continue;
    if (images.pValue[id] > limit || !wanted(id)) continue;
    if (images.folded.has(number)) foldedAway.set(number, (foldedAway.get(number) ?? 0) + 1);
    else ids.push(id);
  }
  const byWorth = (a, b) => images.queue.get(a) - images.queue.get(b);
  images.ids = ids.sort(show === "first" ? byWorth : ORDERS[find("sort").value]);
  showFold(foldedAway);
  return showImages(0);
};

const showFold = (foldedAway) => {
  const total = [...foldedAway.values()].reduce((sum, number) => sum + number, 0);
  find("fold").hidden = !total;
  if (!total) return;
  const names = [...foldedAway.keys()].map((number) => visible(images.categories[number]));
  const who = names.length === 1 ? names[0] : plural(names.length, "shifted category").replace("ys", "ies");
  const button = make("button", { type: "button" }, "Show them");
  button.addEventListener("click", () => {
    for (const number of foldedAway.keys()) images.folded.delete(number);
    chooseImages();
  });
  const line = `${plural(total, "image")} of ${who} folded away: the category has shifted as a whole. `;
  find("fold").replaceChildren(line, button);
};

const showImages = async (at) => {
  const turn = (images.turn += 1);
  const ids = images.ids.slice(at * PAGE_IMAGES, (at + 1) * PAGE_IMAGES);
  find("tiles").setAttribute("aria-busy", "true");
  let shown;
  try {
    shown = await Promise.all(ids.map(fetchImage));
    find("lost").hidden = true;
  } catch (error) {
    return showLost(error);
  } finally {
    if (turn === images.turn) find("tiles").removeAttribute("aria-busy");
  }
  if (turn !== images.turn) return; // the operator has gone on meanwhile
  Object.assign(images, { at, shown, current: -1 });
  find("tiles").replaceChildren(...shown.map(makeTile));
  showPager(document.querySelectorAll(".image-pager"), {
    at, size: PAGE_IMAGES, total: images.ids.length, go: showImages });
  find("matches").textContent = images.ids.length
    ? `${plural(images.ids.length, "image")} match`.replace(/^1 image match/, "1 image matches")
    : "No image matches these filters";
  setCurrent(at * PAGE_IMAGES, false);
};

const showLost = (error) => {
  if (error.name !== "MissingFile") throw error; // a fault of this script
  find("lost").textContent =
    `A part of this report is missing: ${error.message}. If the report was written again since ` +
    "you opened it, reload the page; otherwise write it again.";
  find("lost").hidden = false;
};

const makePictures = (image) => {
  const source = (kind, suffix) => `../../${kind}/night=${root.dataset.night}/${image.picture}${suffix}`;
  const common = { width: 224, height: 224, decoding: "async" };
  const name = fileName(image.uri);
  const under = make("img", { ...common, class: "under", alt: `Original of ${name}`, src: source("thumbnails", ".jpg") });
  const heat = make("img", { ...common, class: "heat", alt: `Heat map over ${name}`, src: source("maps", ".png") });
  const gone = (picture, text) =>
    picture.addEventListener("error", () => picture.replaceWith(make("p", { class: "gone" }, text)));
  gone(under, "No picture was stored of this image");
  gone(heat, "No heat map was stored of this image");
  return make("div", { class: "stack" }, under, heat, ...makeBoxes(image));
};

// Where the image is anomalous and what of it does not count, in pixels of the picture, which the drawing fits as pictures do.
const makeBoxes = (image) => {
  if (!image.boxes.length && !image.ignored.length) return [];
  const draw = (tag, attributes) => {
    const element = document.createElementNS(find("colours").namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const label = `${plural(image.regions ?? 0, "region")} of ${fileName(image.uri)}`;
  const boxes = draw("svg", { class: "boxes", viewBox: `0 0 ${image.size.join(" ")}`, role: "img", "aria-label": label });
  const rect = (kind, [x, y, width, height]) => draw("rect", { class: kind, x, y, width, height });
  boxes.append(...image.ignored.map((box) => rect("ignored", box)));
  boxes.append(...image.boxes.flatMap((box) => [rect("halo", box), rect("line", box)]));
  return [boxes];
};

const stateOf = (image) =>
  `${image.flagged ? "Flagged" : "Not flagged"}${image.isDiscovery ? ", discovery" : ""}${image.isAudit ? ", audit" : ""}`;

const goodWord = (image) => (image.flagged ? "False alarm" : "Good");

const makeTile = (image, position) => {
  const pictures = makePictures(image);
  const state = stateOf(image);
  const tile = make("figure", { class: `tile${image.flagged ? "" : " unflagged"}`, tabindex: "-1" },
    pictures,
    make("figcaption", {},
      make("p", { class: "of" }, make("bdi", {}, visible(image.categoryName)), make("span", { class: "badge" }, state)),
      make("p", { class: "numbers" },
        make("span", {}, "score ", make("b", {}, decimal(image.score))),
        make("span", {}, "p-value ", make("b", {}, pValue(image.pValue)))),
      make("bdi", { class: "uri", title: visible(image.uri) }, make("b", {}, fileName(image.uri))),
      make("p", { class: "judge" },
        makeJudge(image, "defect", "Defect"),
        makeJudge(image, "good", goodWord(image)),
        makeJudge(image, "unsure", "Unsure"))));
  const index = images.at * PAGE_IMAGES + position;
  tile.addEventListener("focusin", () => setCurrent(index, false));
  pictures.addEventListener("click", () => openView(index));
  paintTile(tile, image);
  return tile;
};

const makeJudge = (image, label, text) => {
  const button = make("button", { type: "button", "data-judge": label, tabindex: "-1" }, text);
  button.addEventListener("click", () => judge(image, pressed(image, label)));
  return button;
};

const paintTile = (tile, image) => {
  const label = CODES[labelOf(image)] ? labelOf(image) : "none";
  tile.dataset.said = label;
  for (const button of tile.querySelectorAll("[data-judge]")) {
    button.setAttribute("aria-pressed", String(button.dataset.judge === label));
  }
};

const tileAt = (index) => find("tiles").children[index - images.at * PAGE_IMAGES];
const imageAt = (index) => images.shown[index - images.at * PAGE_IMAGES];

// One tile at a time can be reached with the tab key, and its buttons after it.
const setCurrent = (index, focus) => {
  const reach = (tile, to) => {
    for (const element of tile ? [tile, ...tile.querySelectorAll("button")] : []) element.tabIndex = to;
    tile?.classList.toggle("current", to === 0);
  };
  reach(tileAt(images.current), -1);
  images.current = index;
  reach(tileAt(index), 0);
  if (focus) tileAt(index)?.focus({ preventScroll: true });
  if (focus) tileAt(index)?.scrollIntoView({ block: "nearest" });
};

const moveTo = async (index, focus = true) => {
  if (!images.ids.length) return;
  const to = Math.max(0, Math.min(index, images.ids.length - 1));
  const page = Math.floor(to / PAGE_IMAGES);
  if (page !== images.at) await showImages(page);
  setCurrent(to, focus && !find("view").open);
  if (find("view").open) fillView();
};

const judge = (image, label) => {
  setLabel(image, label);
  refreshLabel(image);
};

const refreshLabel = (image) => {
  images.label[image.id] = CODES[labelOf(image)] ?? 0;
  const place = images.shown.findIndex((other) => other.id === image.id);
  if (place >= 0) paintTile(find("tiles").children[place], image);
  if (find("view").open) paintTile(find("view"), imageAt(images.current));
  showGiven();
};
