"""Bad input ends in one sentence of this package, with the argument and its value."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp
from jaxcnnbp import mode, nn

X, KERNEL = jnp.ones((2, 5, 4, 3)), jnp.ones((3, 2, 3, 2))
LINE = jnp.ones((1, 6, 2))
COMPLEX = LINE.astype(jnp.complex64)
INTS = jnp.ones((1, 6, 2), jnp.int32)


def correlate(x=X, kernel=KERNEL, **options):
    return lambda: jaxcnnbp.correlate(x, kernel, **options)


def max_pool(x=LINE, window_shape=(2,), **options):
    return lambda: jaxcnnbp.max_pool(x, window_shape, **options)


def conv_block(x=X, kernel=KERNEL, bias=None, **options):
    return lambda: jaxcnnbp.conv_block(x, kernel, bias, **options)


CONVOLUTION = [
    (correlate(jnp.ones(4)), ValueError, "`x` (shape=(4,))"),
    (correlate(jnp.ones((5, 4)), jnp.ones((3, 2))), ValueError, "`x` (shape=(5, 4))"),
    (correlate(kernel=jnp.ones((3, 3, 2))), ValueError, "`kernel` (shape=(3, 3, 2))"),
    (correlate(X[0]), ValueError, "`kernel` (shape=(3, 2, 3, 2))"),
    (correlate(KERNEL, X), ValueError, "`kernel` (shape=(2, 5, 4, 3))"),  # the kernel where the input belongs
    (correlate(X[..., :2]), ValueError, "has 2 channels"),
    (correlate(X.transpose(0, 3, 1, 2)), ValueError, "the layout"),
    (correlate(kernel=KERNEL.astype(jnp.bfloat16)), TypeError, "`kernel` (dtype=bfloat16)"),
    (correlate(X.astype(int), KERNEL), TypeError, "dtype=int32"),
    (correlate(groups=2), ValueError, "2 groups"),
    (correlate(jnp.ones((1, 5, 4)), jnp.ones((2, 2, 3)), groups=2), ValueError, "`groups` (=2) must divide"),
    (correlate(groups=0), ValueError, "`groups` (=0)"),
    (correlate(groups=-1), ValueError, "`groups` (=-1)"),
    (correlate(groups=True), ValueError, "`groups` (=True)"),
    (correlate(groups=1.0), ValueError, "`groups` (=1.0)"),
    (correlate(stride=0), ValueError, "`stride` (=0)"),
    (correlate(stride=(1, -2)), ValueError, "`stride` (=(1, -2))"),
    (correlate(stride=(1, 2, 3)), ValueError, "`stride` (=(1, 2, 3)) has 3 entries"),
    (correlate(stride=1.5), TypeError, "`stride` (=1.5)"),
    (correlate(stride="2"), TypeError, "`stride` (='2')"),
    (correlate(stride=True), TypeError, "`stride` (=True)"),
    (correlate(stride=None), TypeError, "`stride` (=None)"),
    (correlate(dilation=0), ValueError, "`dilation` (=0)"),
    (correlate(dilation=[1, 2.0]), TypeError, "`dilation` (=[1, 2.0])"),
    (correlate(padding="SAMEISH"), ValueError, "`padding` (='SAMEISH') is unknown"),
    (correlate(padding=None), TypeError, "`padding` (=None)"),
    (correlate(padding=1.0), TypeError, "`padding` (=1.0)"),
    (correlate(padding=[1]), ValueError, "`padding` (=[1]) has 1 entries"),
    (correlate(padding=[(1, 2, 3), 0]), TypeError, "has the entry (1, 2, 3)"),
    (correlate(padding=[("a", "b"), 0]), TypeError, "has the entry ('a', 'b')"),
    (correlate(jnp.ones((2, 2, 4, 3))), ValueError, "`kernel` (=(3, 2)) spans 3 positions on spatial axis 0"),
    (correlate(dilation=3), ValueError, "spans 7 positions on spatial axis 0 (dilation 3) but the padded input has 5"),
    (correlate(padding=-2), ValueError, "but the padded input has 1"),
    (correlate(padding=-9), ValueError, "but the padded input has 0"),
    (correlate(kernel=jnp.ones((0, 2, 3, 2))), ValueError, "(=(0, 2))"),
    (correlate(connections=np.ones((3, 2))), TypeError, "`connections` (dtype=float"),
    (correlate(connections=np.ones((2, 3), bool)), ValueError, "`connections` (shape=(2, 3))"),
    (
        correlate(jnp.ones((1, 4, 2)), jnp.ones((2, 1, 2)), groups=2, connections=[[True] * 2]),
        ValueError,
        "`groups` (=2)",
    ),
]
POOLING = [
    (max_pool(jnp.ones(3)), ValueError, "`inputs` (shape=(3,))"),
    (max_pool(window_shape=(2, 2, 2)), ValueError, "`window_shape` (=(2, 2, 2))"),
    (max_pool(window_shape=(0,)), ValueError, "`window_shape` (=(0,))"),
    (max_pool(window_shape=(-1,)), ValueError, "`window_shape` (=(-1,))"),
    (max_pool(window_shape=(2.0,)), TypeError, "`window_shape` (=(2.0,))"),
    (max_pool(window_shape=2.5), TypeError, "`window_shape` (=2.5)"),
    (max_pool(window_shape=None), TypeError, "`window_shape` (=None)"),
    (max_pool(window_shape="22"), TypeError, "`window_shape` (='22')"),
    (max_pool(strides=0), ValueError, "`strides` (=0)"),
    (max_pool(strides=(2, 2)), ValueError, "`strides` (=(2, 2)) has 2 entries"),
    (max_pool(window_dilation=0), ValueError, "`window_dilation` (=0)"),
    (max_pool(window_dilation=9), ValueError, "`window_shape` (=(2,)) spans 10 positions"),
    (max_pool(window_shape=(7,)), ValueError, "`window_shape` (=(7,)) spans 7 positions on spatial axis 0"),
    (max_pool(padding="same-ish"), ValueError, "`padding` (='same-ish')"),
    (max_pool(padding=[(1,)]), TypeError, "`padding` (=[(1,)])"),
    (max_pool(padding=[(0, -1)], strides=2, ceil_mode=True), ValueError, "crops the end of spatial axis 0"),
    (max_pool(ties="last"), ValueError, "`ties` (='last')"),
    (max_pool(ties=None), ValueError, "`ties` (=None)"),
    (max_pool(COMPLEX), TypeError, "`inputs` (dtype=complex64)"),
    (lambda: jaxcnnbp.min_pool(COMPLEX, (2,)), TypeError, "`inputs` (dtype=complex64)"),
    (lambda: jaxcnnbp.max_pool_with_argmax(COMPLEX, (2,)), TypeError, "`inputs` (dtype=complex64)"),
    (lambda: jaxcnnbp.upsample(jnp.ones(2), (2, 2)), ValueError, "`delta` (shape=(2,))"),
    (lambda: jaxcnnbp.upsample(LINE, (0,)), ValueError, "`window_shape` (=(0,))"),
    (lambda: jaxcnnbp.upsample(LINE, (2,), 0), ValueError, "`strides` (=0)"),
    (lambda: jaxcnnbp.max_unpool(LINE, LINE, (6,)), TypeError, "`argmax` (dtype=float32)"),
    (lambda: jaxcnnbp.max_unpool(LINE, INTS[:, :2], (6,)), ValueError, "`argmax` (shape=(1, 2, 2))"),
    (lambda: jaxcnnbp.max_unpool(LINE, INTS, (6, 6, 6)), ValueError, "`spatial_shape` (=(6, 6, 6))"),
    (lambda: jaxcnnbp.max_unpool(LINE, INTS, (-1,)), ValueError, "`spatial_shape` (=(-1,))"),
    (lambda: jaxcnnbp.max_unpool(LINE, INTS, 6.5), TypeError, "`spatial_shape` (=6.5)"),
]
GRADIENTS = [
    (
        lambda: jaxcnnbp.conv_input_grad(jnp.ones((1, 1, 3)), jnp.ones((1, 1, 2)), (1, 1, 3)),
        ValueError,
        "`delta` (shape=(1, 1, 3))",
    ),
    (
        lambda: jaxcnnbp.conv_kernel_grad(jnp.ones((1, 1, 3)), jnp.ones((1, 1, 3)), (1, 1, 2)),
        ValueError,
        "`delta` (shape=(1, 1, 3))",
    ),
    (lambda: jaxcnnbp.conv_input_grad(INTS, INTS, (1, 1, 3)), TypeError, "`delta` (dtype=int32)"),
    (lambda: jaxcnnbp.conv_kernel_grad(INTS, INTS, (1, 1, 3)), TypeError, "`delta` (dtype=int32)"),
    (lambda: jaxcnnbp.conv_bias_grad(INTS), TypeError, "`delta` (dtype=int32)"),
]
LAYERS = [
    (lambda: jaxcnnbp.dense(jnp.ones((2, 3)), jnp.ones((2, 3))), ValueError, "`weights` (shape=(2, 3))"),
    (lambda: jaxcnnbp.dense(jnp.ones((2, 3)), jnp.ones(3)), ValueError, "`weights` (shape=(3,))"),
    (lambda: jaxcnnbp.dense(jnp.ones((2, 3)), jnp.ones((3, 2)), jnp.ones(3)), ValueError, "`bias` (shape=(3,))"),
    (lambda: jaxcnnbp.dense(jnp.ones((2, 3)), jnp.ones((3, 2), jnp.bfloat16)), TypeError, "`weights` (dtype=bfloat16)"),
    (lambda: jaxcnnbp.add_bias(jnp.ones((2, 3)), jnp.ones((2, 3))), ValueError, "`bias` (shape=(2, 3))"),
    (lambda: jaxcnnbp.add_bias(jnp.ones((2, 3)), jnp.ones(3, jnp.bfloat16)), TypeError, "`bias` (dtype=bfloat16)"),
    (lambda: jaxcnnbp.subsample(LINE, jnp.ones(3), jnp.ones(2), (2,)), ValueError, "`beta` (shape=(3,))"),
    (lambda: jaxcnnbp.subsample(LINE, jnp.ones(2), jnp.ones(3), (2,)), ValueError, "`bias` (shape=(3,))"),
    (
        lambda: jaxcnnbp.subsample(LINE, jnp.ones(2), jnp.ones(2), (4,)),
        ValueError,
        "`window_shape` (=(4,)) must divide",
    ),
    (lambda: jaxcnnbp.subsample(INTS, jnp.ones(2), jnp.ones(2), (2,)), TypeError, "`x` (dtype=int32)"),
    (
        lambda: jaxcnnbp.combine_maps(LINE, jnp.ones((3, 2, 4)), jnp.ones((4, 2)), jnp.ones(4)),
        ValueError,
        "`logits` (shape=(4, 2))",
    ),
    (
        lambda: jaxcnnbp.combine_maps(LINE, jnp.ones((3, 1, 4)), jnp.ones((1, 4)), jnp.ones(4)),
        ValueError,
        "`kernel` (shape=(3, 1, 4))",
    ),
    (lambda: jaxcnnbp.combination_entropy(jnp.ones(3)), ValueError, "`logits` (shape=(3,))"),
    (lambda: jaxcnnbp.combination_entropy(INTS[0]), TypeError, "`logits` (dtype=int32)"),
    (lambda: jaxcnnbp.relu(INTS), TypeError, "`x` (dtype=int32)"),
    (lambda: jaxcnnbp.gelu(COMPLEX), TypeError, "`x` (dtype=complex64)"),
    (lambda: jaxcnnbp.tanh(np.ones(2, int)), TypeError, "`x` (dtype=int"),
]
NETWORKS = [
    (lambda: nn.Activation("swish"), ValueError, "`name` (='swish')"),
    (lambda: nn.Activation("relu", 0.1), ValueError, "`argument` (=0.1)"),
    (lambda: nn.MaxPool(2, ties="none"), ValueError, "`ties` (='none')"),
    (lambda: nn.Sequential((nn.Relu(), jnp.tanh)), TypeError, "`layers` holds"),
    (lambda: nn.Conv(6, 5).init(jax.random.key(0), (1, 4, 4, 1)), ValueError, "`kernel` (=(5, 5)) spans 5"),
    (lambda: nn.Conv(6, 5).init(jax.random.key(0), (28,)), ValueError, "`input_shape` (=(28,))"),
    (lambda: nn.Conv(6, 5).init(jax.random.key(0), 28), ValueError, "`input_shape` (=28)"),
    (lambda: nn.Conv(6, (5, 5, 5)).init(jax.random.key(0), (1, 8, 8, 1)), ValueError, "`window` (=(5, 5, 5))"),
    (lambda: nn.Conv(6, 5, groups=4).init(jax.random.key(0), (1, 8, 8, 4)), ValueError, "`groups` (=4)"),
    (lambda: nn.Conv(6, 5, groups=0).init(jax.random.key(0), (1, 8, 8, 4)), ValueError, "`groups` (=0)"),
    (lambda: nn.Conv(0, 5).init(jax.random.key(0), (1, 8, 8, 4)), ValueError, "`features` (=0)"),
    (lambda: nn.Dense(-1).init(jax.random.key(0), (1, 8)), ValueError, "`features` (=-1)"),
    (lambda: nn.MaxPool(9).output_shape((1, 8, 8, 1)), ValueError, "`window_shape` (=(9, 9)) spans 9"),
    (lambda: nn.Subsample(3).output_shape((1, 8, 8, 1)), ValueError, "`window_shape` (=(3, 3)) must divide"),
    (lambda: nn.squared_error(jnp.ones((2, 3)), jnp.ones((2, 4))), ValueError, "`targets` (shape=(2, 4)"),
    (lambda: nn.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones(2)), ValueError, "`targets` (shape=(2,)"),
]
BLOCKS = [
    (conv_block(X[0]), ValueError, "`kernel` (shape=(3, 2, 3, 2))"),
    (conv_block(X.astype(int), KERNEL.astype(int)), TypeError, "`x` (dtype=int32)"),
    (conv_block(X.astype(complex), KERNEL.astype(complex)), TypeError, "`x` (dtype=complex64)"),
    (conv_block(bias=jnp.ones(3)), ValueError, "`bias` (shape=(3,))"),
    (conv_block(bias=jnp.ones(2, jnp.bfloat16)), TypeError, "`bias` (dtype=bfloat16)"),
    (conv_block(activation="swish"), ValueError, "`activation` (='swish')"),
    (conv_block(activation=jnp.tanh), ValueError, "`activation` (="),
    (conv_block(activation_argument=0.1), ValueError, "`activation_argument` (=0.1)"),
    (conv_block(activation="leaky_relu", activation_argument="0"), TypeError, "`activation_argument` (='0')"),
    (conv_block(pool=0), ValueError, "`pool` (=0)"),
    (conv_block(pool=(2, 2, 2)), ValueError, "`pool` (=(2, 2, 2))"),
    (conv_block(pool=7), ValueError, "`pool` (=(7, 7)) spans 7"),
    (conv_block(pool=2, pool_strides=0), ValueError, "`pool_strides` (=0)"),
    (conv_block(pool=2, pool_padding="SAMEISH"), ValueError, "`pool_padding` (='SAMEISH')"),
    (conv_block(pool=2, pool_padding=((0, 1.5), 0)), TypeError, "`pool_padding` (="),
    (conv_block(pool=2, pool_dilation=0), ValueError, "`pool_dilation` (=0)"),
    (conv_block(pool=2, pool_kind="median"), ValueError, "`pool_kind` (='median')"),
    (conv_block(pool_strides=2), ValueError, "`pool_strides` (=2) needs a `pool`"),
    (conv_block(pool_kind="mean"), ValueError, "`pool_kind` (='mean') needs a `pool`"),
    (conv_block(ceil_mode=True), ValueError, "`ceil_mode` (=True) needs a `pool`"),
    (lambda: nn.ConvBlock(nn.Conv(2, 3), pool=nn.MaxPool(2, ties="all")), ValueError, "`pool` (=MaxPool("),
    (lambda: nn.ConvBlock(nn.Relu()), TypeError, "`conv` (=Activation("),
    (lambda: nn.ConvBlock(nn.Conv(2, 3), nn.MaxPool(2)), TypeError, "`activation` (=MaxPool("),
    (lambda: nn.ConvBlock(nn.Conv(2, 3), pool=2), TypeError, "`pool` (=2) must be MaxPool, MeanPool or None"),
]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [pytest.param(*row, id=row[2]) for row in CONVOLUTION + POOLING + GRADIENTS + LAYERS + NETWORKS + BLOCKS],
)
def test_sentence(call, error, words):
    with pytest.raises(error, match=re.escape(words)) as caught:
        call()
    sentence = str(caught.value).split("\n--------")[0]
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    "arguments", [(X, KERNEL, (1,), "VALID"), (X, KERNEL, (1, 1), "HALF"), (X, X[0], (1, 1), "SAME")]
)
def test_lax_functions_refuse_as_lax_does(arguments):
    with pytest.raises(Exception) as wanted:  # noqa: PT011 - whatever lax says
        jax.lax.conv_general_dilated(*arguments)
    with pytest.raises(type(wanted.value), match=re.escape(str(wanted.value)[:60])):
        jaxcnnbp.conv_general_dilated(*arguments)


def test_integers_have_no_gradient():
    with pytest.raises(TypeError, match="int32"):
        jax.grad(lambda x: jaxcnnbp.max_pool(x, (2,)).sum())(INTS)


def test_unknown_mode():
    with mode("magic"), pytest.raises(ValueError, match=re.escape("`mode` (='magic')")):
        jaxcnnbp.relu(LINE)
