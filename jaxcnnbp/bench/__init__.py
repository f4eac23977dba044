"""The bench: layers and training steps by this package, by JAX's autodiff and by PyTorch, side by side."""

from jaxcnnbp.bench.cases import CASES, PASSES, Case, select
from jaxcnnbp.bench.markdown import markdown
from jaxcnnbp.bench.measure import Comparison, measure
from jaxcnnbp.bench.networks import NETWORKS, Network
from jaxcnnbp.bench.results import Results, Row, load, save
from jaxcnnbp.bench.run import run
from jaxcnnbp.bench.self_check import SelfCheck, check_instrument
from jaxcnnbp.bench.settings import DTYPES, Settings
from jaxcnnbp.timing import Clock, Plan, Timing, side_by_side

__all__ = [
    "CASES",
    "DTYPES",
    "NETWORKS",
    "PASSES",
    "Case",
    "Clock",
    "Comparison",
    "Network",
    "Plan",
    "Results",
    "Row",
    "SelfCheck",
    "Settings",
    "Timing",
    "check_instrument",
    "load",
    "markdown",
    "measure",
    "run",
    "save",
    "select",
    "side_by_side",
]
