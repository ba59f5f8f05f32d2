// The columns at the sides: on a narrow screen they are drawers, opened with a button.

import { $ } from "./elements.js";

const drawers = [
  { panel: $("sidebar"), button: $("show-sidebar"), narrow: matchMedia("(max-width: 760px)") },
  { panel: $("people-panel"), button: $("show-people"), narrow: matchMedia("(max-width: 1080px)") },
];
let openDrawer = null;

function draw() {
  for (const drawer of drawers) {
    const open = drawer === openDrawer;
    drawer.panel.classList.toggle("is-open", open);
    drawer.panel.inert = drawer.narrow.matches && !open;
    drawer.button.setAttribute("aria-expanded", open);
  }
  $("shade").hidden = !openDrawer;
  document.querySelector("main").inert = Boolean(openDrawer);
}

export function closeDrawer() {
  if (!openDrawer) return;
  const { button } = openDrawer;
  openDrawer = null;
  draw();
  button.focus();
}

for (const drawer of drawers) {
  const close = drawer.panel.querySelector(".drawer-close");
  drawer.button.onclick = () => {
    openDrawer = drawer;
    draw();
    close.focus();
  };
  close.onclick = closeDrawer;
  drawer.narrow.onchange = () => {
    openDrawer = null;
    draw();
  };
}
$("shade").onclick = closeDrawer;
addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeDrawer();
});
draw();
