"""Every operation lowers for GPUs and TPUs, and of what: the programs are written down here, compiled and run nowhere.

One lowering serves all platforms at once. Of the branches that a rule has for CPUs alone nothing is left in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import ALL, CONVOLUTIONS, MAX_POOLS, MEAN_POOLS, TIE_POOLS, Case, named
from jax import export, lax
from marks import one_in, slow_but

import jaxcnnbp
from jaxcnnbp import nn
from jaxcnnbp.bench.networks import NETWORKS, Network
from jaxcnnbp.nn.models import MODELS
from jaxcnnbp.train import Data, Options, Split, initial_state
from jaxcnnbp.train.data.split import Batch
from jaxcnnbp.train.program import build_program
from jaxcnnbp.train.step import make_step

PLATFORMS = ("cuda", "rocm", "tpu")

# What no operation becomes on an accelerator, nor its gradients. `case` is no part of it: a program for several
# platforms chooses between them by one.
FORBIDDEN = {
    "scatter": "adds where an index says: on GPUs in whatever order threads arrive",
    "select_and_scatter": "the same, and lax's own max-pool gradient",
    "while": "one launch a turn",
    "custom_call": "what a platform may not have, or Python on the host",
}

_BY_INDEX = "where windows lie, or where cells go, is known to the running program alone"
_LONG = "of more than 64 taps along an axis, pairs are joined, then pairs of pairs, in a loop"

# A case by its name, what of the above it becomes nevertheless, and why. Each must be true: what is gone is taken out.
EXCEPTIONS: dict[str, tuple[set[str], str]] = {
    "convolve connections": ({"while"}, "maps one by one, where numbers are not finite"),
    "conv_block connections": ({"while"}, "the same"),
    "max_unpool": ({"scatter"}, f"{_BY_INDEX}; it keeps the largest number, the same in any order"),
    "fractional_max_pool samples": ({"scatter"}, _BY_INDEX),
    "fractional_max_pool key": ({"scatter"}, _BY_INDEX),
    "max_pool 240 taps": ({"scatter", "while"}, f"{_LONG}; a window reaches into more than 128 blocks of one stride"),
    "max_pool 240 taps split": ({"while"}, f"{_LONG}; and a bit for each of more than 128 taps is too much to keep"),
    "avg_pool 240 taps": ({"while"}, _LONG),
    "reduce_window product": ({"while"}, "a reducer that is no pool is folded tap by tap"),
}


# --- the checker ----------------------------------------------------------------------------------------------------


def operations(function: Callable[..., Any], *operands: Any) -> Counter[str]:
    """How often each StableHLO operation stands in the program of `function` for all of `PLATFORMS`.

    `jax.export` refuses effects and custom calls that it does not know to stay what they are.
    """
    jitted: Any = function if hasattr(function, "trace") else jax.jit(function)
    exported = export.export(jitted, platforms=PLATFORMS)(*operands)
    assert set(exported.platforms) == set(PLATFORMS)
    return Counter(re.findall(r"\bstablehlo\.([a-z_0-9]+)", exported.mlir_module()))


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """Outputs and the gradients by all operands, of ones."""

    def both(*operands: Any) -> Any:
        outputs, pull = jax.vjp(function, *operands)
        return outputs, pull(jax.tree.map(jnp.ones_like, outputs))

    return both


def assert_becomes(found: Counter[str], name: str) -> None:
    """Raises AssertionError unless what is forbidden is there exactly as far as `EXCEPTIONS` has it under `name`."""
    allowed, _ = EXCEPTIONS.get(name, (set(), ""))
    assert FORBIDDEN.keys() & found.keys() == allowed


def rows(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# --- the operations -------------------------------------------------------------------------------------------------

IMAGES = ((2, 7, 6, 2),)
SAMPLES, PLACES = np.full((2, 2, 2), 0.5, np.float32), np.arange(24, dtype=np.int32).reshape(2, 3, 2, 2)

# What `cases.ALL` has not, by the name of the function and what is particular about it.
OTHERS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "max_pool_with_argmax": (lambda x: jaxcnnbp.max_pool_with_argmax(x, (3, 2), (2, 1))[0], IMAGES),
    "max_pool 11 by 4": (lambda x: jaxcnnbp.max_pool(x, (11, 11), (4, 4)), ((1, 24, 23, 2),)),
    "max_pool 20 by 4": (lambda x: jaxcnnbp.max_pool(x, (20, 20), (4, 4)), ((1, 24, 24, 2),)),
    "max_pool 240 taps": (lambda x: jaxcnnbp.max_pool(x, (240,)), ((1, 300, 2),)),
    "max_pool 240 taps split": (lambda x: jaxcnnbp.max_pool(x, (240,), ties="split"), ((1, 300, 2),)),
    "avg_pool 240 taps": (lambda x: jaxcnnbp.avg_pool(x, (240,)), ((1, 300, 2),)),
    "max_unpool": (lambda x: jaxcnnbp.max_unpool(x, PLACES, (7, 6)), ((2, 3, 2, 2),)),
    "adaptive_avg_pool": (lambda x: jaxcnnbp.adaptive_avg_pool(x, (3, 4)), IMAGES),
    "adaptive_avg_pool larger": (lambda x: jaxcnnbp.adaptive_avg_pool(x, (9, 12)), IMAGES),
    "adaptive_max_pool": (lambda x: jaxcnnbp.adaptive_max_pool(x, (3, 4)), IMAGES),
    "adaptive_max_pool argmax": (lambda x: jaxcnnbp.adaptive_max_pool(x, (7, 3), True)[0], IMAGES),
    "lp_pool": (lambda x: jaxcnnbp.lp_pool(x, 2, (3, 2), (2, 2)), IMAGES),
    "lp_pool below one": (lambda x: jaxcnnbp.lp_pool(x, 0.5, (2, 2), (1, 1)), IMAGES),
    "fractional_max_pool samples": (lambda x: jaxcnnbp.fractional_max_pool(x, 2, (3, 4), samples=SAMPLES), IMAGES),
    "fractional_max_pool key": (
        lambda x: jaxcnnbp.fractional_max_pool(x, 2, output_ratio=0.6, key=jax.random.key(0)),
        IMAGES,
    ),
    "stochastic_pool": (lambda x: jaxcnnbp.stochastic_pool(x, (2, 3), (2, 3)), IMAGES),
    "stochastic_pool samples": (
        lambda x: jaxcnnbp.stochastic_pool(x, (3, 2), (2, 2), samples=np.full((2, 3, 3, 2), 0.5, np.float32)),
        IMAGES,
    ),
    "stochastic_pool key": (lambda x: jaxcnnbp.stochastic_pool(x, (2, 2), key=jax.random.key(0)), IMAGES),
    "reduce_window max": (lambda x: jaxcnnbp.reduce_window(x, -np.inf, lax.max, (1, 3, 2, 1), (1, 2, 2, 1)), IMAGES),
    "reduce_window sum": (lambda x: jaxcnnbp.reduce_window(x, 0.0, lax.add, (1, 3, 2, 1)), IMAGES),
    "reduce_window product": (lambda x: jaxcnnbp.reduce_window(x, 1.0, lax.mul, (1, 2, 2, 1)), IMAGES),
    "conv_bias_grad": (jaxcnnbp.conv_bias_grad, IMAGES),
    "squared_error": (nn.squared_error, ((3, 4), (3, 4))),
    "softmax_cross_entropy": (nn.softmax_cross_entropy, ((3, 4), (3, 4))),
    "leaky_relu flax": (jaxcnnbp.manual_backward(lambda x: jax.nn.leaky_relu(x) + jax.nn.gelu(x)), ((3, 4),)),
    "correlate reflect": (
        lambda x, k: jaxcnnbp.correlate(x, k, padding=1, padding_mode="reflect"),
        (*IMAGES, (3, 3, 2, 2)),
    ),
    "correlate circular": (
        lambda x, k: jaxcnnbp.correlate(x, k, padding=1, padding_mode="circular"),
        (*IMAGES, (3, 3, 2, 2)),
    ),
    "max_pool channels first": (lambda x: jaxcnnbp.max_pool(x, (2, 2), (2, 2), layout="NCHW"), IMAGES),
}


# One of every function and of every kind of geometry; the others are slow.
QUICK = (
    *{case.op: case for case in reversed(ALL)}.values(),
    *named(
        CONVOLUTIONS,
        "stride 2",
        "stride and",
        "negative",
        "pointwise s",
        "2 groups",
        "depthwise",
        "16 channels s",
        "3d",
    ),
    *named(MAX_POOLS, "ceil mode o", "overlapping", "negative", "dilated padded", "many phases", "3d"),
    *named(MEAN_POOLS, "ceil mode o", "overlapping", "dilated padded", "many phases"),
    *named(TIE_POOLS, "overlapping"),
)


@pytest.mark.parametrize("case", slow_but(QUICK, ALL))
def test_cases(case: Case) -> None:
    assert_becomes(operations(with_gradients(case), *(rows(*shape) for shape in case.shapes)), str(case))


@pytest.mark.parametrize("name", one_in(2, OTHERS))
def test_others(name: str) -> None:
    function, shapes = OTHERS[name]
    assert_becomes(operations(with_gradients(function), *(rows(*shape) for shape in shapes)), name)


def test_all_that_is_public_is_lowered() -> None:
    # Which make no arrays of their own.
    about = {"mode", "implementation", "explain_swaps", "explain_choice", "manual_backward"}
    about |= {"autotune", "Tuning", "compiler_options"}
    of_ours = ((name, getattr(value, "__module__", "")) for name, value in vars(jaxcnnbp).items())
    public = {name for name, module in of_ours if module.startswith("jaxcnnbp.") and not name.startswith("_")}
    products = {"conv_input_grad", "conv_kernel_grad"}
    lowered = {case.op for case in ALL} | {name.split()[0] for name in OTHERS} | products
    assert public - about - lowered == set()


PRODUCTS = {
    "one image": ((1, 8, 8, 3), (3, 3, 3, 4), (1, 1)),
    "strided": ((8, 15, 15, 16), (3, 3, 16, 32), (2, 2)),
    "pointwise": ((4, 7, 7, 64), (1, 1, 64, 32), (1, 1)),
    "tiles": ((2, 32, 32, 3), (8, 8, 3, 48), (8, 8)),
    "signal": ((4, 100, 2), (5, 2, 8), (1,)),
    "volumes": ((1, 6, 6, 6, 4), (3, 3, 3, 4, 4), (1, 1, 1)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_convolutions_are_convolutions(name: str) -> None:
    """All three passes of a dense convolution are what the vendor's library knows, and one of it for each platform."""
    x, kernel, stride = PRODUCTS[name]
    axes = "DHW"[-len(stride) :]
    layouts = (f"N{axes}C", f"{axes}IO", f"N{axes}C")

    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jaxcnnbp.conv_general_dilated(x, kernel, stride, "VALID", dimension_numbers=layouts)

    def input_grad(delta: jax.Array, kernel: jax.Array) -> jax.Array:
        return jaxcnnbp.conv_input_grad(delta, kernel, x, stride, dimension_numbers=layouts)

    def kernel_grad(x: jax.Array, delta: jax.Array) -> jax.Array:
        return jaxcnnbp.conv_kernel_grad(x, delta, kernel, stride, dimension_numbers=layouts)

    delta = jax.eval_shape(forward, rows(*x), rows(*kernel))
    for found in (
        operations(forward, rows(*x), rows(*kernel)),
        operations(input_grad, delta, rows(*kernel)),
        operations(kernel_grad, rows(*x), delta),
    ):
        assert_becomes(found, "")
        assert found["convolution"] + found["dot_general"] in (1, len(PLATFORMS))


