// The rules of jaxcnnbp again, in double precision, so that a page can recompute what its controls change.
//
// Along one axis, output u reads with tap t the position
//
//     n * gap = u * stride + t * dilation - low        (gap: of a transposed convolution, 1 otherwise)
//
// A contact is one such meeting of an output, a tap and an input cell; everything below is a sum over contacts.
// Maps are {shape: [height, width, channels], data}, kernels {shape: [height, width, in, out], data}, row-major.

/** The window along one axis: how many outputs, and which positions they span. */
function windowAlong({ spatial, size, stride, low, high, dilation, gap, ceilMode }) {
  const extent = (size - 1) * dilation + 1;
  const dilated = spatial > 0 ? (spatial - 1) * gap + 1 : 0;
  const room = dilated + low + high - extent;
  const whole = Math.floor(room / stride) + 1;
  const partial = ceilMode && room % stride !== 0 && whole * stride < dilated + low;
  const output = Math.max(partial ? whole + 1 : whole, 0);
  return { spatial, size, stride, low, high, dilation, gap, extent, dilated, output };
}

/** The cell at a position: an index, or -1 on padding, in a gap or beyond. */
function cellAt(axis, position) {
  const inside = position >= 0 && position < axis.dilated && position % axis.gap === 0;
  return inside ? position / axis.gap : -1;
}

/** The windows along both axes for what the controls say. A transposed convolution reads a spread-out input. */
function windowOf(settings, spatial, size) {
  return [0, 1].map((axis) => {
    const [before, after] = settings.padding[axis];
    const dilation = settings.dilation[axis];
    const common = { spatial: spatial[axis], size: size[axis], dilation, ceilMode: settings.ceilMode };
    if (settings.kind !== "conv-transpose") {
      return windowAlong({ ...common, stride: settings.stride[axis], low: before, high: after, gap: 1 });
    }
    const extent = (size[axis] - 1) * dilation + 1;
    const [low, high] = [extent - 1 - before, extent - 1 - after];
    return windowAlong({ ...common, stride: 1, low, high, gap: settings.stride[axis] });
  });
}

/** Every meeting {output, tap, position, cell}, each a pair of ints; cell is null where no input cell lies. */
function contactsOf(window, { flip = false } = {}) {
  const [rows, columns] = window;
  const contacts = [];
  for (let u0 = 0; u0 < rows.output; u0 += 1) {
    for (let u1 = 0; u1 < columns.output; u1 += 1) {
      for (let t0 = 0; t0 < rows.size; t0 += 1) {
        for (let t1 = 0; t1 < columns.size; t1 += 1) {
          const position = [
            u0 * rows.stride + t0 * rows.dilation - rows.low,
            u1 * columns.stride + t1 * columns.dilation - columns.low,
          ];
          const [n0, n1] = [cellAt(rows, position[0]), cellAt(columns, position[1])];
          const tap = flip ? [rows.size - 1 - t0, columns.size - 1 - t1] : [t0, t1];
          contacts.push({ output: [u0, u1], tap, position, cell: n0 < 0 || n1 < 0 ? null : [n0, n1] });
        }
      }
    }
  }
  return contacts;
}

const zeros = (shape) => ({ shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) });
const offset = (array, index) => index.reduce((at, i, axis) => at * array.shape[axis] + i, 0);
const read = (array, ...index) => array.data[offset(array, index)];
const add = (array, value, ...index) => { array.data[offset(array, index)] += value; };

/** y[u] = sum_t p[u, t] k[t], dx[n] = sum of delta[u] k[t] over n(u, t) = n, dk[t] = sum_u p[u, t] delta[u]. */
function convolution(x, kernel, delta, window, contacts) {
  const [channelsIn, channelsOut] = kernel.shape.slice(2);
  const y = zeros([window[0].output, window[1].output, channelsOut]);
  const dx = zeros(x.shape);
  const dk = zeros(kernel.shape);
  for (const { output, tap, cell } of contacts.filter((contact) => contact.cell)) {
    for (let i = 0; i < channelsIn; i += 1) {
      const p = read(x, ...cell, i);
      for (let j = 0; j < channelsOut; j += 1) {
        const [k, d] = [read(kernel, ...tap, i, j), read(delta, ...output, j)];
        add(y, p * k, ...output, j);
        add(dx, d * k, ...cell, i);
        add(dk, p * d, ...tap, i, j);
      }
    }
  }
  return { y, dx, dk };
}

