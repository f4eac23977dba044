// Pictures of arrays whose numbers can be read, by pointing or by the arrow keys, in the element #readout.

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

/** A picture whose numbers can be read: {name, size, largest, limit, scale, gap, ...packed tiles}; `words` says where one lies. */
function readablePicture(owner, picture, words) {
  const tiles = unpack(picture);
  const laid = laidOut(tiles);
  const label = `${owner}, ${picture.name}, ${picture.size}; largest ${short(picture.largest)}. Arrow keys read its numbers.`;
  const fitting = Math.floor(440 / Math.max(laid.shape[1], laid.shape[0] / 1.5));
  const pixel = Math.max(1, Math.min(16, fitting));
  const canvas = pictureOf(laid, { limit: picture.limit, scale: picture.scale, label: "", pixel });
  canvas.removeAttribute("role");
  canvas.removeAttribute("aria-label");
  const clear = () => clearGutters(canvas, laid);
  clear();
  themeListeners.push(clear);
  const holder = element("button", { type: "button", class: "picture", "aria-label": label, "data-picture": `${owner}/${picture.name}` }, canvas);
  reading(holder, canvas, laid, tiles, `${owner}, ${picture.name}`, (found) => words(picture, tiles, found));
  const gap = picture.gap === null || picture.gap === undefined ? "" : `, autodiff differs by at most ${short(picture.gap, 1)}`;
  return element("figure", {}, element("figcaption", {}, `${picture.name} `, element("span", {}, `${picture.size}, largest ${short(picture.largest)}${gap}`)), holder);
}

function clearGutters(canvas, laid) {
  const context = canvas.getContext("2d");
  laid.inside.forEach((inside, at) => inside || context.clearRect(at % laid.shape[1], Math.floor(at / laid.shape[1]), 1, 1));
}

function reading(holder, canvas, laid, tiles, name, words) {
  let at = [0, 0];
  const show = () => {
    const found = elementAt(tiles, ...at);
    if (found) document.getElementById("readout").textContent = `${name}: ${words(found)} is ${short(found.value, 5)}`;
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
