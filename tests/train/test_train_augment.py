"""Augmentation: what each change does, that none is none, and that a key decides."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnnbp.train.augment import Augment, resample

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    """Four images with two channels, taller than wide."""
    return jax.random.uniform(jax.random.key(0), (4, 9, 7, 2))


@pytest.mark.parametrize("kind", ["none", "shift", "affine"])
def test_zero_strength_changes_no_bit(images: jax.Array, kind: str) -> None:
    np.testing.assert_array_equal(Augment(kind)(KEY, images), images)


@pytest.mark.parametrize("kind", ["shift", "affine"])
def test_key_decides(images: jax.Array, kind: str) -> None:
    augment = jax.jit(lambda key: Augment(kind, shift=2, rotate=10, scale=0.1, shear=0.1)(key, images))
    np.testing.assert_array_equal(augment(KEY), augment(KEY))
    assert not np.array_equal(augment(KEY), augment(jax.random.key(4)))


def test_shift_moves_each_image_by_whole_pixels_within_the_range(images: jax.Array) -> None:
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    shifted = np.asarray(Augment("shift", shift=2)(KEY, images))
    chosen = []
    for image, source in zip(shifted, padded, strict=True):
        windows = {(i, j): source[i : i + 9, j : j + 7] for i in range(5) for j in range(5)}
        chosen.append([offset for offset, window in windows.items() if np.array_equal(image, window)])
    assert all(len(offsets) == 1 for offsets in chosen)
    assert len({offsets[0] for offsets in chosen}) > 1


def test_quarter_turn_equals_rot90() -> None:
    image = jax.random.uniform(KEY, (1, 6, 6, 1))
    turn = jnp.array([[[math.cos(math.pi / 2), 1.0], [-1.0, math.cos(math.pi / 2)]]], jnp.float32)
    turned = resample(image, turn, jnp.zeros((1, 2)))
    np.testing.assert_allclose(turned[0, :, :, 0], np.rot90(image[0, :, :, 0], k=1), atol=1e-6)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = jnp.array([[[[1.0], [3.0], [8.0]]]])
    moved = resample(image, jnp.eye(2)[None], jnp.array([[0.0, 0.5]]))
    np.testing.assert_array_equal(moved[0, 0, :, 0], [2.0, 5.5, 4.0])  # beyond the edge is zero


@pytest.mark.parametrize("offset", [-100.0, -9.0, 7.0, 1e9])
def test_far_outside_is_zero(images: jax.Array, offset: float) -> None:
    moved = resample(images, jnp.tile(jnp.eye(2), (4, 1, 1)), jnp.full((4, 2), offset))
    np.testing.assert_array_equal(moved, jnp.zeros_like(images))


def test_affine_agrees_with_a_loop_over_pixels(images: jax.Array) -> None:
    rng = np.random.default_rng(0)
    matrices = (np.eye(2) + rng.uniform(-0.2, 0.2, (4, 2, 2))).astype(np.float32)
    offsets = rng.uniform(-2, 2, (4, 2)).astype(np.float32)
    expected = np.zeros(images.shape)
    for n, y, x in np.ndindex(4, 9, 7):
        row, column = matrices[n] @ [y - 4, x - 3] + offsets[n] + [4, 3]
        expected[n, y, x] = bilinear(np.asarray(images[n]), row, column)
    moved = resample(images, jnp.asarray(matrices), jnp.asarray(offsets))
    np.testing.assert_allclose(moved, expected, atol=1e-5)  # float32 positions of size 10, slopes up to 1


def bilinear(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """The value between pixels, by the textbook, zero outside."""
    value = np.zeros(image.shape[-1])
    for i, j in np.ndindex(image.shape[:2]):
        value += max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j)) * image[i, j]
    return value


def test_ranges_are_kept_and_used() -> None:
    # A lone dot moves by the shift alone, and its centre of mass tells by how much.
    dots = jnp.zeros((64, 11, 11, 1)).at[:, 5, 5].set(1.0)
    moved = np.asarray(Augment("affine", shift=3.0)(KEY, dots))[..., 0]
    mass = moved.sum((1, 2))
    rows = (moved.sum(2) * np.arange(11)).sum(1) / mass - 5
    np.testing.assert_allclose(mass, 1.0, atol=1e-5)
    assert np.abs(rows).max() <= 3.0 + 1e-4
    assert np.abs(rows).max() > 2.0


def test_type_is_kept(images: jax.Array) -> None:
    for kind in ("shift", "affine"):
        augment = Augment(kind, shift=1, rotate=5)
        assert jax.eval_shape(augment, KEY, images.astype(jnp.bfloat16)).dtype == jnp.bfloat16
