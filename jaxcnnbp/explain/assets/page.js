// The page: settings in, marks, sums and steps out. The rules are in rules.js.

const start = readData();
const { rank } = start;
const kind = start.settings.kind;
const get = (id) => document.getElementById(id);
const tensor = ({ shape, data }) => ({ shape, data: Float64Array.from(data, Number) });
const copy = ({ shape, data }) => ({ shape, data: data.slice() });
const fromPackage = Object.fromEntries(Object.entries(start.arrays).map(([name, array]) => [name, tensor(array)]));

let settings, numbers, maps, found, contactsBy, steps, progress, chosen, preview, timer;

function reset() {
  settings = structuredClone(start.settings);
  numbers = Object.fromEntries(["x", "kernel", "delta"].filter((name) => name in fromPackage).map((name) => [name, copy(fromPackage[name])]));
  maps = { x: 0, y: 0 };
  progress = null;
  chosen = { name: "y", index: [0, 0] };
  preview = null;
}

const state = () => ({ found, settings, maps, contactsBy, rank });
const untouched = () => JSON.stringify(settings) === JSON.stringify(start.settings)
  && Object.keys(numbers).every((name) => numbers[name].data.every((v, i) => Object.is(v, fromPackage[name].data[i])));

// ---- what is computed

function compute() {
  const next = recompute(settings, numbers.x, numbers.kernel, numbers.delta);
  const fault = faultOf(next);
  get("alert").textContent = fault;
  if (fault) return false;
  found = next;
  // The numbers first shown are the package's own, not this page's.
  if (untouched()) for (const name of ["y", "dx", "dk"]) if (found[name]) found[name] = fromPackage[name];
  contactsBy = { output: groupBy(found.contacts, "output"), tap: groupBy(found.contacts, "tap"), cell: groupBy(found.contacts, "cell") };
  steps = stepsOf();
  return true;
}

function faultOf({ window }) {
  const axis = window.findIndex(({ output }) => output < 1);
  if (axis >= 0) {
    const { extent, dilated, low, high } = window[axis];
    return `The window spans ${extent} positions along ${axis ? "the columns" : "the rows"}, but the padded input has ${Math.max(dilated + low + high, 0)}: use a smaller window, less dilation or more padding.`;
  }
  const cropped = settings.ceilMode && settings.padding.flat().some((p) => p < 0);
  if (cropped) return "Partial windows cannot be counted where the padding crops the input.";
  const tooMany = window[0].output * window[1].output * window[0].size * window[1].size > 40000;
  return tooMany ? "This makes more windows than can be shown." : "";
}

function groupBy(contacts, key) {
  const groups = new Map();
  for (const contact of contacts) {
    const name = contact[key]?.join(",");
    if (name === undefined) continue;
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(contact);
  }
  return groups;
}

const indicesOf = ([height, width]) => Array.from({ length: height * width }, (_, at) => [Math.floor(at / width), at % width]);

/** The algorithm in order: each output; then each input cell and each kernel element, or the delta of each output of a pool. */
function stepsOf() {
  const forward = indicesOf(found.y.shape).map((index) => ({ name: "y", index }));
  const backward = isPool(kind)
    ? indicesOf(found.delta.shape).map((index) => ({ name: "delta", index }))
    : ["dx", "dk"].flatMap((name) => indicesOf(found[name].shape).map((index) => ({ name, index })));
  return [...forward, ...backward];
}

/** What a map shows at `index`; undefined before the step that computes it. */
function shownValue(name, index) {
  const channels = { x: [maps.x], dx: [maps.x], y: [maps.y], delta: [maps.y], kernel: [maps.x, maps.y], dk: [maps.x, maps.y] };
  if (name === "cells") return found.counts[index[0] * found.window[1].output + index[1]];
  if (name === "flipped") return read(found.kernel, ...index, maps.x, maps.y);
  if (progress !== null && ["y", "dk", "dx"].includes(name)) {
    if (isPool(kind) && name === "dx") return partialDx ? read(partialDx, ...index, maps.x) : undefined;
    const at = steps.findIndex((step) => step.name === name && step.index[0] === index[0] && step.index[1] === index[1]);
    if (at > progress) return undefined;
  }
  return read(found[name], ...index, ...channels[name]);
}

// A pool hands delta down output by output: dx after some steps is that of a delta cut off after them.
let partialDx = null;
function updatePartialDx() {
  partialDx = null;
  if (progress === null || !isPool(kind)) return;
  const outputs = found.y.shape[0] * found.y.shape[1];
  const sent = progress + 1 - outputs;
  if (sent <= 0) return;
  const delta = copy(found.delta);
  delta.data.fill(0, sent * delta.shape[2]);
  partialDx = recompute(settings, numbers.x, numbers.kernel, delta).dx;
}

// ---- what is drawn

