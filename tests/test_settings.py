"""What is in force where a function is called is in force in its backward pass, which runs later."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ALL, BLOCKS, CONVOLUTIONS, LAX_CONVOLUTIONS, LAYERS, MAX_POOLS, MEAN_OF_CELLS, TIE_POOLS, Case, named
from jax import lax
from marks import one_in, slow_but

import jaxcnnbp
from jaxcnnbp import manual_backward, mode

pytestmark = pytest.mark.usefixtures("quick")

POOLS = (
    *named(MAX_POOLS, "SAME")[:1],
    *named(TIE_POOLS, "overlapping")[-1:],
    *named(MEAN_OF_CELLS, "FULL"),
    Case("", "lp_pool", ((1, 4, 1),), dict(norm_type=2, window_shape=(2,))),
    Case("", "adaptive_max_pool", ((1, 5, 1),), dict(output_shape=(2,))),
    Case(
        "of products",
        "reduce_window",
        ((3, 2),),
        dict(init_value=1.0, computation=lax.mul, window_dimensions=(2, 1), window_strides=(1, 1)),
    ),
)
SOME = (
    *named(CONVOLUTIONS, "stride 2 of 3x3", "depthwise strided", "2 groups strided", "pointwise strided"),
    *named(LAX_CONVOLUTIONS, "input dilation")[:1],
    *POOLS,
    Case("", "gelu", ((3,),)),
    *[case for case in LAYERS if case.op in ("dense", "combine_maps", "subsample") and not case.name],
    *named(BLOCKS, "tanh"),
)
PRODUCTS = (
    *named(CONVOLUTIONS, "stride 2 of 3x3", "depthwise strided", "2 groups strided", "pointwise strided"),
    *[case for case in LAYERS if case.op in ("dense", "combine_maps") and not case.name],
    *named(BLOCKS, "tanh"),
)


def gradients(fun, case):
    return jax.grad(fun, tuple(range(len(case.shapes))))


@pytest.mark.parametrize("case", one_in(2, SOME))
@pytest.mark.parametrize("wrap", [jax.jit, pytest.param(lambda fun: fun, marks=pytest.mark.slow)], ids=["jit", "eager"])
def test_wide_types(case, wrap):
    """Inside a function that is differentiated outside: under `jit` both passes are traced after the call."""
    arrays = case.arrays("float32")

    def within(*arrays):
        with jax.enable_x64(True):
            return jnp.sin(case(*(a.astype(jnp.float64) for a in arrays))).sum().astype(jnp.float32)

    found = gradients(wrap(within), case)(*arrays)
    with jax.enable_x64(True):
        wide = [jax.device_put(np.asarray(a).astype(jnp.float64)) for a in arrays]
        expected = jax.jit(gradients(lambda *arrays: jnp.sin(case(*arrays)).sum(), case))(*wide)
    # Rounded to float32 once, at the end.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 3e-7, 3e-7), found, expected)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x, r: jaxcnnbp.stochastic_pool(x, (2, 2), (2, 2), samples=r),
        lambda x, r: jaxcnnbp.fractional_max_pool(x, (2, 2), (3, 3), samples=jnp.stack([r[:, 0, 0]] * 2, -1)),
    ],
    ids=["stochastic", "fractional"],
)
def test_winners_found_inside_wide_types(pool):
    """`jnp.argmax` has int64 there, and a program that is compiled outside has no code for it."""
    x, r = (jax.random.uniform(jax.random.key(n), (1, size, size, 3)) for n, size in ((0, 6), (1, 3)))

    def within(x):
        with jax.enable_x64(True):
            return pool(x, r).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(within))(x), jax.grad(lambda x: pool(x, r).sum())(x))


@pytest.mark.parametrize("case", PRODUCTS, ids=str)
@pytest.mark.parametrize("wrap", [lambda fun: fun, manual_backward], ids=["rules", "swapped"])
def test_precision(case, wrap):
    """Every product of the three passes, as lax has it; the CPU has one precision, so what CUDA is told is read."""

    def within(*arrays):
        with jax.default_matmul_precision("highest"), mode("manual" if wrap is not manual_backward else "autodiff"):
            y = case(*arrays)
        return jnp.sin(y).sum()

    lowered = jax.jit(gradients(wrap(within), case)).trace(*case.arrays("float32")).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    products = [line for line in text.splitlines() if "stablehlo.convolution" in line or "stablehlo.dot" in line]
    assert products
    assert all("HIGHEST" in line for line in products)


@pytest.mark.parametrize("way", ["manual", "both_ways"])
def test_what_a_pass_sees(way):
    """Whatever JAX traces by, and the mode, in either way of wiring."""
    seen = {}

    def note(name):
        seen[name] = (
            jax.config.jax_enable_x64,
            jax.config.jax_default_matmul_precision,
            jax.config.jax_numpy_dtype_promotion,
            jax.config.jax_numpy_rank_promotion,
            jax.config.jax_default_device,
            mode.value,
        )

    @jaxcnnbp.hand_written.hand_written
    @jax.custom_vjp
    def square(x):
        return x * x

    def fwd(x):
        note("forward")
        return x * x, x

    def bwd(x, delta):
        note("backward")
        return (2 * x * delta,)

    square.defvjp(fwd, bwd)
    device = jax.devices()[0]

    @jax.jit  # so that both passes are traced after the call
    def function(x):
        with (
            mode(way),
            jax.enable_x64(True),
            jax.default_matmul_precision("float32"),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("warn"),
            jax.default_device(device),
        ):
            return square(x)

    assert jax.grad(function)(3.0) == 6.0
    wanted = True, "float32", "standard", "warn", device, way
    assert seen == {"forward": wanted, "backward": wanted}
    note("after")
    assert seen["after"][0] is False


LOG_SUM = dict(init_value=-np.inf, computation=jnp.logaddexp, window_dimensions=(2, 2), padding="SAME")
# A case of each function whose code is not that of the others.
_SHARED = ("conv", "conv_with_general_padding", "conv_transpose", "convolve", "combine_maps")
_EACH = {case.op: case for case in reversed(ALL) if case.op not in _SHARED}
DEBUGGED = (
    *_EACH.values(),
    *named(CONVOLUTIONS, "depthwise strided"),
    *named(MEAN_OF_CELLS, "FULL"),
    *[case for case in POOLS if case.op in ("lp_pool", "adaptive_max_pool")],
    Case("", "adaptive_avg_pool", ((1, 5, 1),), dict(output_shape=(2,))),
    Case("", "stochastic_pool", ((1, 4, 1),), dict(window_shape=(2,), samples=np.full((1, 3, 1), 0.5, np.float32))),
    Case("means", "stochastic_pool", ((1, 4, 1),), dict(window_shape=(2,))),
    Case("of logaddexp", "reduce_window", ((3, 4),), LOG_SUM),
    Case("of maxima", "reduce_window", ((3, 4),), LOG_SUM | dict(computation=lax.max)),
)
FLAGS = {
    "disable_jit": jax.disable_jit,
    "debug_nans and debug_infs": lambda: _both(jax.debug_nans(True), jax.debug_infs(True)),
    "checking_leaks": jax.checking_leaks,
    "enable_checks": lambda: jax.enable_checks(True),
}


@contextmanager
def _both(one, other):
    with one, other:
        yield


@pytest.mark.parametrize("case", slow_but([_EACH["max_pool"]], DEBUGGED))
def test_flags_for_debugging(case):
    """What JAX has to look for mistakes finds none, and changes nothing."""

    def value_and_gradients(*arrays):
        return jax.value_and_grad(lambda *a: jnp.sin(case(*a)).sum(), tuple(range(len(arrays))))(*arrays)

    arrays = case.arrays("float32")
    wanted = value_and_gradients(*arrays)
    for flag in FLAGS.values():
        with flag():
            found = value_and_gradients(*arrays)
        # Sums in another order.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), found, wanted)
