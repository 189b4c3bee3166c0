"use strict";
const boxes = [...document.querySelectorAll("input[data-uri]")];
const button = document.getElementById("download");
const chosen = () => boxes.filter((box) => box.checked);
const show = () => {
  const count = chosen().length;
  button.disabled = count === 0;
  button.textContent = count ? `Download labels.jsonl (${count})` : "Choose labels";
};
const line = (box, when) => JSON.stringify({
  image_uri: box.dataset.uri,
  image_etag: box.dataset.etag || null,
  category: box.dataset.category,
  label: box.value,
  night: box.dataset.night || null,
  labelled_at: when,
});
boxes.forEach((box) => box.addEventListener("change", show));
button.addEventListener("click", () => {
  const when = new Date().toISOString();
  const lines = chosen().map((box) => `${line(box, when)}\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  link.download = "labels.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
});
document.documentElement.classList.add("scripted");
show();
