// Masks and table rows of one candidate carry its number; pointing at either lights both and tells the scores.
"use strict";

const stage = document.getElementById("stage");
const about = document.getElementById("about");
const masks = [...stage.querySelectorAll("[data-mask]")];
let pinned = null; // what a tap or a key chose: it stays lit when the pointer leaves

function light(number) {
  for (const element of document.querySelectorAll("[data-mask]")) {
    element.classList.toggle("lit", element.dataset.mask === number);
  }
  stage.classList.toggle("has-lit", number !== null);
  const mask = masks.find((each) => each.dataset.mask === number);
  const lines = mask ? [mask.getAttribute("aria-label")] : ["No candidate is pointed at."];
  for (const row of document.querySelectorAll("tr[data-about]")) {
    if (row.dataset.mask === number) lines.push(row.dataset.about);
  }
  about.replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
}

function pin(number) {
  pinned = number;
  for (const mask of masks) mask.setAttribute("aria-pressed", mask.dataset.mask === number);
  light(number);
}

function numberOf(element) {
  return element.closest("[data-mask]")?.dataset.mask ?? null;
}

// The smallest under the pointer is drawn last, so it is the one that is hit; a tap on what is pinned goes below it.
function tapped(event) {
  const below = document.elementsFromPoint(event.clientX, event.clientY).map(numberOf).filter((number) => number !== null);
  return below.length ? below[(below.indexOf(pinned) + 1) % below.length] : null;
}

document.addEventListener("pointerover", (event) => {
  if (event.pointerType !== "touch") light(numberOf(event.target) ?? pinned);
});
document.documentElement.addEventListener("pointerleave", () => light(pinned));
document.addEventListener("click", (event) => {
  if (stage.contains(event.target)) pin(tapped(event));
  else if (numberOf(event.target) !== null) pin(numberOf(event.target));
});

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function focusOn(mask) {
  for (const each of masks) each.tabIndex = each === mask ? 0 : -1;
  mask.focus();
}

// By key only: a tap focuses as well, before it is told. On the document: an SVG that listens takes the focus itself.
document.addEventListener("focusin", (event) => {
  if (stage.contains(event.target) && event.target.matches(":focus-visible")) pin(numberOf(event.target));
});
stage.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return pin(null);
  const at = masks.indexOf(event.target);
  const to = event.key === "Home" ? 0 : event.key === "End" ? masks.length - 1 : at + (STEPS[event.key] ?? NaN);
  if (at < 0 || Number.isNaN(to)) return;
  event.preventDefault();
  focusOn(masks[(to + masks.length) % masks.length]);
});
