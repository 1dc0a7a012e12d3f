"use strict";
// Sorting, searching, copying and opening. Without this script the page shows everything except the rest of long lists.

const announce = (text) => { document.getElementById("status").textContent = text; };

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function compare(a, b) { // order of two cells; null for a number and a text, because numbers always come first
  if (a.sort !== null && b.sort !== null) return a.sort - b.sort;
  if (a.sort === null && b.sort === null) return collator.compare(a.text, b.text);
  return null;
}

function sortRows(rows, k, direction) {
  if (!direction) return rows;
  const sign = direction === "ascending" ? 1 : -1;
  return [...rows].sort((one, other) => {
    const [a, b] = [one.cells[k], other.cells[k]];
    const order = compare(a, b);
    return order === null ? (a.sort === null ? 1 : -1) : sign * order;
  });
}

function readRow(row) { // a row of the page with the content of its cells
  const cells = [...row.cells].map((cell) => (
    { text: cell.textContent, sort: cell.dataset.sort === undefined ? null : Number(cell.dataset.sort) }));
  return { cells, row };
}

function makeSortable(table, rows, show) { // `show` is called with the sorted rows
  if (rows.length < 2) return;
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[header.getAttribute("aria-sort")];
      const direction = next === undefined ? "ascending" : next;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (direction) header.setAttribute("aria-sort", direction);
      show(sortRows(rows, header.cellIndex, direction));
      announce(direction ? `Sorted by ${header.textContent}, ${direction}.` : "In the original order.");
    });
    header.append(button);
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  makeSortable(table, [...table.tBodies[0].rows].map(readRow), (rows) => {
    table.tBodies[0].append(...rows.map(({ row }) => row));
  });
}

const PAGE = 100; // rows of a listing on one page

function makeRow(cells, columns) { // a table row from JSON
  const row = document.createElement("tr");
  cells.forEach(({ text, target }, k) => {
    const cell = document.createElement(k ? "td" : "th");
    if (!k) cell.scope = "row";
    if (columns[k].classList.contains("number")) cell.className = "number";
    else if (text.length > 40) cell.className = "long";
    if (target) {
      const link = document.createElement("a");
      link.href = `#${target}`;
      link.append(text);
      cell.append(link);
    } else cell.append(text);
    row.append(cell);
  });
  return row;
}

function searchRows(rows, words, titles) { // rows with all words; title=value searches one column
  const tests = words.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [title, value] = word.split(/=(.*)/s);
    const k = value ? titles.findIndex((each) => each.startsWith(title)) : -1;
    return k < 0 ? (row) => row.words.includes(word) : (row) => row.cells[k].text.toLowerCase() === value;
  });
  return rows.filter((row) => tests.every((test) => test(row)));
}

for (const table of document.querySelectorAll("table.listing")) {
  const part = (name) => document.getElementById(`${table.id}-${name}`);
  const columns = [...table.tHead.rows[0].cells];
  const titles = columns.map((header) => header.textContent.toLowerCase());
  const data = JSON.parse(part("data")?.textContent ?? "[]");
  const cell = (value) => (Array.isArray(value) ? { text: value[0], sort: value[1], target: value[2] } : { text: value, sort: null });
  const rows = [...table.tBodies[0].rows].map(readRow).concat(data.map((values) => ({ cells: values.map(cell) })));
  for (const row of rows) row.words = row.cells.map(({ text }) => text).join("\n").toLowerCase();
  let [order, page] = [rows, 0];
  const show = () => {
    const found = searchRows(order, part("words").value, titles);
    page = Math.max(0, Math.min(page, Math.ceil(found.length / PAGE) - 1));
    const first = page * PAGE;
    const visible = found.slice(first, first + PAGE);
    for (const row of visible) row.row ??= makeRow(row.cells, columns);
    table.tBodies[0].replaceChildren(...visible.map(({ row }) => row));
    const all = found.length === rows.length ? "" : ` found, of ${rows.length.toLocaleString("en")}`;
    const range = found.length > PAGE ? `${(first + 1).toLocaleString("en")} to ${(first + visible.length).toLocaleString("en")} of ` : "";
    part("count").textContent = `${range}${found.length.toLocaleString("en")}${all}`;
    part("before").disabled = first === 0;
    part("after").disabled = first + PAGE >= found.length;
  };
  const turnTo = (to) => { page = to; show(); table.parentElement.scrollTop = 0; };
  part("words").addEventListener("input", () => turnTo(0));
  part("before").addEventListener("click", () => turnTo(page - 1));
  part("after").addEventListener("click", () => turnTo(page + 1));
  for (const name of ["before", "after"]) part(name).classList.toggle("gone", rows.length <= PAGE);
  makeSortable(table, rows, (sorted) => { order = sorted; turnTo(0); });
  part("rest")?.remove();
  show();
}

function copyBySelection(text) { // for browsers that deny the clipboard to local files
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
  if (!copied) { // select the text instead
    for (let box = source.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    getSelection().selectAllChildren(source);
    announce("The text is selected: copy it with the keyboard.");
    return;
  }
  announce("Copied.");
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

const filters = [...document.querySelectorAll("select[data-filter]")];

function applyFilters() { // show what has the selected data set and backbone
  const has = (element, { dataset, value }) => !value || element.dataset[dataset.filter].split("\n").includes(value);
  for (const element of document.querySelectorAll("[data-backbone]")) {
    element.hidden = !filters.every((filter) => has(element, filter));
  }
  announce(`${document.querySelectorAll("section[data-backbone]:not([hidden])").length} analyses shown.`);
}

for (const filter of filters) filter.addEventListener("change", applyFilters);

const folds = () => document.querySelectorAll("details.fold:not([open])");
let unfolded = [];
addEventListener("beforeprint", () => { unfolded = [...folds()]; for (const box of unfolded) box.open = true; });
addEventListener("afterprint", () => { for (const box of unfolded) box.open = false; });

function reveal() { // open what a link points to
  const target = document.getElementById(location.hash.slice(1));
  const section = target?.closest("section[data-backbone]");
  if (section?.hidden) { for (const filter of filters) filter.value = ""; applyFilters(); }
  for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
