"use strict";
// Sorting, copying and opening; without it the page still shows all there is.

const say = (text) => { document.getElementById("status").textContent = text; };

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function compare(a, b) { // numbers before words, in either direction
  const [x, y] = [a.dataset.sort, b.dataset.sort];
  if (x !== undefined && y !== undefined) return Number(x) - Number(y);
  if (x === undefined && y === undefined) return collator.compare(a.textContent, b.textContent);
  return null;
}

function sort(table, header, original) {
  const next = { ascending: "descending", descending: null }[header.getAttribute("aria-sort")];
  const direction = next === undefined ? "ascending" : next;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  const rows = [...original];
  if (direction) {
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const k = header.cellIndex;
    rows.sort((a, b) => {
      const order = compare(a.cells[k], b.cells[k]);
      return order === null ? (a.cells[k].dataset.sort === undefined ? 1 : -1) : sign * order;
    });
  }
  table.tBodies[0].append(...rows);
  say(direction ? `Sorted by ${header.textContent}, ${direction}.` : "In the original order.");
}

for (const table of document.querySelectorAll("table.sortable")) {
  const original = [...table.tBodies[0].rows];
  if (original.length < 2) continue;
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(table, header, original));
    header.append(button);
  }
}

function copyBySelection(text) { // for browsers that keep the clipboard from a page opened from disk
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  let copied;
  try {
    await navigator.clipboard.writeText(source.textContent);
    copied = true;
  } catch {
    copied = copyBySelection(source.textContent);
    button.focus();
  }
  if (!copied) { // show what was to be copied, selected
    for (let box = source.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    getSelection().selectAllChildren(source);
    say("The text is selected: copy it with the keyboard.");
    return;
  }
  say("Copied.");
  const label = button.textContent;
  if (label === "Copied") return;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}

for (const hidden of document.querySelectorAll(".tools[hidden], button[hidden]")) hidden.hidden = false;
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button));
for (const [name, open] of [["open", true], ["close", false]]) {
  for (const button of document.querySelectorAll(`[data-${name}]`)) {
    button.addEventListener("click", () => {
      const section = document.getElementById(button.dataset[name]);
      for (const box of section.querySelectorAll("details.run")) box.open = open;
    });
  }
}

function reveal() { // a link to a run opens it
  const box = document.getElementById(location.hash.slice(1))?.closest("details");
  if (box) box.open = true;
}
addEventListener("hashchange", reveal);
reveal();
