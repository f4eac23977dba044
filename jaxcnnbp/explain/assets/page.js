// The page: settings in, marks, sums and steps out. The rules are in rules.js.

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
  const map = { x: `, map ${maps.x}`, dx: `, map ${maps.x}`, y: `, map ${maps.y}`, delta: `, map ${maps.y}`, kernel: `, maps ${maps.x} → ${maps.y}`, dk: `, maps ${maps.x} → ${maps.y}`, flipped: `, maps ${maps.x} → ${maps.y}` };
  const words = {
    x: "input", kernel: "kernel", y: "output", delta: "the output's gradient", dx: isPool(kind) ? "input's gradient: δ, upsampled" : "input's gradient", dk: "kernel's gradient",
    flipped: settings.flip ? "as it lies over δ, not flipped" : "as it lies over δ", cells: "cells each window counts",
  };
  return [`${words[name]}, ${size(arrays[name] ?? found[name])}${many ? map[name] ?? "" : ""}`, `${SPOKEN[name]}${many ? map[name] ?? "" : ""}`,
    name === "flipped" && settings.flip ? "k" : undefined];
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

get("settings").addEventListener("submit", (event) => event.preventDefault());
reset();
compute();
drawControls();
drawAbout();
update();
const drawTitle = () => { get("title").textContent = `${titleWords()}, forward and backward`; document.title = get("title").textContent; };
get("settings").addEventListener("change", drawTitle);
get("settings").addEventListener("click", drawTitle);
drawTitle();
