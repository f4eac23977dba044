// What every page has: its data, the choice of theme, numbers in few digits, pictures of arrays.

const readData = () => JSON.parse(document.getElementById("data").textContent);

/** A number in at most `digits` significant digits, with a real minus sign. */
function short(value, digits = 3) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const rounded = Number.isInteger(value) && Math.abs(value) < 1e5 ? value : Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? rounded.toExponential(Math.max(0, digits - 2)) : String(rounded);
  return text.replace("-", "−").replace("e−", "e-").replace("e+", "e");
}

/** An element with properties, attributes (aria-*, data-*, role) and children. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [property, text] of Object.entries(value)) made.style.setProperty(property, text);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// ---- theme: the system's until the reader chooses

const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const themeListeners = [];

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  themeButton.setAttribute("aria-pressed", String(dark));
  themeListeners.forEach((listener) => listener());
}
let themeChosen = false;
systemDark.addEventListener("change", () => themeChosen || setTheme(systemDark.matches));
themeButton.addEventListener("click", () => {
  themeChosen = true;
  setTheme(document.documentElement.dataset.theme !== "dark");
});
setTheme(systemDark.matches);

// ---- arrays as pictures

/** What `jaxcnnbp.pages.packed` wrote, as {shape, values}. */
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.float32), (character) => character.charCodeAt(0));
  return { shape: packed.shape, values: new Float32Array(bytes.buffer) };
}

const largestSize = (values) => values.reduce((most, v) => (Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most), 0);

const ENDS = {
  // [negative end, zero, positive end]; magnitudes run from zero to the positive end.
  light: { signed: [[33, 84, 176], [250, 250, 248], [176, 42, 36]], magnitude: [[250, 250, 248], [250, 250, 248], [29, 36, 48]] },
  dark: { signed: [[110, 170, 255], [22, 26, 32], [255, 128, 118]], magnitude: [[22, 26, 32], [22, 26, 32], [240, 243, 248]] },
};

/** Paint `array` on `canvas`, one pixel an element; `limit` is the value of full colour. */
function paint(canvas, array, limit, scale) {
  const [rows, columns] = array.shape;
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  const [low, zero, high] = ENDS[document.documentElement.dataset.theme][scale];
  for (let i = 0; i < array.values.length; i += 1) {
    const value = array.values[i];
    const share = limit > 0 ? Math.min(1, Math.abs(value) / limit) : 0;
    const end = value < 0 ? low : high;
    // A NaN or an infinity must not look like a number.
    const colour = Number.isNaN(share) ? [230, 0, 200] : zero.map((from, c) => from + (end[c] - from) * share);
    picture.data.set([...colour, 255], 4 * i);
  }
  context.putImageData(picture, 0, 0);
}

/** A canvas that is painted again whenever the theme changes. */
function pictureOf(array, { limit, scale = "signed", label, pixel }) {
  const canvas = element("canvas", { role: "img", "aria-label": label });
  canvas.style.width = `${array.shape[1] * pixel}px`;
  canvas.style.aspectRatio = `${array.shape[1]} / ${array.shape[0]}`;
  const draw = () => paint(canvas, array, limit, scale);
  themeListeners.push(draw);
  draw();
  return canvas;
}
