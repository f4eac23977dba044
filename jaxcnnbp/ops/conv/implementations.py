"""`implementation`, which asks for one way to compute convolutions by its name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from jaxcnnbp.errors import InputError
from jaxcnnbp.modes import chosen_implementation
from jaxcnnbp.ops.conv.dispatch import passes


def implementations() -> dict[str, tuple[str, ...]]:
    """The passes that each has something for, by its name."""
    found: dict[str, dict[str, None]] = {}
    for name, of in passes().items():
        for row in of.all:
            found.setdefault(row.name, {})[name] = None
    return {name: tuple(of) for name, of in found.items()}


def implementation(name: str | None) -> AbstractContextManager[Any]:
    """A context in which one implementation computes the convolutions, in the backward passes of its calls too.

    It is a JAX user context, as `mode` is: functions that were compiled under another implementation are traced again,
    and compiled ones are kept apart. `explain_choice` lists which implementations a convolution has.

    A pass for which an implementation has no form at all, such as the forward pass for `"pairs"`, is computed as by
    default. Pools have one implementation, which is their reference: no name changes them. `"pallas"` has
    no derivative of a derivative.

    Args:
      name: None for the default, that which was measured to be fast; `"reference"` for the rule's own formula, the taps
        of `ops.conv.forms`; `"xla"` for lax's own convolution in all three passes; or one of those that are made for
        some convolutions: `"eigen"` (lax's, laid out so that XLA takes its other convolution), `"winograd"`,
        `"winograd_4x4"` (by tiles of as many outputs), `"patches"` (im2col), `"columns"`, `"long_rows"`, `"direct"`,
        `"shifts"`, `"padding"`, `"rows"`, `"tap_rows"`, `"depth_to_space"`, `"transposed"`, `"slices"`, `"pairs"`,
        `"products"`, `"each_group"`, `"merged"`, `"in_turn"`, `"side_by_side"`, `"tap_groups"`,
        `"patches_of_delta"`;
        on GPUs alone `"pallas"` and `"strided"`.

    Returns:
      The context manager.

    Raises:
      ValueError: if there is no such implementation; from a convolution in the context, if it has forms for a pass, but
        none that supports this convolution. The message lists those that do.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcnnbp import correlate
      >>> with implementation("reference"):
      ...     jax.grad(lambda k: correlate(jnp.array([[[1.], [4.], [2.]]]), k).sum())(jnp.ones((2, 1, 1))).ravel()
      Array([5., 6.], dtype=float32)

    Source: `ops.conv.dispatch`, which lists them; the argument is tokamax's.
    """
    known = implementations()
    if name is not None and name not in known:
        raise InputError(
            f"`implementation` (={name!r}) is unknown; use one of {', '.join(map(repr, sorted(known)))}, or None."
        )
    return chosen_implementation(name)
