"""What a call of another library becomes here. The site prints these rows, and the tests run both sides of each.

`x` is an input, `k` a kernel, `w` the same kernel in the other library's layout, `b` a bias.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One call.

    Attributes:
      theirs: the other library's expression.
      ours: that of this package.
      kernel: shape of the kernel, channels last, if there is one.
      note: what to know.
      positive: whether the input must be positive.
    """

    theirs: str
    ours: str
    kernel: tuple[int, ...] | None = None
    note: str = ""
    positive: bool = False


# PyTorch has channels first and kernels (out, in, *window); here channels are last and kernels (*window, in, out).
TORCH = (
    Row("F.conv2d(x, w)", "jaxcnnbp.correlate(x, k)", (3, 3, 4, 6), "PyTorch does not flip the kernel."),
    Row(
        "F.conv2d(x, w, b, stride=2, padding=1)",
        "jaxcnnbp.add_bias(jaxcnnbp.correlate(x, k, stride=2, padding=1), b)",
        (3, 3, 4, 6),
    ),
    Row("F.conv2d(x, w, padding='same')", "jaxcnnbp.correlate(x, k, padding='SAME')", (3, 3, 4, 6)),
    Row(
        "F.conv2d(F.pad(x, (1, 1, 1, 1), 'circular'), w)",
        "jaxcnnbp.correlate(x, k, padding=1, padding_mode='circular')",
        (3, 3, 4, 6),
        "Also reflect and replicate, as `padding_mode` of `nn.Conv2d`.",
    ),
    Row("F.conv2d(x, w, dilation=2)", "jaxcnnbp.correlate(x, k, dilation=2)", (3, 3, 4, 6)),
    Row("F.conv2d(x, w, groups=2)", "jaxcnnbp.correlate(x, k, groups=2)", (3, 3, 2, 6)),
    Row(
        "F.conv2d(x, w, groups=4)",
        "jaxcnnbp.correlate(x, k, groups=4)",
        (3, 3, 1, 8),
        "Depthwise: as many groups as channels.",
    ),
    Row(
        "F.conv_transpose2d(x, w.transpose(0, 1), stride=2, padding=1)",
        "jaxcnnbp.conv_transpose(x, k.swapaxes(2, 3), (2, 2), [(1, 1), (1, 1)],"
        " transpose_kernel=True, use_consistent_padding=True)",
        (3, 3, 4, 6),
        "PyTorch's weight is (in, out, *window) here.",
    ),
    Row("F.max_pool2d(x, 2)", "jaxcnnbp.max_pool(x, (2, 2), (2, 2))", None, "As Flax, strides are 1 unless given."),
    Row(
        "F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)",
        "jaxcnnbp.max_pool(x, (3, 3), (2, 2), 1, ceil_mode=True)",
    ),
    Row("F.max_pool2d(x, 2, stride=1, dilation=2)", "jaxcnnbp.max_pool(x, (2, 2), window_dilation=2)"),
    Row(
        "F.max_pool2d(x, 2, return_indices=True)[1]",
        "jaxcnnbp.max_pool_with_argmax(x, (2, 2), (2, 2))[1]",
        None,
        "The same indices, into one image and channel.",
    ),
    Row(
        "F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)",
        "jaxcnnbp.max_unpool(*jaxcnnbp.max_pool_with_argmax(x, (2, 2), (2, 2)), (8, 8))",
    ),
    Row("F.avg_pool2d(x, 2)", "jaxcnnbp.avg_pool(x, (2, 2), (2, 2))"),
    Row(
        "F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)",
        "jaxcnnbp.avg_pool(x, (3, 3), (2, 2), 1, count_include_pad=False)",
    ),
    Row(
        "F.avg_pool2d(x, 3, stride=2, ceil_mode=True)",
        "jaxcnnbp.avg_pool(x, (3, 3), (2, 2), ceil_mode=True)",
    ),
    Row("F.lp_pool2d(x, 2, 2)", "jaxcnnbp.lp_pool(x, 2, (2, 2))", None, "", positive=True),
    Row("F.adaptive_avg_pool2d(x, 3)", "jaxcnnbp.adaptive_avg_pool(x, (3, 3))"),
    Row("F.adaptive_max_pool2d(x, 3)", "jaxcnnbp.adaptive_max_pool(x, (3, 3))"),
    Row(
        "F.fractional_max_pool2d(x, 2, output_size=5, _random_samples=torch.full((2, 4, 2), 0.3))",
        "jaxcnnbp.fractional_max_pool(x, (2, 2), 5, samples=jnp.full((2, 4, 2), 0.3))",
        None,
        "Without samples give a `key`.",
    ),
    Row("F.interpolate(x, scale_factor=2)", "jaxcnnbp.upsample(x, (2, 2))"),
    Row("F.relu(x)", "jaxcnnbp.relu(x)"),
    Row("F.leaky_relu(x, 0.1)", "jaxcnnbp.leaky_relu(x, 0.1)"),
    Row("F.gelu(x, approximate='tanh')", "jaxcnnbp.gelu(x)", None, "As JAX, the approximation by tanh."),
    Row("F.silu(x)", "jaxcnnbp.silu(x)"),
    Row("torch.sigmoid(x)", "jaxcnnbp.logistic(x)"),
    Row("torch.tanh(x)", "jaxcnnbp.tanh(x)"),
)

