"use strict";
const boxes = [...document.querySelectorAll("input[data-uri]")];
const button = document.getElementById("download");
const chosen = () => [...new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.uri))];
const show = () => {
  const count = chosen().length;
  button.disabled = count === 0;
  button.textContent = count ? `Download exclude.txt (${count})` : "Tick images to leave out";
};
boxes.forEach((box) => box.addEventListener("change", (event) => {
  boxes.filter((other) => other.dataset.uri === box.dataset.uri).forEach((other) => { other.checked = box.checked; });
  if (event.isTrusted) show();
}));
document.querySelectorAll("button[data-all]").forEach((all) => all.addEventListener("click", () => {
  const own = [...all.closest("article").querySelectorAll("input[data-uri]")];
  const on = own.some((box) => !box.checked);
  own.forEach((box) => { box.checked = on; box.dispatchEvent(new Event("change")); });
  show();
}));
button.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${chosen().join("\n")}\n`], { type: "text/plain" }));
  link.download = "exclude.txt";
  link.click();
  URL.revokeObjectURL(link.href);
});
document.documentElement.classList.add("scripted");
show();
