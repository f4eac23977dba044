"""What all epochs of a run share: options, data, compiled functions, devices, checkpoints, watchers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence

import jax

from jaxcnnbp.errors import InputError, SaveFailed
from jaxcnnbp.train.checkpoints.identity import identity_of
from jaxcnnbp.train.checkpoints.store import Checkpoints
from jaxcnnbp.train.data.split import Batch, Data, Images
from jaxcnnbp.train.evaluate import make_score
from jaxcnnbp.train.feed import batches, feed
from jaxcnnbp.train.layout import Layout, make_layout
from jaxcnnbp.train.optimizer import Extension, extended_schedule, make_optimizer, make_schedule
from jaxcnnbp.train.options import Options, Run
from jaxcnnbp.train.processes import is_lost
from jaxcnnbp.train.profile import Profiler
from jaxcnnbp.train.program import Program, build_program, choose_model, steps_per_epoch
from jaxcnnbp.train.run_state import RunState
from jaxcnnbp.train.step import TrainState, initial_state, make_step
from jaxcnnbp.train.watch.events import Beginning, Watch


@dataclasses.dataclass(frozen=True)
class Job:
    """What all epochs of a run share."""

    options: Options  # what is trained
    run: Run  # how it is carried out
    data: Data  # on the host
    model: str  # name of the shipped one
    program: Program
    layout: Layout
    watch: Watch
    step: Callable  # jitted
    score: Callable  # the jitted test of a batch
    rate: Callable  # the learning rate by step
    checkpoints: Checkpoints | None
    profiler: Profiler
    stop: Callable[[], bool]  # whether this process was asked to
    alive: Callable[[], None]  # called whenever the devices have answered

    @property
    def images(self) -> int:
        """Training images."""
        return len(self.data.train.labels)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return steps_per_epoch(self.options, self.data)

    @property
    def several(self) -> bool:
        """Whether more processes than this one take part."""
        return jax.process_count() > 1

    def extended(self, extensions: Sequence[Extension]) -> Job:
        """The same job with the rate of a run whose number of epochs was changed."""
        if not extensions:
            return self
        rate = extended_schedule(self.options, self.steps, extensions)
        optimizer = make_optimizer(self.options, self.options.epochs * self.steps, rate)
        program = dataclasses.replace(self.program, optimizer=optimizer)
        step = make_step(program, self.layout, self.run.deterministic)
        return dataclasses.replace(self, program=program, rate=rate, step=step)

    def first_state(self) -> TrainState:
        """The state before the first step, where it belongs."""
        shape = (self.options.batch, *self.data.train.images.shape[1:])
        return self.layout.place(initial_state(self.program, self.options.seed, shape))

    def fed(self, run_state: RunState, stop: Callable[[], bool]) -> Generator[Batch]:
        """The batches of the epoch that are left, on the devices; several processes send `stop()` along with them."""
        order = batches(self.options.seed, run_state.epoch, self.images, self.options.batch)
        left = itertools.islice(order, run_state.batches, None)
        return feed(self.data.train, left, self.layout, stop if self.several else None)

    def due(self, step: int, at_end: bool) -> bool:
        """Whether a checkpoint is due after a step; `at_end` after the last of an epoch and its test."""
        every = self.run.checkpoint_every
        if self.checkpoints is None:
            return False
        if step == self.options.epochs * self.steps:
            return at_end
        return at_end if every == 0 else step % every == 0 and at_end == (step % self.steps == 0)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Finish what is being written; not where processes have lost each other, as Orbax would wait for them."""
        lost = False
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError, SaveFailed) as error:
            lost = self.several and (isinstance(error, SaveFailed) or is_lost(error))
            raise
        finally:
            if self.checkpoints is not None and not lost:
                self.checkpoints.close()

    @functools.cached_property
    def lazy(self) -> tuple[Images, ...]:
        """The images that are read when they are asked for; found once, as asking an array takes 12 us."""
        splits = filter(None, (self.data.train, self.data.validation, self.data.test))
        return tuple(split.images for split in splits if isinstance(split.images, Images))

    def tell_faults(self) -> None:
        """Pass on what reading images has come upon."""
        for images in self.lazy:
            for fault in images.faults():
                self.watch.note(fault)

    def beginning(self, run_state: RunState, state: TrainState) -> Beginning:
        """What watchers are told before the first step."""
        data, layout = self.data, self.layout
        return Beginning(
            self.options,
            self.model,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            data=data.name,
            train_images=self.images,
            test_images=len(data.test.labels),
            image_shape=data.train.images.shape[1:],
            devices=layout.data * layout.height,
            step=run_state.step,
            history=tuple(run_state.history),
            validation_images=0 if data.validation is None else len(data.validation.labels),
            extensions=tuple(run_state.extensions),
        )


def prepare(
    options: Options, run: Run, data: Data, watch: Watch, stop: Callable[[], bool], alive: Callable[[], None]
) -> Job:
    """Everything that is made once.

    Raises:
        InputError: options, data, devices or checkpoints that do not fit together.
    """
    if options.patience and data.validation is None:
        fault = f"`patience` (={options.patience}) needs images that are neither trained on nor tested"
        raise InputError(f"{fault}; --validation 0.1 holds some out.")
    model, _ = choose_model(options, data.train.images.shape[1:])
    program = build_program(options, data)
    layout = make_layout(run, options.batch, data.train.images.shape[1], options.augment != "none")
    rate = make_schedule(options, options.epochs * steps_per_epoch(options, data))
    step, score = (make(program, layout, run.deterministic) for make in (make_step, make_score))
    checkpoints = None
    if run.checkpoints is not None:
        identity = identity_of(options, data, layout.data, layout.height, watch.note, run.extend)
        checkpoints = Checkpoints(run.checkpoints, run.keep, layout, identity, watch.note)
    profiler = Profiler(run.profile if jax.process_index() == 0 else None)
    return Job(options, run, data, model, program, layout, watch, step, score, rate, checkpoints, profiler, stop, alive)
