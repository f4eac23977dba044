// The fields above the maps: each changes `settings` and asks for an update.

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

