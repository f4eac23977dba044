"""What the rules are tested on: every kind of geometry once, as small as it can be and still be of that kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnnbp


@dataclass(frozen=True, eq=False)  # hashable, whatever the options are
class Case:
    """One call of one public function.

    Attributes:
      name: what is particular about it.
      op: name of the public function.
      shapes: of the arrays that have a gradient.
      options: its other arguments, by name.
      draw: what values the arrays have, `"normal"`, or `"rounded"` for ties.
    """

    name: str
    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: dict[str, Any] = field(default_factory=dict)
    draw: str = "normal"

    def __str__(self) -> str:
        return f"{self.op} {self.name}"

    def __call__(self, *arrays: Any) -> Any:
        return getattr(jaxcnnbp, self.op)(*arrays, **self.options)

    def arrays(self, dtype: str = "float64", seed: int = 0) -> list[jax.Array]:
        """Arrays of the case's shapes, the same for the same seed."""
        generator = np.random.default_rng(seed)
        # Converted by NumPy and sent as they are: `jnp.asarray` compiles a program for every shape.
        kind = jnp.dtype(dtype)
        return [jax.device_put(_drawn(generator, shape, self.draw).astype(kind)) for shape in self.shapes]


def _drawn(generator: np.random.Generator, shape: tuple[int, ...], draw: str) -> np.ndarray:
    values = generator.normal(size=shape)
    return np.round(values) if draw == "rounded" else values


def ids(cases: tuple[Case, ...]) -> list[str]:
    """Names of the tests of `cases`."""
    return list(map(str, cases))


def _correlations(*rows: tuple[Any, ...]) -> tuple[Case, ...]:
    return tuple(Case(name, op, (x, kernel), options) for op, name, x, kernel, options in rows)


_TABLE = np.array([[True, False, True], [False, True, True]])

CONVOLUTIONS = _correlations(
    ("convolve", "1d", (2, 7, 2), (3, 2, 3), {}),
    ("correlate", "1d asymmetric strided", (1, 7, 2), (3, 2, 1), dict(stride=2, padding=[(2, 1)])),
    ("correlate", "2d", (2, 5, 6, 2), (3, 2, 2, 3), {}),
    ("convolve", "SAME strided", (1, 5, 6, 2), (3, 2, 2, 3), dict(padding="SAME", stride=(2, 1))),
    ("correlate", "SAME_LOWER even window", (1, 5, 6, 1), (2, 4, 1, 2), dict(padding="SAME_LOWER")),
    ("convolve", "FULL dilated", (1, 4, 3, 2), (3, 2, 2, 2), dict(padding="FULL", dilation=(1, 2))),
    ("correlate", "an int of padding an axis", (1, 4, 3, 1), (2, 3, 1, 2), dict(padding=[2, 1])),
    ("correlate", "negative padding", (2, 6, 5, 2), (3, 2, 2, 2), dict(padding=[(-1, 2), (1, -2)])),
    ("convolve", "cropped below zero", (1, 7, 2), (2, 2, 1), dict(padding=[(-2, -1)], stride=3)),
    ("correlate", "stride beyond the window", (1, 9, 7, 2), (2, 1, 2, 2), dict(stride=(4, 3))),
    ("correlate", "stride 2 of 3x3", (2, 6, 7, 2), (3, 3, 2, 3), dict(stride=2, padding=1)),
    ("convolve", "stride and dilation", (1, 9, 8, 2), (3, 2, 2, 2), dict(stride=(2, 3), dilation=(2, 3), padding=2)),
    ("correlate", "window beyond the input", (1, 2, 3, 2), (4, 5, 2, 2), dict(padding=3)),
    ("convolve", "spatial size 1", (2, 1, 1, 3), (3, 3, 3, 2), dict(padding="SAME")),
    ("correlate", "pointwise", (2, 3, 4, 3), (1, 1, 3, 2), {}),
    ("correlate", "pointwise strided padded", (2, 4, 5, 3), (1, 1, 3, 2), dict(stride=2, padding=[(1, 0), (0, 1)])),
    ("convolve", "2 groups", (2, 5, 4, 4), (3, 2, 2, 6), dict(groups=2, padding=1)),
    ("correlate", "2 groups strided", (1, 6, 5, 4), (3, 2, 2, 2), dict(groups=2, stride=2)),
    ("correlate", "depthwise", (2, 5, 4, 3), (3, 2, 1, 3), dict(groups=3, padding="SAME")),
    ("convolve", "depthwise strided dilated", (1, 9, 3), (3, 1, 3), dict(groups=3, stride=2, dilation=2, padding=1)),
    ("correlate", "depthwise of 2 each", (2, 4, 5, 2), (2, 3, 1, 4), dict(groups=2)),
    ("convolve", "connections", (2, 5, 4, 2), (3, 2, 2, 3), dict(connections=_TABLE)),
    ("correlate", "8x8 window", (1, 9, 8, 2), (8, 8, 2, 1), dict(padding=1)),
    ("correlate", "16 channels", (5, 4, 5, 16), (3, 2, 16, 2), dict(padding=1)),
    ("convolve", "16 channels strided", (2, 5, 4, 16), (3, 3, 16, 16), dict(padding="SAME", stride=2)),
    ("convolve", "3d", (1, 4, 3, 5, 2), (2, 3, 2, 2, 2), dict(stride=(1, 2, 2), padding=1)),
    ("correlate", "4d", (1, 2, 3, 2, 3, 1), (1, 2, 2, 1, 1, 2), {}),
)


