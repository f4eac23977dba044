// What a selected cell meets, and the sum that makes its number.

/** The number that a selected cell asks for: of y, dk or dx. */
function targetOf({ name, index }) {
  return { name: { x: "dx", kernel: "dk", flipped: "dk", delta: "y", cells: "y" }[name] ?? name, index };
}

function drawMarks() {
  document.querySelectorAll(".cell.hit, .cell.target, .cell.winner, .cell.badged").forEach((cell) => {
    cell.classList.remove("hit", "target", "winner", "badged");
    if (cell.lastChild.className === "badge") cell.lastChild.textContent = "";
    if (cell.tagName === "BUTTON") cell.setAttribute("aria-selected", "false");
  });
  const current = preview ?? chosen;
  const target = targetOf(current);
  if (!found[target.name] || offset(found[target.name], [...target.index, ...found[target.name].shape.slice(2).map(() => 0)]) >= found[target.name].data.length) return;
  const sum = sumOf(state(), target.name, target.index);
  markMeetings(target, sum.met);
  [target.name, current.name].forEach((name) => mark(name, target.index, "target"));
  document.querySelector(`button[data-map="${chosen.name}"][data-index="${chosen.index.join(",")}"]`)?.setAttribute("aria-selected", "true");
  markFormula(target.name);
  drawSum(current, target, sum);
}

function cellsAt(name, index) {
  return document.querySelectorAll(`.cell[data-map="${name}"][data-index="${index.join(",")}"]`);
}

function mark(name, index, kindOfMark, badge) {
  cellsAt(name, index).forEach((cell) => markCell(cell, kindOfMark, badge));
}

function markCell(cell, kindOfMark, badge) {
  cell.classList.add("hit", kindOfMark);
  if (badge === undefined) return;
  cell.classList.add("badged");
  cell.lastChild.textContent = badge;
}

const times = (value) => `×${short(value, 2)}`;

function markMeetings(target, met) {
  for (const contact of met) {
    const { output, tap, position, cell } = contact;
    const d = read(found.delta, ...output, maps.y);
    const k = found.kernel ? read(found.kernel, ...tap, maps.x, maps.y) : undefined;
    const badge = { y: k, dk: d, dx: undefined }[target.name];
    const shown = badge === undefined ? undefined : times(badge);
    if (cell) mark("x", cell, "hit", shown);
    else document.querySelectorAll(`.outside[data-position="${position.join(",")}"]`).forEach((pad) => markCell(pad, "hit", shown));
    if (!cell && target.name !== "y") continue;
    if (target.name !== "dk" && found.kernel) ["kernel", "flipped"].forEach((name) => mark(name, tap, "hit"));
    if (target.name === "dk") ["kernel", "flipped"].forEach((name) => mark(name, target.index, "hit"));
    if (target.name !== "dk") mark("y", output, "hit");
    mark("delta", output, "hit", target.name === "dx" ? badgeOnDelta(contact, k) : undefined);
    mark("cells", output, "hit");
    if (target.name === "y" && cell) mark("dx", cell, "hit");
    if (kind === "max-pool" && found.winners[output[0] * found.window[1].output + output[1]][maps.x].includes(contact)) {
      ["x", "dx"].forEach((name) => mark(name, cell, "winner"));
      if (target.name === "dx") ["y", "delta"].forEach((name) => mark(name, output, "winner"));
    }
  }
}

function badgeOnDelta({ output }, k) {
  if (k !== undefined) return times(k);
  return kind === "mean-pool" ? `/${found.counts[output[0] * found.window[1].output + output[1]]}` : undefined;
}

function markFormula(name) {
  document.querySelectorAll(".formulas li").forEach((line) => line.classList.toggle("active", line.dataset.of === name));
}

// ---- the sum

function drawSum(current, target, sum) {
  const many = (found.kernel ? found.kernel.shape.slice(2) : [found.x.shape[2]]).some((count) => count > 1);
  const naming = { rank, many, maps: { x: maps.x, dx: maps.x, y: maps.y, delta: maps.y, dk: [maps.x, maps.y] } };
  const known = shownValue(target.name, target.index);
  const heading = get("sum-heading");
  const total = element("span", { id: "total", "data-value": String(sum.total) }, `${place(target.name, target.index, naming)} = ${short(sum.total, 5)}`);
  heading.replaceChildren(total, ...partialWords(target, sum), ...editor(current));
  const rule = combinedBy(settings, target.name) === "max" ? "the largest of" : "the sum of";
  const lead = element("li", {}, known === undefined ? "not computed yet: " : "", sum.terms.length ? rule : "nothing meets it");
  const chips = sum.terms.slice(0, 80).map((term) => chip(term, naming, many));
  const rest = sum.terms.length > 80 ? [element("li", {}, `and ${sum.terms.length - 80} more`)] : [];
  get("terms").replaceChildren(lead, ...chips, ...rest);
  if (!preview) get("spoken").textContent = sentenceOf(state(), target.name, target.index, sum);
}

function chip({ factors, divisor = 1, lost }, naming, many) {
  const parts = factors.flatMap(([name, index, channels], at) => {
    const own = { ...naming, maps: { ...naming.maps, [name]: channels } };
    const value = element("b", { class: ROLE[name] }, short(read(found[name], ...index, ...channels)));
    return [at ? " · " : "", value, " ", element("i", {}, place(name, index, own))];
  });
  return element("li", { class: lost && "lost" }, ...parts, divisor > 1 ? ` / ${divisor}` : "");
}

function partialWords({ name, index }, { met }) {
  if (name !== "y" || !isPartial(index)) return [];
  const inside = met.filter(({ cell }) => cell).length;
  return [element("small", { class: "quiet" }, `partial window: ${inside} of its ${met.length} taps lie on the input`)];
}

/** A field for the number itself, where it is given and not computed. */
function editor({ name, index }) {
  const given = name === "flipped" ? "kernel" : name;
  if (!(given in numbers)) return [];
  const channels = { x: [maps.x], kernel: [maps.x, maps.y], delta: [maps.y] }[given];
  const field = element("input", { type: "number", step: "any", id: "edit", value: String(read(found[given], ...index, ...channels)) });
  field.addEventListener("change", () => {
    if (!Number.isFinite(field.valueAsNumber)) return;
    if (given === "delta") numbers.delta = copy(found.delta);
    numbers[given].data[offset(numbers[given], [...index, ...channels])] = field.valueAsNumber;
    update();
    get("edit")?.focus();
  });
  return [element("label", {}, `${SYMBOL[given]} here:`, field)];
}

