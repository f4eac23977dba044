// What the page starts from, and what changes while it is read.

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