def _dilated(
    name: str, x: tuple[int, ...], kernel: tuple[int, ...], strides: Any, padding: Any, **options: Any
) -> Case:
    return Case(name, "conv_general_dilated", (x, kernel), dict(window_strides=strides, padding=padding, **options))


LAX_CONVOLUTIONS = (
    _dilated("defaults", (2, 3, 5, 4), (2, 3, 2, 3), (1, 1), "VALID"),
    _dilated("channels last", (2, 5, 4, 3), (2, 3, 3, 2), (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
    _dilated("odd layouts", (5, 3, 4, 2), (3, 2, 3, 2), (1, 2), "SAME", dimension_numbers=("HCWN", "WOIH", "CWNH")),
    _dilated("input dilation", (1, 2, 4, 3), (3, 2, 3, 2), (1, 1), ((1, 2), (2, 0)), lhs_dilation=(2, 3)),
    _dilated("all dilations", (1, 2, 5), (2, 2, 3), (2,), ((2, 1),), lhs_dilation=(3,), rhs_dilation=(2,)),
    _dilated("input dilation, SAME", (1, 2, 4, 3), (3, 2, 3, 2), (2, 1), "SAME", lhs_dilation=(2, 3)),
    _dilated(
        "input dilation, SAME_LOWER", (1, 2, 4), (2, 2, 2), (2,), "SAME_LOWER", lhs_dilation=(3,), rhs_dilation=(2,)
    ),
    _dilated("negative padding", (1, 2, 5), (2, 2, 2), (1,), ((-2, 1),), lhs_dilation=(2,)),
    _dilated("feature groups", (2, 4, 5), (6, 2, 3), (2,), ((1, 1),), feature_group_count=2),
    _dilated("batch groups", (6, 2, 5, 4), (3, 2, 2, 3), (1, 2), ((1, 0), (0, 1)), batch_group_count=3),
    _dilated("batch groups of one channel", (4, 1, 5), (4, 1, 2), (1,), "VALID", batch_group_count=2),
    _dilated("no spatial axis", (2, 3), (4, 3), (), ()),
    _dilated("no spatial axis, groups", (2, 4), (6, 2), (), (), feature_group_count=2),
    _dilated("no spatial axis, depthwise", (3, 2), (2, 1), (), (), feature_group_count=2),
    _dilated("4 spatial axes", (1, 1, 2, 3, 2, 2), (2, 1, 1, 2, 2, 1), (1,) * 4, ((1, 0),) * 4),
    Case("", "conv", ((1, 2, 5, 4), (3, 2, 2, 3)), dict(window_strides=(2, 1), padding="SAME")),
    Case(
        "",
        "conv_with_general_padding",
        ((1, 2, 5), (3, 2, 3)),
        dict(window_strides=(1,), padding=((2, 1),), lhs_dilation=(2,), rhs_dilation=(1,)),
    ),
    Case("SAME", "conv_transpose", ((1, 4, 3, 2), (3, 2, 2, 3)), dict(strides=(2, 3), padding="SAME")),
    Case("VALID", "conv_transpose", ((2, 4, 2), (3, 2, 3)), dict(strides=(2,), padding="VALID", rhs_dilation=(2,))),
    Case(
        "pairs, kernel transposed",
        "conv_transpose",
        ((1, 4, 3), (3, 2, 3)),
        dict(strides=(3,), padding=((2, 1),), transpose_kernel=True),
    ),
    Case(
        "consistent padding",
        "conv_transpose",
        ((1, 4, 3, 2), (3, 4, 2, 1)),
        dict(strides=(2, 1), padding=((1, 0), (2, 1)), use_consistent_padding=True),
    ),
)

# Shape, window and options of a pool, whichever it is.
_WINDOWS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("non-overlapping", (2, 4, 6, 2), (2, 3), dict(strides=(2, 3))),
    ("left over", (1, 5, 7, 2), (2, 3), dict(strides=(2, 3))),
    ("ceil mode", (2, 5, 7, 2), (2, 3), dict(strides=(2, 3), ceil_mode=True)),
    ("ceil mode overlapping padded", (1, 6, 5, 2), (3, 3), dict(strides=2, padding=1, ceil_mode=True)),
    ("overlapping", (1, 5, 6, 2), (3, 2), {}),
    ("SAME", (1, 5, 6, 1), (3, 2), dict(strides=2, padding="SAME")),
    ("SAME_LOWER", (1, 5, 1), (4,), dict(padding="SAME_LOWER")),
    ("FULL", (1, 4, 2), (3,), dict(strides=2, padding="FULL")),
    ("asymmetric", (2, 6, 1), (3,), dict(strides=2, padding=((0, 2),))),
    ("windows of padding alone", (1, 3, 1), (2,), dict(padding=((3, 2),))),
    ("negative padding", (1, 7, 5, 2), (2, 2), dict(padding=((-1, 1), (0, -2)))),
    ("cropped, ceil mode", (1, 9, 1), (3,), dict(strides=2, padding=((0, -2),), ceil_mode=True)),
    ("dilated", (1, 7, 6, 2), (3, 2), dict(strides=(1, 2), window_dilation=(2, 3))),
    ("dilated padded ceil mode", (1, 8, 1), (3,), dict(strides=3, window_dilation=2, padding=2, ceil_mode=True)),
    ("stride beyond the window", (1, 9, 8, 1), (2, 1), dict(strides=(4, 3))),
    ("beyond the input", (1, 2, 3, 2), (4, 5), dict(padding=((2, 2), (3, 1)))),
    ("spatial size 1", (2, 1, 1, 3), (1, 1), {}),
    ("5x7 window", (1, 7, 9, 1), (5, 7), dict(strides=2)),
    ("many phases non-overlapping", (1, 9, 9, 2), (3, 2), dict(strides=(5, 4), padding=((1, 0), (0, 2)))),
    ("many phases overlapping", (1, 9, 9, 2), (6, 5), dict(strides=(5, 4), padding=2)),
    ("1d", (2, 6, 2), (2,), dict(strides=2)),
    ("3d", (1, 4, 3, 5, 2), (2, 2, 3), dict(strides=2, padding=1)),
    ("no batch", (4, 5, 2), (2, 2), {}),
    ("two batch axes", (2, 3, 4, 1), (2,), dict(strides=2)),
    ("empty batch", (0, 4, 4, 2), (2, 2), dict(strides=2)),
)


def _pools(op: str, draw: str = "normal", **more: Any) -> tuple[Case, ...]:
    return tuple(
        Case(
            f"{name} {' '.join(map(str, more.values()))}".strip(),
            op,
            (x,),
            dict(window_shape=size, **options, **more),
            draw,
        )
        for name, x, size, options in _WINDOWS
    )


def named(cases: tuple[Case, ...], *names: str) -> tuple[Case, ...]:
    """Those of `cases` whose name begins with one of `names`."""
    return tuple(case for case in cases if case.name.startswith(names))


MAX_POOLS = _pools("max_pool", "rounded")
MIN_POOLS = named(_pools("min_pool", "rounded"), "ceil mode", "dilated", "negative", "overlapping")
TIE_POOLS = tuple(
    case
    for ties in ("all", "split")
    for case in named(
        _pools("max_pool", "rounded", ties=ties), "non-over", "overlapping", "ceil mode", "windows of", "dilated", "5x7"
    )
)
MEAN_POOLS = _pools("avg_pool")
MEAN_OF_CELLS = named(
    _pools("avg_pool", count_include_pad=False), "ceil mode", "SAME", "FULL", "asym", "windows of", "dilated", "cropped"
)
POOLS = MAX_POOLS + MIN_POOLS + TIE_POOLS + MEAN_POOLS + MEAN_OF_CELLS

_ELEMENTWISE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("identity", {}),
    ("logistic", {}),
    ("tanh", {}),
    ("scaled_tanh", {}),
    ("relu", {}),
    ("leaky_relu", {}),
    ("leaky_relu", dict(negative_slope=-0.5)),
    ("gelu", {}),
    ("gelu", dict(approximate=False)),
    ("silu", {}),
)
ACTIVATIONS = tuple(Case(f"{options or ''}", op, ((3, 4),), options) for op, options in _ELEMENTWISE)

