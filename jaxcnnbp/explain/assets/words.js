// What the page says: names of maps, formulas, and the terms of each sum.

const ROLE = { x: "input", kernel: "kernel", y: "output", delta: "output", dx: "grad", dk: "grad", flipped: "kernel", cells: "output" };
const SYMBOL = { x: "x", kernel: "k", y: "y", delta: "δ", dx: "dx", dk: "dk", flipped: "flip(k)", cells: "m" };
const SPOKEN = { x: "input", kernel: "kernel", y: "output", delta: "delta", dx: "input gradient", dk: "kernel gradient", flipped: "flipped kernel", cells: "cells counted" };
const isPool = (kind) => kind.endsWith("pool");

/** "x[1,2]"; one axis shows one number, several maps show which: "k₀,₁[1,2]". */
function place(name, index, { rank, maps, many }) {
  const shown = rank === 1 ? index.slice(1) : index;
  const map = many && name in maps ? [maps[name]].flat().join(",") : "";
  return `${SYMBOL[name]}${map.replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}[${shown.join(",")}]`;
}

const FORMULAS = {
  conv: { y: "y[u] = Σₜ p[u,t] · k[t]", dk: "dk[t] = Σᵤ p[u,t] · δ[u]", dx: "dx[n] = Σ δ[u] · k[t] over all u, t that met x[n]" },
  "max-pool": { y: "y[u] = maxₜ p[u,t], and the winner ★ is recorded", dx: "dx[n] = Σ δ[u] over the windows u that x[n] won" },
  "mean-pool": { y: "y[u] = Σₜ p[u,t] / m[u]", dx: "dx[n] = Σ δ[u] / m[u] over the windows u that hold x[n]" },
};

function formulasOf(settings) {
  const found = { ...(FORMULAS[settings.kind] ?? FORMULAS.conv) };
  if (settings.flip && !isPool(settings.kind)) {
    Object.keys(found).forEach((name) => { found[name] = found[name].replace("k[t]", "k[K−1−t]"); });
  }
  if (settings.kind === "max-pool" && settings.ties === "all") found.dx = "dx[n] = Σ δ[u] over the windows u whose maximum x[n] equals";
  if (settings.kind === "max-pool" && settings.ties === "split") found.dx = "dx[n] = Σ δ[u] / (cells that tie) over the windows u whose maximum x[n] equals";
  return found;
}

/** The products of one number: {terms: [{factors: [[name, index, channel]], divisor, lost}], total}. */
function sumOf(state, name, index) {
  const { found, settings, maps } = state;
  const own = { y: "output", dk: "tap", dx: "cell" }[name];
  const met = state.contactsBy[own].get(index.join(",")) ?? [];
  const inside = met.filter((contact) => contact.cell);
  const total = read(found[name], ...index, ...(name === "dk" ? [maps.x, maps.y] : [name === "y" ? maps.y : maps.x]));
  const terms = isPool(settings.kind) ? poolTerms(state, name, inside) : convolutionTerms(state, name, inside);
  return { terms, total, met };
}

function convolutionTerms({ found, maps }, name, inside) {
  const [channelsIn, channelsOut] = found.kernel.shape.slice(2);
  const inputs = name === "y" ? [...Array(channelsIn).keys()] : [maps.x];
  const outputs = name === "dx" ? [...Array(channelsOut).keys()] : [maps.y];
  return inside.flatMap(({ output, tap, cell }) =>
    inputs.flatMap((i) => outputs.map((j) => {
      const factors = { x: ["x", cell, [i]], k: ["kernel", tap, [i, j]], d: ["delta", output, [j]] };
      return { factors: { y: [factors.x, factors.k], dk: [factors.x, factors.d], dx: [factors.d, factors.k] }[name] };
    })));
}

function poolTerms({ found, settings, maps }, name, inside) {
  const width = found.window[1].output;
  return inside.map((contact) => {
    const at = contact.output[0] * width + contact.output[1];
    const factors = name === "y" ? [["x", contact.cell, [maps.x]]] : [["delta", contact.output, [maps.x]]];
    if (settings.kind === "mean-pool") return { factors, divisor: found.counts[at] };
    const winners = found.winners[at][maps.x];
    const lost = !winners.includes(contact);
    return { factors, lost, divisor: name === "dx" && settings.ties === "split" && !lost ? winners.length : 1 };
  });
}

/** The rule of a pool's sum in one word. */
const combinedBy = (settings, name) => (settings.kind === "max-pool" && name === "y" ? "max" : "sum");

/** A sentence for those who hear the page. */
function sentenceOf(state, name, index, { terms, total }) {
  const where = state.rank === 1 ? `at ${index[1]}` : `at row ${index[0]}, column ${index[1]}`;
  const kept = terms.filter((term) => !term.lost);
  const words = kept.slice(0, 12).map(({ factors, divisor = 1 }) =>
    factors.map(([of, at, channels]) => short(read(state.found[of], ...at, ...channels))).join(" times ") + (divisor > 1 ? ` over ${divisor}` : ""));
  const rest = kept.length > 12 ? `, and ${kept.length - 12} more` : "";
  const rule = combinedBy(state.settings, name) === "max" ? "the largest of its window" : `${words.join(" plus ") || "nothing meets it"}${rest}`;
  return `${SPOKEN[name]} ${where} is ${short(total, 4)}: ${rule}.`;
}
