// The report: tables that sort by their headings, and the pictures of each gradient.

/** Numbers by size, words by the alphabet; what is not a number, such as "-", last. */
function compare(a, b) {
  const [x, y] = [a, b].map((text) => (text.trim() === "inf" ? Infinity : Number(text.trim() || NaN)));
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b, undefined, { numeric: true });
}

document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const wanted = head.getAttribute("aria-sort") === (numeric ? "descending" : "ascending") ? (numeric ? "ascending" : "descending") : (numeric ? "descending" : "ascending");
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? wanted : "none"));
    const sign = wanted === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => sign * compare(a.cells[column].dataset.value, b.cells[column].dataset.value));
    table.tBodies[0].append(...rows);
  }));
});

const { leaves } = readData();
const words = (_, __, { index }) => `row ${index[0]}, column ${index[1]}`;
leaves.forEach(({ name, pictures }, number) => {
  const holder = document.querySelector(`#leaf-${number} .pictures`);
  holder.append(...pictures.filter(({ shape }) => shape.every((n) => n > 0)).map((picture) => readablePicture(name, picture, words)));
});
