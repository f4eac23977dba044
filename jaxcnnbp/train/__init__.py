"""Training of the shipped models: `train(Options(...))`, and `jaxcnnbp train` on the command line."""

from jaxcnnbp.errors import DataError, Diverged, InputError, Lost, SaveFailed, Stopped
from jaxcnnbp.train.batch import Batch, take_batch
from jaxcnnbp.train.data import Data, Split, load, read_idx
from jaxcnnbp.train.lines import JsonLines, Lines
from jaxcnnbp.train.loop import Result, train
from jaxcnnbp.train.options import Options
from jaxcnnbp.train.recipes import RECIPES
from jaxcnnbp.train.run import Run
from jaxcnnbp.train.save import load_params, save_params
from jaxcnnbp.train.step import Program, TrainState, initial_state, make_step, train_step
from jaxcnnbp.train.tensorboard import TensorBoard
from jaxcnnbp.train.watch import Watch

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
