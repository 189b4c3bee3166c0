// Failures, and the wiring of the whole page.

const PAGE_FAILURES = 25;
const failures = { ids: [] };

const openFailures = (index) => {
  const { category, total } = spread(index.failures.counts);
  const status = numbers(Uint8Array, index.failures.status);
  Object.assign(failures, { category, total, status, statuses: index.failures.statuses, rows: index.page_rows });
};

const chooseFailures = () => {
  const status = find("failure-status").value, category = find("failure-category").value;
  failures.ids = [];
  for (let id = 0; id < failures.total; id += 1) {
    if (status !== "" && failures.status[id] !== Number(status)) continue;
    if (category !== "" && failures.category[id] !== Number(category)) continue;
    failures.ids.push(id);
  }
  return showFailures(0);
};

const showFailures = async (at) => {
  const ids = failures.ids.slice(at * PAGE_FAILURES, (at + 1) * PAGE_FAILURES);
  let rows;
  try {
    rows = await Promise.all(ids.map(makeFailure));
  } catch (error) {
    return showLost(error);
  }
  find("failure-rows").replaceChildren(...rows);
  showPager(document.querySelectorAll(".failure-pager"), {
    at, size: PAGE_FAILURES, total: failures.ids.length, go: showFailures });
};

const makeFailure = async (id) => {
  const page = await load(`failures-${Math.floor(id / failures.rows)}`);
  const row = id % failures.rows;
  const cell = (name, content) => make("td", { role: "cell", "data-label": name }, content);
  return make("tr", { role: "row" },
    cell("Status", make("code", {}, visible(failures.statuses[failures.status[id]]))),
    cell("Category", make("bdi", {}, categoryName(images.categories[failures.category[id]]))),
    cell("What happened", make("bdi", {}, visible(page.error[row]) || "no error text")),
    cell("Image", address(page.folder + page.uri[row])));
};

const categoryName = (name) => visible(name) || "(no category)";

const categoryOptions = (counts, categories) =>
  counts.map((number, category) => [category, number])
    .filter(([, number]) => number)
    .map(([category, number]) => [category, `${categoryName(categories[category])} (${count(number)})`])
    .sort((a, b) => (a[1] < b[1] ? -1 : 1));

const onFilters = (ids, choose) => {
  for (const id of ids) find(id).addEventListener("change", choose);
};

const showCategory = (category, unfold) => {
  find("category").value = String(category);
  if (unfold) images.folded.delete(category);
  if (images.bits.some((bits, id) => images.category[id] === category && bits & FLAGGED)) find("show").value = "flagged";
  else find("show").value = "all";
  find("p-value").value = "1";
  find("images").scrollIntoView();
  return chooseImages().then(() => moveTo(0));
};

const showChoice = (name) => {
  find("show").value = name;
  find("category").value = "";
  find("p-value").value = "1";
  find("images").scrollIntoView();
  return chooseImages().then(() => moveTo(0));
};

const start = async () => {
  const index = await load("index");
  if (find("tiles")) startLabels();
  openImages(index, index.categories);
  if (find("tiles")) {
    fillSelect(find("category"), categoryOptions(index.images.counts, index.categories));
    if (!images.bits.some((bits) => bits & FLAGGED)) {
      find("show").value = images.bits.every((bits) => bits & USUAL) ? "audit" : "all";
    }
    onFilters(["show", "category", "p-value", "sort", "budget"], chooseImages);
    for (const button of document.querySelectorAll("[data-show]")) {
      button.addEventListener("click", () => showChoice(button.dataset.show));
    }
    startReview();
    await chooseImages();
  }
  for (const button of document.querySelectorAll("[data-category]")) {
    button.addEventListener("click", () => showCategory(Number(button.dataset.category), "unfold" in button.dataset));
  }
  if (find("failure-rows")) {
    openFailures(index);
    fillSelect(find("failure-status"), failures.statuses.map((name, code) => [code, visible(name)]));
    fillSelect(find("failure-category"), categoryOptions(index.failures.counts, index.categories));
    onFilters(["failure-status", "failure-category"], chooseFailures);
    await chooseFailures();
  }
  root.dataset.ready = "";
};

root.classList.add("scripted");
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details[data-print]")) details.open = true;
});
if (root.dataset.files) start().catch(showLost);