LAYERS = (
    Case("", "dense", ((3, 4), (4, 2), (2,))),
    Case("without bias", "dense", ((4,), (4, 2))),
    Case("of many batch axes", "dense", ((2, 3, 4), (4, 2), (2,))),
    Case("", "add_bias", ((2, 3, 4), (4,))),
    Case("", "subsample", ((2, 4, 6, 3), (3,), (3,)), dict(window_shape=(2, 3))),
    Case("ceil mode", "subsample", ((1, 5, 2), (2,), (2,)), dict(window_shape=(2,), ceil_mode=True)),
    Case("", "combine_maps", ((2, 5, 4, 3), (3, 2, 3, 2), (3, 2), (2,))),
    Case(
        "correlated padded",
        "combine_maps",
        ((1, 5, 3), (3, 3, 2), (3, 2), (2,)),
        dict(padding="SAME", true_convolution=False),
    ),
    Case("", "combination_entropy", ((4, 3),)),
    Case("", "upsample", ((2, 3, 2, 2),), dict(window_shape=(2, 3))),
    Case("overlapping", "upsample", ((1, 3, 2),), dict(window_shape=(3,), strides=2)),
    Case("apart", "upsample", ((1, 3, 2),), dict(window_shape=(2,), strides=(3,))),
)


def _block(name: str, x: tuple[int, ...], kernel: tuple[int, ...], **options: Any) -> Case:
    return Case(name, "conv_block", (x, kernel, kernel[-1:]), options)


