// A walk through a network: pictures of every layer, whose numbers can be read.

const walk = readData();
const get = (id) => document.getElementById(id);
/** The element in the words of the array: a position of a vector, an element of a matrix or of a map. */
function placeWords(picture, { shape: [rows, columns, , width] }, { tile, index }) {
  if (picture.valid !== null) return `element ${index[0] * width + index[1]}`;
  const where = `row ${index[0]}, column ${index[1]}`;
  if (rows * columns === 1) return where;
  if (picture.maps > 1) return `map ${tile[0] * columns + tile[1]}, ${where}`;
  return rows > 1 && picture.size.split("x").length === 4 && picture.size.split("x")[2] !== "1"
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
get("digit").append(readablePicture("input", { ...walk.steps[0].pictures[0], name: "image" }, placeWords));
get("digit").className = "pictures";
get("chances").append(bars());
table();
get("layers").append(...walk.steps.map((step) =>
  element("section", { class: "card", "aria-label": step.name },
    element("h2", {}, `${step.name} `, element("span", { class: "quiet" }, step.shape)),
    element("div", { class: "pictures" }, ...step.pictures.map((picture) => readablePicture(step.name, picture, placeWords))))));
get("about").replaceChildren(element("h2", {}, "Where the numbers come from"), ...[...walk.words, walk.gaps].map((text) => element("p", {}, text)));