function drawMaps() {
  const active = document.activeElement?.dataset?.map ? { ...document.activeElement.dataset } : null;
  updatePartialDx();
  get("forward").replaceChildren(...["x", "kernel", "y", "cells"].filter(isShown).map(drawMap));
  get("backward").replaceChildren(...["delta", "flipped", "dx", "dk"].filter(isShown).map(drawMap));
  if (active) document.querySelector(`button[data-map="${active.map}"][data-index="${active.index}"]`)?.focus();
  drawMarks();
}

const isShown = (name) => ({ kernel: !isPool(kind), dk: !isPool(kind), flipped: kind === "conv", cells: kind === "mean-pool" }[name] ?? true);

function drawMap(name) {
  const many = (found.kernel ? found.kernel.shape.slice(2) : [found.x.shape[2]]).some((count) => count > 1);
  const describe = (of, index) => `${SPOKEN[of]}${rank === 1 ? "" : ` row ${index[0]}`} column ${index[1]}`;
  const made = grid(name, captionOf(name, many), rowsOf(name), { labels: name === "x" ? found.window.map(labelOf) : undefined, describe, events });
  return made;
}

function captionOf(name, many) {
  const size = ({ shape }) => (rank === 1 ? `${shape[1]}` : `${shape[0]}×${shape[1]}`);
  const arrays = { flipped: found.kernel, cells: found.y };
  const map = { x: `, map ${maps.x}`, dx: `, map ${maps.x}`, y: `, map ${maps.y}`, delta: `, map ${maps.y}`, kernel: `, from map ${maps.x} to ${maps.y}`, dk: `, from map ${maps.x} to ${maps.y}`, flipped: `, from map ${maps.x} to ${maps.y}` };
  const words = {
    x: "input", kernel: "kernel", y: "output", delta: "the output's gradient", dx: isPool(kind) ? "input's gradient: δ, upsampled" : "input's gradient", dk: "kernel's gradient",
    flipped: settings.flip ? "as it lies over δ: not flipped here" : "as it lies over δ", cells: "cells each window counts",
  };
  return [`${words[name]}, ${size(arrays[name] ?? found[name])}${many ? map[name] ?? "" : ""}`, `${SPOKEN[name]}${many ? map[name] ?? "" : ""}`];
}

/** The label of a row or column of the input: its index, or its position where the frame has no gaps. */
function labelOf(axis) {
  return (at) => {
    const position = at - Math.max(axis.low, 0);
    const cell = cellAt(axis, position);
    return cell >= 0 ? String(cell) : axis.gap > 1 ? "" : String(position);
  };
}

function rowsOf(name) {
  if (name === "x") return inputRows();
  const shape = name === "flipped" ? found.kernel.shape : name === "cells" ? found.y.shape : found[name].shape;
  const turned = name === "flipped" && !settings.flip;
  return Array.from({ length: shape[0] }, (_, r) => Array.from({ length: shape[1] }, (_, c) => {
    const index = turned ? [shape[0] - 1 - r, shape[1] - 1 - c] : [r, c];
    return { index, value: shownValue(name, index), partial: ["y", "delta", "cells"].includes(name) && isPartial(index) };
  }));
}

/** The input in its frame of padding, with the gaps that a transposed convolution reads. */
function inputRows() {
  const spans = found.window.map((axis) => {
    const read = axis.output > 0 ? (axis.output - 1) * axis.stride + axis.extent - axis.low : 0;
    return [-Math.max(axis.low, 0), Math.max(axis.dilated + Math.max(axis.high, 0), read)];
  });
  const fillText = kind === "max-pool" ? "" : "0";
  return Array.from({ length: spans[0][1] - spans[0][0] }, (_, r) => Array.from({ length: spans[1][1] - spans[1][0] }, (_, c) => {
    const position = [spans[0][0] + r, spans[1][0] + c];
    const index = position.map((p, axis) => cellAt(found.window[axis], p));
    return index.every((n) => n >= 0) ? { index, value: read(found.x, ...index, maps.x) } : { position, text: fillText };
  }));
}

const isPartial = (output) => kind !== "conv-transpose" && (contactsBy.output.get(output.join(",")) ?? []).some(({ cell }) => !cell);

// ---- what is marked

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
  const naming = { rank, many, maps: { x: maps.x, dx: maps.x, y: maps.y, delta: maps.y } };
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
    const own = { ...naming, maps: { ...naming.maps, [name]: channels[0] } };
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

// ---- what the reader does

const events = {
  preview(name, index) { preview = { name, index }; drawMarks(); },
  focus(name, index) { preview = null; chosen = { name, index }; drawMarks(); },
  choose(name, index) {
    preview = null;
    chosen = { name, index };
    cellsAt(name, index).forEach((cell) => cell.tagName === "BUTTON" && focusCell(cell));
    drawMarks();
  },
};
for (const stage of ["forward", "backward"]) get(stage).addEventListener("pointerleave", () => { preview = null; drawMarks(); });

