"""Training of the shipped models: `train(Options(...))`, and `jaxcnnbp train` on the command line."""

from jaxcnnbp.train.data import Data, Split, load, read_idx
from jaxcnnbp.train.errors import DataError, Diverged, InputError
from jaxcnnbp.train.loop import Result, train
from jaxcnnbp.train.options import Options
from jaxcnnbp.train.recipes import RECIPES
from jaxcnnbp.train.save import load_params, save_params
from jaxcnnbp.train.step import Program, TrainState, initial_state, make_step, train_step
from jaxcnnbp.train.watch import JsonLines, Lines, Watch

__all__ = [
    "RECIPES",
    "Data",
    "DataError",
    "Diverged",
    "InputError",
    "JsonLines",
    "Lines",
    "Options",
    "Program",
    "Result",
    "Split",
    "TrainState",
    "Watch",
    "initial_state",
    "load",
    "load_params",
    "make_step",
    "read_idx",
    "save_params",
    "train",
    "train_step",
]
