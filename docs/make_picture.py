"""Draws docs/backward.png: one image through one map of a trained network, forward and backward.

Run `python docs/make_picture.py` with `pip install "jaxcnnbp[train,plot]"`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

import jaxcnnbp
from jaxcnnbp import nn, train

PICTURE = Path(__file__).with_name("backward.png")
INK, QUIET, FRAME = "#1f2933", "#616e7c", "#cbd2d9"
ROWS = ("forward", "backward,\nby hand", "by hand\nminus\nautodiff", "the same\nwith a\nplanted\nmistake")
FORWARD = ("x", "k", "a = relu(x * k + b)", "max pool 2x2")
BACKWARD = ("dx: full convolution", "dk: patches times delta", "delta, at the winners", "delta from above")
MISTAKES = ("kernel not flipped", "padding off by one", "delta to every cell")


def trained():
    """The shipped network for digits after a few epochs, and the test image that it finds hardest."""
    result = train.train(train.Options(epochs=4))
    model, params = result.program.model, result.params
    images = jnp.asarray(result.data.test.images, jnp.float32) / result.data.white
    labels = jnp.asarray(result.data.test.labels)
    chances = jax.nn.log_softmax(model.apply(params, images))
    worst = int(jnp.argmin(jnp.take_along_axis(chances, labels[:, None], 1)))
    return model, params, images[worst : worst + 1], labels[worst : worst + 1]


def outputs_of(model, params, x, added):
    """The output of every layer by name, each with what `added` has for it."""
    outputs = {"input": x + added.get("input", 0)}
    x = outputs["input"]
    for name, layer in model.named_layers():
        x = outputs[name] = layer.apply(params.get(name, {}), x) + added.get(name, 0)
    return outputs


def by_autodiff(model, params, image, label):
    """The kernel's gradient and the deltas: dE/d(output) is the slope by something added to that output."""

    def loss(params, added):
        return nn.softmax_cross_entropy(outputs_of(model, params, image, added)[model.names[-1]], label)

    outputs = outputs_of(model, params, image, {})
    nothing = {name: jnp.zeros_like(outputs[name]) for name in ("input", "conv1", "pool1")}
    with jaxcnnbp.mode("autodiff"):
        gradients, deltas = jax.grad(loss, (0, 1))(params, nothing)
    return columns(deltas, gradients["conv1"]["kernel"])


def with_mistakes(found, params, image, outputs):
    """dx without the flip, dk with the padding shifted by one, delta copied over the whole block."""
    kernel, delta = params["conv1"]["kernel"], found.deltas["conv1"]
    dx = jaxcnnbp.correlate(delta, kernel.swapaxes(2, 3), padding="SAME")
    shifted = [(2, 0), (2, 0)]
    _, pull_back = jax.vjp(lambda k: jaxcnnbp.correlate(image, k, padding=shifted), kernel)
    copied = jaxcnnbp.upsample(found.deltas["pool1"], (2, 2)) * (outputs["relu1"] > 0)
    return columns({"input": dx, "conv1": copied, "pool1": found.deltas["pool1"]}, pull_back(delta)[0])


def columns(arrays, kernel):
    """What is drawn from left to right: image, kernel, convolution, pool; whole maps."""
    return [arrays["input"][0], kernel[:, :, 0], arrays["conv1"][0], arrays["pool1"][0]]


def one_map(arrays, chosen):
    return [np.asarray(a[..., chosen if a.shape[-1] > 1 else 0]) for a in arrays]


def draw(forward, by_hand, autodiff, mistaken):
    figure = Figure(figsize=(8.6, 8.8), facecolor="white")
    room = dict(left=0.135, right=0.985, top=0.895, bottom=0.045, hspace=0.42, wspace=0.32)
    grid = figure.subplots(4, 4, gridspec_kw=room)
    for column, values in enumerate(forward):
        panel(grid[0, column], values, FORWARD[column], symmetric=column == 1)
        panel(grid[1, column], by_hand[column], BACKWARD[column])
        # One scale a column, so that a difference is seen at the size it has.
        limit = np.abs(by_hand[column]).max()
        gap, error = by_hand[column] - autodiff[column], mistaken[column] - autodiff[column]
        panel(grid[2, column], gap, "", limit)
        share = f"at most {np.abs(gap).max() / limit:.0e} of the largest"
        note(grid[2, column], share if gap.any() else "equal bit by bit")
        panel(grid[3, column], error, "", limit)
        note(grid[3, column], MISTAKES[column] if error.any() else "")
    grid[3, 3].set_visible(False)
    write_rows(figure, grid)
    write_arrows(figure, grid)
    return figure


def panel(axes, values, title, limit=None, symmetric=True):
    limit = np.abs(values).max() if limit is None else limit
    low, cmap = (-limit, "RdBu_r") if symmetric else (0, "gray_r")
    axes.imshow(values, cmap=cmap, vmin=low, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9.5, color=INK, pad=5)
    for spine in axes.spines.values():
        spine.set_color(FRAME)


def note(axes, text):
    axes.text(0.5, -0.05, text, transform=axes.transAxes, ha="center", va="top", fontsize=8.5, color=QUIET)


def write_rows(figure, grid):
    for axes, text in zip(grid[:, 0], ROWS, strict=True):
        box = axes.get_position()
        figure.text(0.012, (box.y0 + box.y1) / 2, text, va="center", fontsize=10.5, weight="bold", color=INK)
    title = "One handwritten digit, one map of a trained network, one rule a step"
    figure.text(0.5, 0.957, title, ha="center", fontsize=12.5, color=INK)


def write_arrows(figure, grid):
    """Left to right on the way forward, right to left on the way back; delta makes both dk and dx."""
    x, kernel = (axes.get_position() for axes in grid[0, :2])
    middle = (x.x1 + kernel.x0) / 2, (x.y0 + x.y1) / 2
    figure.text(*middle, "*", ha="center", va="center", fontsize=16, color=QUIET)
    for left, right in zip(grid[0, 1:-1], grid[0, 2:], strict=True):
        arrow(figure, side(left, 1), side(right, 0))
    for left, right in zip(grid[1, 1:-1], grid[1, 2:], strict=True):
        arrow(figure, side(right, 0), side(left, 1))
    arrow(figure, below(grid[1, 2]), below(grid[1, 0]), connectionstyle="arc3,rad=-0.09")


def side(axes, right):
    box = axes.get_position()
    return box.x1 + 0.008 if right else box.x0 - 0.008, (box.y0 + box.y1) / 2


def below(axes):
    box = axes.get_position()
    return (box.x0 + box.x1) / 2, box.y0 - 0.004


def arrow(figure, start, end, **style):
    look = dict(arrowstyle="-|>", mutation_scale=12, color=QUIET, linewidth=1.2)
    figure.add_artist(FancyArrowPatch(start, end, **look, **style))


def main():
    model, params, image, label = trained()
    found = nn.backprop(model, params, image, label, nn.softmax_cross_entropy)
    outputs = outputs_of(model, params, image, {})
    chosen = int(jnp.argmax(jnp.abs(found.deltas["conv1"][0]).sum((0, 1))))
    rows = (
        columns(outputs | {"conv1": outputs["relu1"]}, params["conv1"]["kernel"]),
        columns(found.deltas, found.gradients["conv1"]["kernel"]),
        by_autodiff(model, params, image, label),
        with_mistakes(found, params, image, outputs),
    )
    draw(*(one_map(row, chosen) for row in rows)).savefig(PICTURE, dpi=110)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