# Flax has this package's layout.
FLAX = (
    Row(
        "linen.Conv(6, (3, 3), use_bias=False).apply({'params': {'kernel': k}}, x)",
        "jaxcnnbp.correlate(x, k, padding='SAME')",
        (3, 3, 4, 6),
    ),
    Row(
        "linen.Conv(6, (3, 3), use_bias=False).apply({'params': {'kernel': k}}, x)",
        "linen.Conv(6, (3, 3), use_bias=False, conv_general_dilated=jaxcnnbp.conv_general_dilated)"
        ".apply({'params': {'kernel': k}}, x)",
        (3, 3, 4, 6),
        "The layer stays, its convolution is this package's.",
    ),
    Row(
        "linen.ConvTranspose(6, (3, 3), (2, 2), use_bias=False).apply({'params': {'kernel': k}}, x)",
        "jaxcnnbp.conv_transpose(x, k, (2, 2), 'SAME')",
        (3, 3, 4, 6),
    ),
    Row("linen.max_pool(x, (2, 2), (2, 2))", "jaxcnnbp.max_pool(x, (2, 2), (2, 2))"),
    Row("linen.pooling.min_pool(x, (3, 3), padding='SAME')", "jaxcnnbp.min_pool(x, (3, 3), padding='SAME')"),
    Row("linen.avg_pool(x, (3, 3), (2, 2), 'SAME')", "jaxcnnbp.avg_pool(x, (3, 3), (2, 2), 'SAME')"),
    Row(
        "linen.avg_pool(x, (3, 3), (2, 2), 'SAME', count_include_pad=False)",
        "jaxcnnbp.avg_pool(x, (3, 3), (2, 2), 'SAME', count_include_pad=False)",
    ),
    Row("nnx.max_pool(x, (2, 2), (2, 2))", "jaxcnnbp.max_pool(x, (2, 2), (2, 2))"),
    Row("nnx.avg_pool(x, (2, 2), (2, 2))", "jaxcnnbp.avg_pool(x, (2, 2), (2, 2))"),
)

# Equinox takes one image, channels first; `jax.vmap` makes the batch.
EQUINOX = (
    Row("jax.vmap(eqx.nn.MaxPool2d(2, 2))(x)", "jaxcnnbp.max_pool(x, (2, 2), (2, 2))"),
    Row("jax.vmap(eqx.nn.MaxPool2d(3, 2, padding=1))(x)", "jaxcnnbp.max_pool(x, (3, 3), (2, 2), 1)"),
    Row("jax.vmap(eqx.nn.AvgPool2d(2, 2))(x)", "jaxcnnbp.avg_pool(x, (2, 2), (2, 2))"),
    Row("jax.vmap(eqx.nn.AdaptiveAvgPool2d(4))(x)", "jaxcnnbp.adaptive_avg_pool(x, (4, 4))"),
    Row("jax.vmap(eqx.nn.AdaptiveMaxPool2d(4))(x)", "jaxcnnbp.adaptive_max_pool(x, (4, 4))"),
    Row(
        "jax.vmap(conv2d(w, stride=2, padding=1))(x)",
        "jaxcnnbp.correlate(x, k, stride=2, padding=1)",
        (3, 3, 4, 6),
        "`conv2d` is an `eqx.nn.Conv2d` with the weight `w`, (out, in, *window).",
    ),
)

LIBRARIES = {"torch": TORCH, "flax": FLAX, "equinox": EQUINOX}
