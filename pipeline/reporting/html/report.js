// What the page of `semires report` does beyond being read: lines that can be hidden, a gallery that can be filtered and
// enlarged, details that print. Without it all is shown.
"use strict";

// Lines of a chart, by their legend.
for (const item of document.querySelectorAll(".legend li")) {
  const lines = [...item.closest("figure").querySelectorAll("g[data-line]")].filter(
    (line) => line.dataset.line === item.dataset.line,
  );
  if (!lines.length) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "true");
  button.append(...item.childNodes);
  button.addEventListener("click", () => {
    const isShown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isShown));
    for (const line of lines) line.classList.toggle("off", !isShown);
  });
  item.append(button);
}

// Only what scrolls is a stop for the keyboard.
function markScrolling() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
markScrolling();
addEventListener("resize", markScrolling);
addEventListener("toggle", markScrolling, true);

// Paper has nothing that opens.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});

const filters = document.getElementById("filters");
if (filters) {
  const examples = [...document.querySelectorAll(".example")];
  const count = document.getElementById("count");
  const show = () => {
    const wanted = [...new FormData(filters)].filter(([, value]) => value);
    for (const example of examples) {
      example.hidden = !wanted.every(([field, value]) => example.dataset[field] === value);
    }
    count.textContent = `${examples.filter((example) => !example.hidden).length} of ${examples.length} shown`;
  };
  filters.hidden = false;
  filters.addEventListener("change", show);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", (event) => {
    event.preventDefault(); // it would come after what is shown is chosen
    for (const select of filters.querySelectorAll("select")) select.value = "";
    show();
  });
  show();

  const dialog = document.getElementById("enlarged");
  const [picture, caption, place] = [dialog.querySelector("img"), dialog.querySelector("figcaption"), document.getElementById("place")];
  let buttons = [];
  let at = 0;
  const enlarge = (number) => {
    at = (number + buttons.length) % buttons.length;
    const image = buttons[at].firstElementChild;
    picture.src = image.src;
    picture.alt = image.alt;
    caption.textContent = image.alt;
    place.textContent = `${at + 1} of ${buttons.length}`;
  };
  for (const image of document.querySelectorAll(".pictures img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "enlarge";
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => {
      buttons = [...document.querySelectorAll(".example:not([hidden]) .pictures button")];
      enlarge(buttons.indexOf(button));
      dialog.showModal();
    });
  }
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => enlarge(at + Number(button.dataset.step)));
  }
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && dialog.open) enlarge(at + step);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("close", () => buttons[at].focus());
}
