"""Integers in, integers out: user input is parsed once into a frozen, hashable `Window`."""

from jaxcnnbp.geometry.parse import Padding as Padding
from jaxcnnbp.geometry.parse import parse_padding as parse_padding
from jaxcnnbp.geometry.parse import per_axis as per_axis
from jaxcnnbp.geometry.parse import window_of as window_of
from jaxcnnbp.geometry.window import Window as Window
