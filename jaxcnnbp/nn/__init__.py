"""Layers over the rules, and `backprop`, the whole algorithm of the document."""

from jaxcnnbp.nn.activations import Activation as Activation
from jaxcnnbp.nn.activations import Gelu as Gelu
from jaxcnnbp.nn.activations import Identity as Identity
from jaxcnnbp.nn.activations import LeakyRelu as LeakyRelu
from jaxcnnbp.nn.activations import Logistic as Logistic
from jaxcnnbp.nn.activations import Relu as Relu
from jaxcnnbp.nn.activations import ScaledTanh as ScaledTanh
from jaxcnnbp.nn.activations import Silu as Silu
from jaxcnnbp.nn.activations import Tanh as Tanh
from jaxcnnbp.nn.backprop import Backprop as Backprop
from jaxcnnbp.nn.backprop import backprop as backprop
from jaxcnnbp.nn.block import ConvBlock as ConvBlock
from jaxcnnbp.nn.bouvrie import CombineMaps as CombineMaps
from jaxcnnbp.nn.bouvrie import Subsample as Subsample
from jaxcnnbp.nn.conv import Conv as Conv
from jaxcnnbp.nn.dense import Dense as Dense
from jaxcnnbp.nn.dense import Flatten as Flatten
from jaxcnnbp.nn.layer import Layer as Layer
from jaxcnnbp.nn.losses import softmax_cross_entropy as softmax_cross_entropy
from jaxcnnbp.nn.losses import squared_error as squared_error
from jaxcnnbp.nn.pool import MaxPool as MaxPool
from jaxcnnbp.nn.pool import MeanPool as MeanPool
from jaxcnnbp.nn.sequential import Sequential as Sequential