/** The contacts of each output, in the order of the taps. */
function byOutput(window, contacts) {
  const groups = Array.from({ length: window[0].output * window[1].output }, () => []);
  for (const contact of contacts) groups[contact.output[0] * window[1].output + contact.output[1]].push(contact);
  return groups;
}

/** The contacts that hold the maximum of one window: the first, or with NaN the last NaN; all of them for other ties. */
function winnersOf(group, x, channel, ties) {
  const inside = group.filter((contact) => contact.cell);
  if (inside.length === 0) return [];
  const value = (contact) => read(x, ...contact.cell, channel);
  const nan = inside.filter((contact) => Number.isNaN(value(contact)));
  const best = Math.max(...inside.map(value));
  const holders = nan.length > 0 ? nan : inside.filter((contact) => value(contact) === best);
  if (ties !== "first") return holders;
  return nan.length > 0 ? [holders[holders.length - 1]] : [holders[0]];
}

/** y[u] = max_t p[u, t]; delta goes to the first winner, to all of them, or is split among them. */
function maxPool(x, delta, window, contacts, ties) {
  const channels = x.shape[2];
  const y = zeros([window[0].output, window[1].output, channels]);
  const dx = zeros(x.shape);
  const winners = byOutput(window, contacts).map((group) => {
    const { output } = group[0];
    return Array.from({ length: channels }, (_, channel) => {
      const won = winnersOf(group, x, channel, ties);
      y.data[offset(y, [...output, channel])] = won.length ? read(x, ...won[0].cell, channel) : -Infinity;
      const share = read(delta, ...output, channel) / (ties === "split" ? won.length : 1);
      won.forEach((contact) => add(dx, share, ...contact.cell, channel));
      return won;
    });
  });
  return { y, dx, winners };
}

/** How many cells a window counts: those of the input, or also those of the padding asked for. */
function cellsOf(group, window, countPadding) {
  const counted = ({ position, cell }) =>
    countPadding ? position.every((p, axis) => p < window[axis].dilated + window[axis].high) : cell;
  return group.filter(counted).length;
}

/** y[u] = sum_t p[u, t] / m[u], and delta[u] / m[u] goes to every cell; a window that counts no cell is 0. */
function meanPool(x, delta, window, contacts, countPadding) {
  const channels = x.shape[2];
  const y = zeros([window[0].output, window[1].output, channels]);
  const dx = zeros(x.shape);
  const counts = byOutput(window, contacts).map((group) => {
    const m = cellsOf(group, window, countPadding);
    for (const { output, cell } of m > 0 ? group.filter((contact) => contact.cell) : []) {
      for (let channel = 0; channel < channels; channel += 1) {
        add(y, read(x, ...cell, channel) / m, ...output, channel);
        add(dx, read(delta, ...output, channel) / m, ...cell, channel);
      }
    }
    return m;
  });
  return { y, dx, counts };
}

/** `delta` for another number of outputs: what there is, repeated. */
function repeated(delta, height, width) {
  const made = zeros([height, width, delta.shape[2]]);
  made.data.forEach((_, at) => {
    const [row, rest] = [Math.floor(at / (width * delta.shape[2])), at % (width * delta.shape[2])];
    const [column, channel] = [Math.floor(rest / delta.shape[2]), rest % delta.shape[2]];
    made.data[at] = read(delta, row % delta.shape[0], column % delta.shape[1], channel);
  });
  return made;
}

/** Everything that a page shows, for settings {kind, stride, padding, dilation, size, flip, ties, countPadding, ceilMode}. */
function recompute(settings, x, kernel, delta) {
  const size = kernel ? kernel.shape.slice(0, 2) : settings.size;
  const window = windowOf(settings, x.shape.slice(0, 2), size);
  const contacts = contactsOf(window, settings);
  const fitting = repeated(delta, window[0].output, window[1].output);
  const found =
    settings.kind === "max-pool" ? maxPool(x, fitting, window, contacts, settings.ties)
    : settings.kind === "mean-pool" ? meanPool(x, fitting, window, contacts, settings.countPadding)
    : convolution(x, kernel, fitting, window, contacts);
  return { window, contacts, x, kernel, delta: fitting, ...found };
}
