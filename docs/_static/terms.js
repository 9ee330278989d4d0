"use strict";
// Shows the definition of a term in a box below it: on hover, on focus, and on the first touch.
// The link holds the definition in its title, which browsers show if this script does not run.

const box = document.createElement("div");
box.id = "term-definition";
box.setAttribute("role", "tooltip");
box.hidden = true;
document.body.append(box);
let shown = null; // the term whose definition is in the box
let closing;

function show(term) {
  clearTimeout(closing);
  if (shown && shown !== term) hide();
  shown = term;
  box.textContent = term.dataset.definition;
  box.style.left = "0"; // a box at the right border would be measured too narrow
  box.hidden = false;
  term.setAttribute("aria-describedby", box.id);
  const place = term.getClientRects()[0];
  const width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(place.left, width - box.offsetWidth - 8));
  const below = place.bottom + box.offsetHeight + 8 < window.innerHeight;
  const top = below ? place.bottom + 4 : place.top - box.offsetHeight - 4;
  box.style.left = `${left + window.scrollX}px`;
  box.style.top = `${top + window.scrollY}px`;
}

function hide() {
  shown?.removeAttribute("aria-describedby");
  shown = null;
  box.hidden = true;
}

const hideSoon = () => { closing = setTimeout(hide, 200); }; // the pointer may move into the box

for (const term of document.querySelectorAll("a.term")) {
  term.dataset.definition = term.title;
  term.removeAttribute("title");
  let touched = false; // a touch opens the box; a second one follows the link
  term.addEventListener("pointerdown", event => {
    touched = event.pointerType === "touch" && shown !== term;
  });
  term.addEventListener("click", event => {
    if (touched) { event.preventDefault(); show(term); }
    touched = false;
  });
  term.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") show(term); });
  term.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hideSoon(); });
  term.addEventListener("focus", () => { if (!touched) show(term); });
  term.addEventListener("blur", hideSoon);
}
box.addEventListener("pointerenter", () => clearTimeout(closing));
box.addEventListener("pointerleave", hideSoon);
document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
document.addEventListener("pointerdown", event => {
  if (shown && !event.target.closest("a.term, #term-definition")) hide();
});