_PADDED, _WIDE = dict(padding=1, pool=2, pool_strides=2), ((2, 6, 5, 2), (3, 3, 2, 3))
BLOCKS = (
    _block("max", *_WIDE, **_PADDED),
    _block("min", *_WIDE, **_PADDED, pool_kind="min", activation="logistic"),
    _block("mean", *_WIDE, **_PADDED, pool_kind="mean"),
    _block("without pool", *_WIDE, padding="SAME"),
    _block("linear max", *_WIDE, **_PADDED, activation=None),
    _block("tanh", *_WIDE, **_PADDED, activation="tanh"),
    _block("scaled tanh mean", *_WIDE, **_PADDED, activation="scaled_tanh", pool_kind="mean"),
    _block("leaky", *_WIDE, **_PADDED, activation="leaky_relu", activation_argument=0.2),
    _block("falling max", *_WIDE, **_PADDED, activation="leaky_relu", activation_argument=-0.5),
    _block("falling", *_WIDE, activation="leaky_relu", activation_argument=-0.5),
    _block("gelu max", *_WIDE, **_PADDED, activation="gelu"),
    _block("gelu mean", *_WIDE, **_PADDED, activation="gelu", activation_argument=False, pool_kind="mean"),
    _block("silu min", *_WIDE, **_PADDED, activation="silu", pool_kind="min"),
    _block("overlapping ceil mode", *_WIDE, pool=(3, 2), pool_strides=2, pool_padding=1, ceil_mode=True),
    _block("dilated", *_WIDE, padding=2, pool=2, pool_dilation=2, activation="tanh"),
    _block("strided grouped", (1, 9, 8, 4), (3, 2, 2, 6), stride=2, groups=2, pool=2, dilation=2),
    _block("true convolution", (2, 9, 2), (3, 2, 3), true_convolution=True, pool=3, pool_strides=2),
    _block("connections", (2, 6, 2), (3, 2, 3), connections=_TABLE, pool=(2,), activation="silu"),
    _block("volumes", (1, 4, 3, 5, 1), (2, 2, 2, 1, 2), padding=1, pool=2, pool_strides=2),
    _block("mean of cells", (2, 9, 2), (2, 2, 2), pool=3, pool_padding=1, pool_kind="mean", count_include_pad=False),
    _block("windows of padding alone", (1, 4, 1), (2, 1, 2), pool=2, pool_padding=((3, 2),), activation="tanh"),
    _block("window of 289", (1, 18, 18, 1), (2, 2, 1, 1), pool=17, activation="tanh"),
    Case("without bias", "conv_block", _WIDE, _PADDED),
    Case("rounded", "conv_block", (*_WIDE, (3,)), _PADDED, "rounded"),
)

ALL = CONVOLUTIONS + LAX_CONVOLUTIONS + POOLS + ACTIVATIONS + LAYERS + BLOCKS

Function = Callable[..., Any]
