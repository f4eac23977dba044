// Maps as grids of buttons: one stop of the Tab key each, arrow keys inside.

/** A map as a figure. `rows` hold cells {index, value, partial}, or {position, text} where there is no cell. */
function grid(name, caption, rows, { labels = [String, String], describe, events }) {
  const columns = rows[0]?.length ?? 0;
  const table = element("div", { class: columns > 14 ? "grid wide" : "grid", role: "grid", "aria-label": caption[1], style: { "--columns": String(columns) } });
  table.append(headings(columns, labels[1]));
  rows.forEach((row, r) => {
    const line = element("div", { class: "line", role: "row" }, element("span", { class: "at", "aria-hidden": "true" }, rows.length > 1 ? labels[0](r) : ""));
    row.forEach((cell) => line.append(cell.index ? button(name, cell, describe, events) : outside(name, cell)));
    table.append(line);
  });
  const buttons = [...table.querySelectorAll("button")];
  if (buttons.length) buttons[0].tabIndex = 0;
  table.addEventListener("keydown", (event) => moveFocus(event, table, columns));
  const heading = element("figcaption", {}, element("b", {}, caption[2] ?? SYMBOL[name]), ` ${caption[0]}`);
  return element("figure", { class: "map", "data-map": name, "data-role": ROLE[name] }, heading, element("div", { class: "scroll" }, table));
}

function headings(columns, label) {
  const line = element("div", { class: "line", "aria-hidden": "true" }, element("span", { class: "at" }));
  for (let c = 0; c < columns; c += 1) line.append(element("span", { class: "at" }, label(c)));
  return line;
}

function button(name, cell, describe, events) {
  const made = element("button", {
    type: "button", class: "cell", role: "gridcell", tabindex: "-1", "aria-selected": "false",
    "data-role": ROLE[name], "data-map": name, "data-index": cell.index.join(","),
  }, element("span", { class: "value" }), element("span", { class: "badge", "aria-hidden": "true" }));
  if (cell.partial) made.classList.add("partial");
  made.dataset.partial = cell.partial ? ", partial window" : "";
  made.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && events.preview(name, cell.index));
  made.addEventListener("focus", () => events.focus(name, cell.index, made));
  made.addEventListener("click", () => events.choose(name, cell.index));
  fill(made, cell.value, describe(name, cell.index));
  return made;
}

function outside(name, cell) {
  const made = element("span", { class: "cell outside", role: "gridcell", "aria-hidden": "true", "data-role": ROLE[name], "data-position": cell.position.join(",") },
    element("span", { class: "value" }, cell.text), element("span", { class: "badge" }));
  return made;
}

/** Put a number into a cell; undefined is one that is not computed yet. */
function fill(cell, value, description) {
  const known = value !== undefined;
  const text = known ? short(value) : "·";
  cell.firstChild.textContent = text;
  cell.classList.toggle("long", text.length > 4);
  cell.dataset.value = known ? String(value) : "";
  cell.setAttribute("aria-label", `${description}, ${known ? short(value, 5) : "not computed yet"}${cell.dataset.partial}`);
}

function moveFocus(event, table, columns) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (!(event.key in steps) && event.key !== "Home" && event.key !== "End") return;
  event.preventDefault();
  const all = [...table.querySelectorAll(".cell")];
  const at = all.indexOf(document.activeElement);
  const row = Math.floor(at / columns);
  const inRow = all.slice(row * columns, (row + 1) * columns).filter((cell) => cell.tagName === "BUTTON");
  let next;
  if (event.key === "Home") [next] = inRow;
  else if (event.key === "End") next = inRow[inRow.length - 1];
  else {
    const target = at + steps[event.key];
    const sameRow = Math.floor(target / columns) === row;
    const vertical = Math.abs(steps[event.key]) === columns && (event.key === "ArrowUp" || event.key === "ArrowDown");
    next = vertical || sameRow ? all[target] : undefined;
  }
  if (next?.tagName === "BUTTON") focusCell(next);
}

/** Only one cell of a grid is a stop of the Tab key. */
function focusCell(cell) {
  cell.closest(".grid").querySelectorAll('button[tabindex="0"]').forEach((other) => { other.tabIndex = -1; });
  cell.tabIndex = 0;
  cell.focus();
}
