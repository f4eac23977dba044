"""Which device holds what: images by rows of the batch and by bands of height, parameters whole or in parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxcnnbp.errors import InputError
from jaxcnnbp.train.data.split import Batch
from jaxcnnbp.train.options import Run

DATA, HEIGHT = "data", "height"  # the axes of the mesh


@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices as a mesh of (images, bands of their height), and how parameters lie on it."""

    mesh: Mesh | None = None  # the devices; None is one device without a mesh
    shard_params: bool = False  # whether parameters, averages and optimizer states are kept in parts
    augmented: bool = False  # whether images change before they are cut into bands: their pixels come from anywhere

    @property
    def data(self) -> int:
        """Devices along the batch."""
        return 1 if self.mesh is None else self.mesh.shape[DATA]

    @property
    def height(self) -> int:
        """Devices along the height of an image."""
        return 1 if self.mesh is None else self.mesh.shape[HEIGHT]

    def rows(self, count: int) -> int:
        """Rows of a batch of `count` images once it is filled up to a multiple of the devices."""
        return -(-count // self.data) * self.data

    def own_rows(self, rows: int) -> tuple[int, int]:
        """The first of the rows that this process holds, and the one after the last."""
        if self.mesh is None:
            return 0, rows
        spans = NamedSharding(self.mesh, PartitionSpec(DATA)).addressable_devices_indices_map((rows,)).values()
        bounds = [span[0].indices(rows)[:2] for span in spans if span]
        return min(start for start, _ in bounds), max(stop for _, stop in bounds)

    def split_axis(self, shape: tuple[int, ...]) -> int | None:
        """The axis along which parameters are kept in parts: the longest that divides, the last of equals."""
        if not self.shard_params:
            return None
        fitting = [axis for axis, n in enumerate(shape) if n and n % self.data == 0]
        return max(fitting, key=lambda axis: (shape[axis], axis), default=None)

    def spec(self, leaf: Any) -> PartitionSpec:
        """How an array of the state lies on the mesh; a random key is whole everywhere, whatever its length."""
        axis = None if is_key(leaf) else self.split_axis(leaf.shape)
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, DATA)

    def sharding(self, leaf: Any) -> Sharding:
        """`spec` with its devices."""
        if self.mesh is None:
            return SingleDeviceSharding(jax.devices()[0])
        return NamedSharding(self.mesh, self.spec(leaf))

    def place(self, tree: Any) -> Any:
        """Arrays that every process holds whole, put where they belong."""
        return tree if self.mesh is None else jax.tree.map(self._place_leaf, tree)

    def constrain(self, tree: Any) -> Any:
        """Inside jit: the same places for arrays that were computed."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.sharding(leaf)), tree)

    def put(self, batch: Batch) -> Batch:
        """A batch of which this process gives its rows, as part of the batch that all processes see."""
        if self.mesh is None:
            return jax.device_put(batch)
        rows = NamedSharding(self.mesh, PartitionSpec(DATA))
        images = rows if self.augmented else NamedSharding(self.mesh, PartitionSpec(DATA, HEIGHT))
        return jax.make_array_from_process_local_data(Batch(images, rows, rows, rows, batch.count), batch)

    def cut(self, change: Callable[..., jax.Array], images: jax.Array, *rows: Any) -> jax.Array:
        """Inside jit: `change` of images, device by device, then every device's band of them."""
        if self.mesh is None or not self.augmented:
            return change(images, *rows)

        def on_device(images: jax.Array, *rows: Any) -> jax.Array:
            changed = change(images, *rows)
            band = changed.shape[1] // self.height
            return jax.lax.dynamic_slice_in_dim(changed, jax.lax.axis_index(HEIGHT) * band, band, 1)

        specs = (PartitionSpec(DATA),) * (1 + len(rows))
        return jax.shard_map(
            on_device, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(DATA, HEIGHT), check_vma=False
        )(images, *rows)

    def _place_leaf(self, leaf: Any) -> Any:
        host = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        placed = jax.make_array_from_callback(host.shape, self.sharding(leaf), lambda index: host[index])
        return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(leaf)) if is_key(leaf) else placed


def is_key(leaf: Any) -> bool:
    """Whether an array is one of random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def whole(array: jax.Array) -> np.ndarray:
    """An array on the host, also where this process holds only parts of it; all processes have to ask."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


ONE_DEVICE = Layout()


def make_layout(run: Run, batch: int, height: int, augmented: bool = False) -> Layout:
    """The layout that a run asks for; `height` is that of its images, `augmented` whether they are changed at random.

    Raises:
        InputError: there are not so many devices, or the batch or the images do not divide.
    """
    devices = _devices(run)
    if len(devices) % run.spatial or jax.local_device_count() % run.spatial:
        raise InputError(f"`spatial` (={run.spatial}) must divide the {len(devices)} devices, of each process too.")
    if height % run.spatial:
        raise InputError(f"`spatial` (={run.spatial}) must divide the {height} rows of an image.")
    data = len(devices) // run.spatial
    if batch % data:
        fit = -(-batch // data) * data
        raise InputError(f"`batch` (={batch}) must be divisible by the {data} devices it is spread over; {fit} is.")
    if len(devices) == 1:
        return ONE_DEVICE
    grid = np.array(devices).reshape(data, run.spatial)
    return Layout(
        Mesh(grid, (DATA, HEIGHT), axis_types=(AxisType.Auto,) * 2), run.shard_params, augmented and run.spatial > 1
    )


def _devices(run: Run) -> list[Any]:
    """The first devices of every process, those of a process side by side."""
    wanted, processes = run.devices or jax.device_count(), jax.process_count()
    if wanted > jax.device_count():
        raise InputError(f"`devices` (={wanted}) are not there: JAX finds {jax.device_count()}.")
    if wanted % processes:
        raise InputError(f"`devices` (={wanted}) must be divisible by the {processes} processes.")
    each = wanted // processes
    return [device for process in range(processes) for device in jax.local_devices(process)[:each]]