# --- whole networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", slow_but(NETWORKS[:1], NETWORKS, lambda network: network.name))
def test_flax_models(network: Network) -> None:
    flax_models = pytest.importorskip("jaxcnnbp.bench.flax_models")
    model, images = flax_models.FlaxModel(network.layers), rows(*network.shape)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits = jax.eval_shape(lambda v, x: model.apply(v, x, mutable=["batch_stats"])[0], variables, images)

    def loss(params: Any, statistics: Any, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
        logits, updates = model.apply(dict(params=params, **statistics), images, mutable=["batch_stats"])
        return optax.softmax_cross_entropy(logits, targets).mean(), updates

    params, statistics = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    gradient = jax.value_and_grad(jaxcnnbp.manual_backward(loss), has_aux=True)
    found = operations(gradient, params, statistics, images, rows(*logits.shape))
    assert_becomes(found, "")
    assert found["convolution"] > 0


def _step(model: str, **options: Any) -> Counter[str]:
    spec = MODELS[model]
    blank = Split(np.zeros((4, *spec.input_shape), np.uint8), np.zeros(4, np.int32))
    program = build_program(Options(model=model, batch=4, **options), Data("blank", blank, blank, 255, 10))
    state = jax.eval_shape(lambda: initial_state(program, 0, (4, *spec.input_shape)))
    batch = Batch(jax.ShapeDtypeStruct(blank.images.shape, jnp.uint8), jax.ShapeDtypeStruct((4,), jnp.int32), count=4)
    return operations(make_step(program), state, batch)


@pytest.mark.parametrize("options", [dict(optimizer="adamw", ema=0.9), dict(augment="affine")], ids=["adamw", "drawn"])
def test_training_steps(options: dict[str, Any]) -> None:
    assert_becomes(_step("lenet5", **options), "")


# --- the checker is seen to fail ------------------------------------------------------------------------------------


def _lax_max_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _summed_in_python(x: jax.Array) -> jax.Array:
    return jax.pure_callback(np.sum, jax.ShapeDtypeStruct((), x.dtype), x)


PLANTED = {
    "select_and_scatter": with_gradients(_lax_max_pool),
    "scatter": lambda x: x.at[:, jnp.argmax(x[0, :, 0, 0])].add(1.0),
    "custom_call": lax.linalg.lu,
    "while": lambda x: lax.fori_loop(0, 3, lambda _, x: x + x, x),
}


@pytest.mark.parametrize("operation", PLANTED)
def test_what_is_forbidden_is_found(operation: str) -> None:
    found = operations(PLANTED[operation], rows(*IMAGES[0]))
    assert FORBIDDEN.keys() & found.keys() == {operation}
    with pytest.raises(AssertionError):
        assert_becomes(found, "")


def test_python_on_the_host_is_refused() -> None:
    with pytest.raises((NotImplementedError, ValueError), match="callback|custom call"):
        operations(_summed_in_python, rows(*IMAGES[0]))


def test_exceptions_are_of_cases() -> None:
    assert EXCEPTIONS.keys() - OTHERS.keys() - set(map(str, ALL)) == set()
