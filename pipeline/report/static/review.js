// One image large, and the keys: from image to image, defect, good, unsure, undo.

const view = find("view");

const openView = (index) => {
  setCurrent(index, false);
  if (!view.open) view.showModal();
  fillView();
  view.querySelector(".shown").focus();
};

const fillView = () => {
  const image = imageAt(images.current);
  if (!image) return;
  images.viewed = images.current;
  const facts = [
    ["Category", visible(image.categoryName)],
    ["Decision", stateOf(image)],
    ["Score", decimal(image.score)],
    ["p-value", pValue(image.pValue)],
    ...(image.regions === undefined || image.regions === null ? []
      : [["Regions", `${count(image.regions)}, ${percent(image.areaShare)} of the image`]]),
    ["Model", visible(`${image.model[0] ?? "unknown"}, version ${image.model[1] ?? "unknown"}`)],
    ...image.statistics.filter(([, value]) => value !== null).map(([name, value]) => [name, decimal(value)]),
  ];
  view.querySelector("[data-judge=good]").textContent = goodWord(image);
  find("view-picture").replaceChildren(makePictures(image));
  find("view-facts").replaceChildren(
    ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, make("bdi", {}, value)))));
  find("view-address").replaceChildren(address(image.uri));
  find("view-position").textContent = `${count(images.current + 1)} of ${count(images.ids.length)}`;
  paintTile(view, image);
};

const perRow = () => {
  const tiles = [...find("tiles").children];
  return Math.max(tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length, 1);
};

const decide = (label) => {
  const image = imageAt(images.current);
  if (!image) return;
  judge(image, label);
  moveTo(images.current + 1);
};

const takeBack = () => {
  const image = undo();
  if (!image) return;
  refreshLabel(image);
  const index = images.ids.indexOf(image.id);
  if (index >= 0) moveTo(index);
};

const KEYS = {
  ArrowRight: () => moveTo(images.current + 1),
  ArrowLeft: () => moveTo(images.current - 1),
  ArrowDown: () => moveTo(images.current + (view.open ? 1 : perRow())),
  ArrowUp: () => moveTo(images.current - (view.open ? 1 : perRow())),
  j: () => moveTo(images.current + 1),
  k: () => moveTo(images.current - 1),
  a: () => decide("defect"),
  r: () => decide("good"),
  s: () => decide("unsure"),
  u: takeBack,
};

// Single keys act only on an image, so that they never surprise whoever types elsewhere; where
// nothing has the focus, j steps in.
const onKey = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const { target, key } = event;
  if (target.matches("input, select, textarea") && (target.type !== "range" || key.startsWith("Arrow"))) return;
  const onTile = target.closest(".tile") !== null;
  if (target === document.body && !view.open && key === "j") {
    event.preventDefault();
    moveTo(Math.max(images.current, 0));
  } else if (target.matches(".tile") && key === "Enter") {
    event.preventDefault();
    openView(images.current);
  } else if ((onTile || view.open) && key in KEYS) {
    event.preventDefault();
    KEYS[key]();
  }
};

const startReview = () => {
  document.addEventListener("keydown", onKey);
  // Closing gives the focus back to the tile that was opened; the operator has moved on from it.
  view.addEventListener("close", () => setCurrent(images.viewed, true));
  find("heat").addEventListener("input", (event) => {
    root.style.setProperty("--heat", event.target.value / 100);
  });
  find("wipe").addEventListener("input", (event) => {
    view.style.setProperty("--wipe", `${event.target.value}%`);
  });
  for (const [id, act] of Object.entries({
    "view-before": () => moveTo(images.current - 1),
    "view-after": () => moveTo(images.current + 1),
    "view-close": () => view.close(),
    "view-undo": takeBack,
  })) find(id).addEventListener("click", act);
  for (const button of view.querySelectorAll("[data-judge]")) {
    button.addEventListener("click", () => decide(button.dataset.judge));
  }
};