function update() {
  if (compute()) {
    progress = progress === null ? null : Math.min(progress, steps.length - 1);
    drawMaps();
    drawProgress();
  }
  drawTexts();
}

function go(to) {
  progress = to === null ? null : Math.max(-1, Math.min(to, steps.length - 1));
  if (progress !== null && progress >= 0) chosen = steps[progress];
  preview = null;
  drawMaps();
  drawProgress();
}

function drawProgress() {
  const at = progress === null ? steps.length - 1 : progress;
  Object.assign(get("position"), { min: "-1", max: String(steps.length - 1), value: String(at) });
  get("position").setAttribute("aria-valuetext", progressWords());
  get("progress").textContent = progressWords();
  get("back").disabled = progress === null || progress < 0;
  get("step").disabled = progress !== null && progress >= steps.length - 1;
  get("all").disabled = progress === null;
}

function progressWords() {
  if (progress === null) return `All ${steps.length} steps are done. Step or Play begins again.`;
  if (progress < 0) return "Nothing is computed yet.";
  const { name, index } = steps[progress];
  const where = rank === 1 ? `${index[1]}` : `${index.join(",")}`;
  const words = { y: `forward, output y[${where}]`, dk: `backward, kernel gradient dk[${where}]`, dx: `backward, input gradient dx[${where}]`, delta: `backward, δ[${where}] goes to ${kind === "max-pool" ? "its winner" : "the cells of its window"}` };
  return `Step ${progress + 1} of ${steps.length}: ${words[name]}.`;
}

