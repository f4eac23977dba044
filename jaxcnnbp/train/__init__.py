"""Training of the shipped models: `train(Options(...))`, and `jaxcnnbp train` on the command line."""

from jaxcnnbp.errors import DataError, Diverged, InputError, Lost, SaveFailed, Stopped
from jaxcnnbp.train.checkpoints.npz import load_params, save_params
from jaxcnnbp.train.data import load
from jaxcnnbp.train.data.mnist import read_idx
from jaxcnnbp.train.data.split import Batch, Data, Split, take_batch
from jaxcnnbp.train.loop import Result, train
from jaxcnnbp.train.options import RECIPES, Options, Run
from jaxcnnbp.train.program import Program
from jaxcnnbp.train.step import TrainState, initial_state, make_step, train_step
from jaxcnnbp.train.watch.events import Watch
from jaxcnnbp.train.watch.lines import JsonLines, Lines
from jaxcnnbp.train.watch.tensorboard import TensorBoard

__all__ = [
    "RECIPES",
    "Batch",
    "Data",
    "DataError",
    "Diverged",
    "InputError",
    "JsonLines",
    "Lines",
    "Lost",
    "Options",
    "Program",
    "Result",
    "Run",
    "SaveFailed",
    "Split",
    "Stopped",
    "TensorBoard",
    "TrainState",
    "Watch",
    "initial_state",
    "load",
    "load_params",
    "make_step",
    "read_idx",
    "save_params",
    "take_batch",
    "train",
    "train_step",
]
