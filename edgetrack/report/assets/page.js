"use strict";
// Without this the page is whole and readable: it adds sorting, and what a mark says when it is pointed at or focused.
const numberOf = (cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : null);

function compare(a, b, numeric) {
  if (!numeric) return a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  return numberOf(a) - numberOf(b);
}

function sort(table, index, numeric, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const missing = (row) => numeric && numberOf(row.cells[index]) === null;
  rows.sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return compare(a.cells[index], b.cells[index], numeric) * (descending ? -1 : 1);
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, index) => {
    const numeric = heading.classList.contains("n");
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, index, numeric, descending);
    });
  });
}

const tip = document.getElementById("tip");

function show(mark) {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const place = mark.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(room, place.left + place.width / 2 - tip.offsetWidth / 2))}px`;
  const above = place.top - tip.offsetHeight - 8;
  tip.style.top = `${above > 0 ? above : place.bottom + 8}px`;
}

const hide = () => { tip.hidden = true; };

for (const mark of document.querySelectorAll(".mark")) {
  mark.querySelector("title").remove();
  mark.addEventListener("pointerenter", () => show(mark));
  mark.addEventListener("pointerleave", hide);
  mark.addEventListener("focus", () => show(mark));
  mark.addEventListener("blur", hide);
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
// A focused mark is scrolled to, and what it says goes with it.
document.addEventListener("scroll", () => {
  const mark = document.activeElement.closest(".mark");
  if (mark && !tip.hidden) show(mark);
  else hide();
}, { passive: true });