function play(on) {
  clearInterval(timer);
  timer = undefined;
  get("play").setAttribute("aria-pressed", String(on));
  get("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (progress === null || progress >= steps.length - 1) go(-1);
  timer = setInterval(() => (progress < steps.length - 1 ? go(progress + 1) : play(false)), 600);
}

get("first").addEventListener("click", () => { play(false); go(-1); });
get("back").addEventListener("click", () => { play(false); go(progress - 1); });
get("step").addEventListener("click", () => { play(false); go(progress === null ? 0 : progress + 1); });
get("play").addEventListener("click", () => play(timer === undefined));
get("all").addEventListener("click", () => { play(false); go(null); });
get("position").addEventListener("input", (event) => { play(false); go(Number(event.target.value)); });

// ---- settings

const axes = rank === 1 ? [1] : [0, 1];
const sides = ["top", "bottom", "left", "right"];

function numberField(label, value, { min, max, name, set }) {
  const field = element("input", { type: "number", min: String(min), max: String(max), value: String(value), name, step: "1" });
  field.addEventListener("change", () => {
    const wanted = Math.round(field.valueAsNumber);
    if (!Number.isFinite(wanted)) { field.value = String(value); return; }
    field.value = String(Math.max(min, Math.min(max, wanted)));
    set(Number(field.value));
    update();
  });
  return element("label", {}, label, field);
}

function perAxis(title, name, max) {
  const fields = axes.map((axis) => numberField(rank === 1 ? "positions" : axis ? "columns" : "rows", settings[name][axis], {
    min: 1, max, name: `${name}${axis}`, set: (value) => { settings[name][axis] = value; },
  }));
  return element("fieldset", {}, element("legend", {}, title), element("div", { class: "fields" }, ...fields));
}

function paddingFields() {
  const least = kind === "conv" ? -3 : 0;
  const fields = axes.flatMap((axis) => [0, 1].map((end) => numberField(sides[2 * axis + end], settings.padding[axis][end], {
    min: Math.min(least, settings.padding[axis][end]), max: 9, name: `padding${axis}${end}`, set: (value) => { settings.padding[axis][end] = value; },
  })));
  return element("fieldset", {}, element("legend", {}, "Padding"), element("div", { class: "fields" }, ...fields));
}

function choiceField(title, name, options, current, set) {
  const field = element("select", { name, "aria-label": title });
  for (const [value, words] of options) field.append(element("option", { value, selected: String(value) === String(current) }, words));
  field.addEventListener("change", () => { set(field.value); update(); });
  return element("fieldset", {}, element("legend", {}, title), element("div", { class: "fields" }, field));
}

function checkField(title, name, words) {
  const field = element("input", { type: "checkbox", name, checked: settings[name] });
  field.addEventListener("change", () => { settings[name] = field.checked; update(); });
  return element("fieldset", {}, element("legend", {}, title), element("div", { class: "fields" }, element("label", { class: "check" }, field, words)));
}

const FLIPS = {
  conv: [["false", "as it stands: correlation"], ["true", "flipped: true convolution"]],
  "conv-transpose": [["true", "stamped as it stands (PyTorch, Keras)"], ["false", "stamped flipped (lax by default)"]],
};
const TIES = [["first", "the first of them (XLA, PyTorch)"], ["all", "all of them, each the whole δ"], ["split", "all of them, δ is split"]];

function drawControls() {
  const mapFields = [["x", "Input map", found.x.shape[2]], ["y", "Output map", found.y.shape[2]]]
    .filter(([name, , count]) => count > 1 && !(isPool(kind) && name === "y"))
    .map(([name, title, count]) => choiceField(isPool(kind) ? "Map" : title, `map-${name}`, [...Array(count).keys()].map((at) => [at, String(at)]), maps[name], (value) => {
      maps[name] = Number(value);
      if (isPool(kind)) maps.y = maps.x;
    }));
  const fields = [
    isPool(kind) && perAxis("Window", "size", 9),
    perAxis("Stride", "stride", 9),
    paddingFields(),
    perAxis("Dilation", "dilation", 6),
    kind in FLIPS && choiceField("Kernel", "flip", FLIPS[kind], settings.flip, (value) => { settings.flip = value === "true"; }),
    kind === "max-pool" && choiceField("Ties: δ goes to", "ties", TIES, settings.ties, (value) => { settings.ties = value; }),
    kind === "mean-pool" && checkField("Cells of the padding", "countPadding", "count"),
    isPool(kind) && checkField("Last partial window", "ceilMode", "counts (ceil mode)"),
    ...mapFields,
  ].filter(Boolean);
  const back = element("button", { type: "button", id: "reset" }, "Reset");
  back.addEventListener("click", () => { play(false); reset(); update(); drawControls(); });
  get("controls").replaceChildren(...fields, back);
}
get("settings").addEventListener("submit", (event) => event.preventDefault());

// ---- texts

function drawTexts() {
  const status = get("status");
  status.classList.toggle("recomputed", !untouched());
  status.textContent = untouched() ? `Numbers computed by jaxcnnbp ${start.made.jaxcnnbp}` : "Numbers recomputed in this page";
  if (!found) return;
  const size = (shape) => (rank === 1 ? `${shape[1]}` : `${shape[0]}×${shape[1]}`);
  const window = found.kernel ? `kernel ${size(found.kernel.shape)}` : `window ${size(settings.size)}`;
  get("subtitle").textContent = `Input ${size(found.x.shape)}, ${window}, output ${size(found.y.shape)}.`;
  const formulas = formulasOf(settings);
  const lines = (names) => names.filter((name) => name in formulas).map((name) => element("li", { "data-of": name }, formulas[name]));
  get("forward-formulas").replaceChildren(...lines(["y"]));
  get("backward-formulas").replaceChildren(...lines(["dx", "dk"]));
  markFormula(targetOf(preview ?? chosen).name);
}

function titleWords() {
  if (kind !== "conv") return start.name;
  return settings.flip ? "Convolution, kernel flipped" : "Convolution, kernel not flipped (correlation)";
}

function drawAbout() {
  const own = recompute(start.settings, fromPackage.x, fromPackage.kernel, fromPackage.delta);
  const distance = (a, b) => a.data.reduce((most, v, i) => Math.max(most, Object.is(v, b.data[i]) || v === b.data[i] ? 0 : Math.abs(v - b.data[i])), 0);
  const ownGap = Math.max(...["y", "dx", "dk"].filter((name) => own[name]).map((name) => distance(own[name], fromPackage[name])));
  const { made, gaps, note } = start;
  const listed = Object.entries(gaps).map(([name, gap]) => `${short(gap, 2)} in ${SYMBOL[name]}`).join(", ");
  const paragraphs = [
    `The numbers first shown were computed by the rules of jaxcnnbp ${made.jaxcnnbp} in ${made.dtype} on ${made.platform}, JAX ${made.jax}.`,
    listed && `JAX's autodiff of the same layer differs from them by at most ${listed}.`,
    note,
    `What the controls change is recomputed in this page, in double precision; for the numbers first shown that differs from the package by at most ${short(ownGap, 2)}.`,
    kind === "conv-transpose" && "Padding is that of the convolution which this one transposes: it makes the output smaller. The zeros between input cells are the gaps of the stride.",
    "p[u,t] is the input cell that output u reads with tap t, 0 on the padding. δ is the gradient of the loss by the output; where an option makes more outputs, δ repeats.",
  ].filter(Boolean).map((text) => element("p", {}, text));
  get("about").replaceChildren(element("h2", {}, "Where the numbers come from"), ...paragraphs);
  get("about").dataset.ownGap = String(ownGap);
}

reset();
compute();
drawControls();
drawAbout();
update();
const drawTitle = () => { get("title").textContent = `${titleWords()}, forward and backward`; document.title = get("title").textContent; };
get("settings").addEventListener("change", drawTitle);
get("settings").addEventListener("click", drawTitle);
drawTitle();
