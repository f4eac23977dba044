"""Random changes of training images, on the device, inside the jitted step.

Output pixel `p`, counted from the image's centre, reads the input at `A p + t`, bilinearly, zero outside:

    A = R(rotation) @ [[1, shear], [0, 1]] @ diag(exp(a), exp(b))

with rotation, shear, a, b and both shifts t drawn uniformly and independently for every image. With all
ranges 0 the map is the identity, bit for bit.

Reference: Simard, Steinkraus and Platt, Best Practices for Convolutional Neural Networks, ICDAR 2003.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augment:
    """Ranges of the random change; calling it changes a batch.

    Args:
        kind: `"none"`, `"shift"` (whole pixels) or `"affine"`.
        shift: largest shift in pixels.
        rotate: largest rotation in degrees.
        scale: largest log of the magnification along an axis.
        shear: largest shear, in pixels a row.

    Example:
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> Augment("shift", shift=2)(jax.random.key(0), images).shape
        (2, 8, 8, 1)
    """

    kind: str = "none"
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0

    def __call__(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Change every image of `(n, height, width, channels)` in its own way, drawn from `key`."""
        return self.change(images, self.draw(key, len(images), images.dtype))

    def draw(self, key: jax.Array, count: int, dtype: Any = jnp.float32) -> tuple[jax.Array, ...]:
        """Draw the changes of `count` images, apart from them: who holds a part of a batch draws for all of it."""
        if self.kind == "none":
            return ()
        if self.kind == "shift":
            return draw_shifts(key, count, int(self.shift), dtype)
        return affine_matrices(key, count, self)

    def change(self, images: jax.Array, drawn: tuple[jax.Array, ...]) -> jax.Array:
        """Change every image by what was drawn for it."""
        return resample(images, *drawn) if drawn else images


def draw_shifts(key: jax.Array, count: int, largest: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Whole shifts `(count, 2)`, at most `largest` along either axis, behind the identity `(count, 2, 2)`."""
    offsets = jax.random.randint(key, (count, 2), -largest, largest + 1)
    eye = jnp.broadcast_to(jnp.eye(2, dtype=dtype), (count, 2, 2))
    return eye, offsets.astype(dtype)


@functools.partial(jax.jit, static_argnames=("count", "ranges"), inline=True)
def affine_matrices(key: jax.Array, count: int, ranges: Augment) -> tuple[jax.Array, jax.Array]:
    """Draw `A` `(count, 2, 2)` and `t` `(count, 2)` of the module's formula, in the order (y, x).

    Example:
        >>> matrices, offsets = affine_matrices(jax.random.key(0), 3, Augment("affine"))
        >>> bool((matrices == jnp.eye(2)[None]).all()), bool((offsets == 0).all())
        (True, True)
    """
    unit = jax.random.uniform(key, (6, count), jnp.float32, -1.0, 1.0)
    angle, shear = unit[0] * math.radians(ranges.rotate), unit[1] * ranges.shear
    tall, wide = jnp.exp(unit[2] * ranges.scale), jnp.exp(unit[3] * ranges.scale)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = [[(cos + sin * shear) * tall, sin * wide], [(cos * shear - sin) * tall, cos * wide]]
    matrices = jnp.moveaxis(jnp.array(rows), -1, 0)
    return matrices, unit[4:].T * ranges.shift


@functools.partial(jax.jit, inline=True)  # one program where it is called alone
def resample(images: jax.Array, matrices: jax.Array, offsets: jax.Array) -> jax.Array:
    """Read every image `(n, height, width, channels)` at `A p + t` by bilinear interpolation, zero outside.

    Example:
        >>> image = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> resample(image, jnp.eye(2)[None], jnp.array([[0.0, 1.0]]))[0, :, :, 0]
        Array([[1., 0.],
               [3., 0.]], dtype=float32)
    """
    count, height, width, channels = images.shape
    y, x = _positions(height, width, matrices.astype(jnp.float32), offsets.astype(jnp.float32))
    top, down = _cell(y, height)
    left, right = _cell(x, width)
    # One ring of zeros around the image: every position outside it is clipped into the ring.
    bordered = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(count, -1, channels)
    corner = top * (width + 2) + left

    def pixels(step: int) -> jax.Array:
        return jnp.take_along_axis(bordered, (corner + step)[..., None], axis=1, mode="promise_in_bounds")

    upper = _mix(right, pixels(0), pixels(1))
    lower = _mix(right, pixels(width + 2), pixels(width + 3))
    return _mix(down, upper, lower).reshape(images.shape)


def _positions(height: int, width: int, matrices: jax.Array, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where each output pixel reads, in pixels of the input: `(n, height * width)` for y and for x."""
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    grid = grid.reshape(-1, 2).astype(jnp.float32) - centre[None]
    # Written out, not as a matmul: accelerators multiply matrices in a shorter format by default.
    y, x = (
        matrices[:, axis, 0, None] * grid[None, :, 0]
        + matrices[:, axis, 1, None] * grid[None, :, 1]
        + (offsets[:, axis] + centre[axis])[:, None]
        for axis in (0, 1)
    )
    return y, x


def _cell(position: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The bordered cell that holds `position`, and the share of the next cell."""
    position = jnp.clip(position + 1.0, 0.0, size + 1.0)
    cell = jnp.minimum(jnp.floor(position), float(size))
    return cell.astype(jnp.int32), position - cell


def _mix(share: jax.Array, here: jax.Array, there: jax.Array) -> jax.Array:
    share = share[..., None].astype(here.dtype)
    return (1 - share) * here + share * there
