// A walk through a network: pictures of every layer, whose numbers can be read.

const walk = readData();
const get = (id) => document.getElementById(id);
const GUTTER = 1;

/** Tiles [rows, columns, height, width] laid out with a gutter: one matrix, NaN in the gutter is left transparent. */
function laidOut({ shape: [rows, columns, height, width], values }) {
  const shape = [rows * (height + GUTTER) - GUTTER, columns * (width + GUTTER) - GUTTER];
  const made = new Float32Array(shape[0] * shape[1]);
  const inside = new Uint8Array(made.length);
  for (let at = 0; at < values.length; at += 1) {
    const x = at % width, y = Math.floor(at / width) % height;
    const c = Math.floor(at / (width * height)) % columns, r = Math.floor(at / (width * height * columns));
    const to = (r * (height + GUTTER) + y) * shape[1] + c * (width + GUTTER) + x;
    made[to] = values[at];
    inside[to] = 1;
  }
  return { shape, values: made, inside };
}

/** Which tile and which element of it lies at a pixel; null in the gutter. */
function elementAt({ shape: [rows, columns, height, width], values }, row, column) {
  const [r, y] = [Math.floor(row / (height + GUTTER)), row % (height + GUTTER)];
  const [c, x] = [Math.floor(column / (width + GUTTER)), column % (width + GUTTER)];
  if (r >= rows || c >= columns || y >= height || x >= width) return null;
  return { tile: [r, c], index: [y, x], value: values[((r * columns + c) * height + y) * width + x] };
}

function pictureFigure(step, picture) {
  const tiles = unpack(picture);
  const laid = laidOut(tiles);
  const label = `${step.name}, ${picture.name}, ${picture.size}; largest ${short(picture.limit)}. Arrow keys read its numbers.`;
  const pixel = Math.max(1, Math.min(12, Math.floor(440 / Math.max(laid.shape[1], laid.shape[0] / 1.5))));
  const canvas = pictureOf(laid, { limit: picture.limit, scale: picture.scale, label: "", pixel });
  canvas.removeAttribute("role");
  canvas.removeAttribute("aria-label");
  const clear = () => clearGutters(canvas, laid);
  clear();
  themeListeners.push(clear);
  const holder = element("button", { type: "button", class: "picture", "aria-label": label, "data-picture": `${step.name}/${picture.name}` }, canvas);
  reading(holder, canvas, laid, tiles, step, picture);
  const gap = picture.gap === null ? "" : `, autodiff differs by at most ${short(picture.gap, 1)}`;
  return element("figure", {}, element("figcaption", {}, `${picture.name} `, element("span", {}, `${picture.size}, largest ${short(picture.limit)}${gap}`)), holder);
}

function clearGutters(canvas, laid) {
  const context = canvas.getContext("2d");
  laid.inside.forEach((inside, at) => inside || context.clearRect(at % laid.shape[1], Math.floor(at / laid.shape[1]), 1, 1));
}

function reading(holder, canvas, laid, tiles, step, picture) {
  let at = [0, 0];
  const show = () => {
    const found = elementAt(tiles, ...at);
    if (found) get("readout").textContent = `${step.name}, ${picture.name}: ${placeWords(picture, tiles, found)} is ${short(found.value, 5)}`;
  };
  const follow = (event) => {
    const box = canvas.getBoundingClientRect();
    at = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]
      .map((share, axis) => Math.max(0, Math.min(laid.shape[axis] - 1, Math.floor(share * laid.shape[axis]))));
    show();
  };
  holder.addEventListener("pointermove", follow);
  holder.addEventListener("click", (event) => (event.detail ? follow(event) : show()));
  holder.addEventListener("focus", show);
  holder.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const step = (from) => from.map((p, axis) => Math.max(0, Math.min(laid.shape[axis] - 1, p + move[axis])));
    const next = step(at);
    at = elementAt(tiles, ...next) ? next : step(next);
    show();
  });
}

/** The element in the words of the array: a position of a vector, an element of a matrix or of a map. */
function placeWords(picture, { shape: [rows, columns, , width] }, { tile, index }) {
  if (picture.valid !== null) return `element ${index[0] * width + index[1]}`;
  const where = `row ${index[0]}, column ${index[1]}`;
  if (rows * columns === 1) return where;
  if (picture.maps > 1) return `map ${tile[0] * columns + tile[1]}, ${where}`;
  return rows > 1 && picture.size.split("×").length === 4 && picture.size.split("×")[2] !== "1"
    ? `from map ${tile[0]} to map ${tile[1]}, ${where}` : `to map ${tile[0] * columns + tile[1]}, ${where}`;
}

function bars() {
  const most = Math.max(...walk.scores.map((v) => Math.abs(Number(v)))) || 1;
  const made = element("div", { class: "bars", role: "list", "aria-label": walk.isChance ? "chance of each class" : "output of each class" });
  walk.scores.forEach((score, digit) => {
    const value = Number(score);
    const text = walk.isChance ? value < 5e-5 ? "< 0.01 %" : `${(100 * value).toFixed(2)} %` : short(value);
    const given = digit === walk.answer;
    const bar = element("span", { class: given ? "bar given" : "bar" }, element("span", { style: { width: `${Math.max(0, (100 * value) / most)}%` } }));
    made.append(element("span", { class: given && "given", role: "listitem" }, String(digit)), bar, element("span", { class: given && "given" }, text));
  });
  return made;
}

function table() {
  const number = (c) => (c === 2 || c === 3 || c === 4 || c >= 6 ? "number" : null);
  const head = element("tr", {}, ...walk.headings.map((text, c) => element("th", { scope: "col", class: number(c) }, text)));
  const rows = walk.rows.map((row) => element("tr", {}, ...row.map((text, c) => element(c ? "td" : "th", { class: number(c), scope: c ? null : "row" }, text))));
  get("figures").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

get("title").textContent = walk.title;
get("verdict").textContent = walk.verdict;
get("gaps").textContent = walk.gaps;
get("digit").append(pictureFigure(walk.steps[0], { ...walk.steps[0].pictures[0], name: "image" }));
get("digit").className = "pictures";
get("chances").append(bars());
table();
get("layers").append(...walk.steps.map((step) =>
  element("section", { class: "card", "aria-label": step.name },
    element("h2", {}, `${step.name} `, element("span", { class: "quiet" }, step.shape)),
    element("div", { class: "pictures" }, ...step.pictures.map((picture) => pictureFigure(step, picture))))));
get("about").replaceChildren(element("h2", {}, "Where the numbers come from"), ...[...walk.words, walk.gaps].map((text) => element("p", {}, text)));
