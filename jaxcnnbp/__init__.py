"""Convolution and pooling for JAX with backward passes written by hand.

In reading order: `geometry` says where taps fall, `taps` gathers and scatters, `ops` holds one rule a file, `nn` stores
weights and runs the whole algorithm, `transform` carries the rules into other people's models, `audit` compares the
gradients, `train` uses all of it, `explain` shows it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxcnnbp import nn as nn
from jaxcnnbp import reference as _reference  # fills mode("autodiff")
from jaxcnnbp import reference_pools as _reference_pools  # so does this
from jaxcnnbp.modes import import_for as _import_for
from jaxcnnbp.modes import mode as mode
from jaxcnnbp.ops.activation_api import gelu as gelu
from jaxcnnbp.ops.activation_api import identity as identity
from jaxcnnbp.ops.activation_api import leaky_relu as leaky_relu
from jaxcnnbp.ops.activation_api import logistic as logistic
from jaxcnnbp.ops.activation_api import relu as relu
from jaxcnnbp.ops.activation_api import scaled_tanh as scaled_tanh
from jaxcnnbp.ops.activation_api import silu as silu
from jaxcnnbp.ops.activation_api import tanh as tanh
from jaxcnnbp.ops.bouvrie import combination_entropy as combination_entropy
from jaxcnnbp.ops.bouvrie import combine_maps as combine_maps
from jaxcnnbp.ops.bouvrie import subsample as subsample
from jaxcnnbp.ops.conv.api import convolve as convolve
from jaxcnnbp.ops.conv.api import correlate as correlate
from jaxcnnbp.ops.conv.gradients import conv_bias_grad as conv_bias_grad
from jaxcnnbp.ops.conv.gradients import conv_input_grad as conv_input_grad
from jaxcnnbp.ops.conv.gradients import conv_kernel_grad as conv_kernel_grad
from jaxcnnbp.ops.conv.implementations import implementation as implementation
from jaxcnnbp.ops.conv.lax_api import conv as conv
from jaxcnnbp.ops.conv.lax_api import conv_general_dilated as conv_general_dilated
from jaxcnnbp.ops.conv.lax_api import conv_transpose as conv_transpose
from jaxcnnbp.ops.conv.lax_api import conv_with_general_padding as conv_with_general_padding
from jaxcnnbp.ops.conv.tuning import Tuning as Tuning
from jaxcnnbp.ops.conv_block import conv_block as conv_block
from jaxcnnbp.ops.dense import add_bias as add_bias
from jaxcnnbp.ops.dense import dense as dense
from jaxcnnbp.ops.pool.adaptive import adaptive_avg_pool as adaptive_avg_pool
from jaxcnnbp.ops.pool.adaptive import adaptive_max_pool as adaptive_max_pool
from jaxcnnbp.ops.pool.api import avg_pool as avg_pool
from jaxcnnbp.ops.pool.api import max_pool as max_pool
from jaxcnnbp.ops.pool.api import max_pool_with_argmax as max_pool_with_argmax
from jaxcnnbp.ops.pool.api import min_pool as min_pool
from jaxcnnbp.ops.pool.fractional import fractional_max_pool as fractional_max_pool
from jaxcnnbp.ops.pool.lp import lp_pool as lp_pool
from jaxcnnbp.ops.pool.reduce_window import reduce_window as reduce_window
from jaxcnnbp.ops.pool.stochastic import stochastic_pool as stochastic_pool
from jaxcnnbp.ops.pool.unpool import max_unpool as max_unpool
from jaxcnnbp.ops.pool.unpool import upsample as upsample
from jaxcnnbp.ops.processor import compiler_options as compiler_options
from jaxcnnbp.transform import explain_choice as explain_choice
from jaxcnnbp.transform import explain_swaps as explain_swaps
from jaxcnnbp.transform import manual_backward as manual_backward
from jaxcnnbp.tune.autotune import autotune as autotune

if TYPE_CHECKING:
    from jaxcnnbp import explain as explain
    from jaxcnnbp.audit import GradientReport as GradientReport
    from jaxcnnbp.audit import compare_gradients as compare_gradients

__version__ = "0.1.0"

_import_for("oracle", lambda: importlib.import_module("jaxcnnbp.audit.oracle"))

_FROM_AUDIT = ("compare_gradients", "GradientReport")


def __getattr__(name: str) -> Any:
    # Judge and pictures are imported where they are used: a program that only trains does not pay for them.
    if name in _FROM_AUDIT:
        from jaxcnnbp import audit

        return getattr(audit, name)
    if name == "explain":
        return importlib.import_module("jaxcnnbp.explain")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
