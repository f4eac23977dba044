"""`conv_block` as the functions that it is made of, for the modes that have no rule of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def block_of(functions: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """`y = pool(f(x * k + b))` by `functions`, one after the other, each under the name of a public function."""

    def conv_block(
        x: Any,
        kernel: Any,
        bias: Any = None,
        *,
        true_convolution: bool = False,
        activation: str | None = "relu",
        activation_argument: float | bool | None = None,
        pool: Any = None,
        pool_strides: Any = None,
        pool_padding: Any = "VALID",
        pool_dilation: Any = None,
        pool_kind: str = "max",
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        **convolution: Any,
    ) -> Any:
        y = functions["convolve" if true_convolution else "correlate"](x, kernel, **convolution)
        y = y if bias is None else functions["add_bias"](y, bias)
        argument = () if activation_argument is None else (activation_argument,)
        y = y if activation is None else functions[activation](y, *argument)
        if pool is None:
            return y
        options: dict[str, Any] = dict(window_dilation=pool_dilation, ceil_mode=ceil_mode)
        if pool_kind == "mean":
            return functions["avg_pool"](y, pool, pool_strides, pool_padding, count_include_pad, **options)
        return functions[f"{pool_kind}_pool"](y, pool, pool_strides, pool_padding, **options)

    return conv_block
