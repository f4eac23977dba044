"""The backward pass to look at: pages, pictures and text of one layer, or of a whole trained network, with the
reader's own numbers.
"""

from typing import TYPE_CHECKING, Any

from jaxcnnbp.explain.explanation import Explanation as Explanation
from jaxcnnbp.explain.layers import conv as conv
from jaxcnnbp.explain.layers import conv1d as conv1d
from jaxcnnbp.explain.layers import conv_transpose as conv_transpose
from jaxcnnbp.explain.layers import max_pool as max_pool
from jaxcnnbp.explain.layers import mean_pool as mean_pool

if TYPE_CHECKING:
    from jaxcnnbp.explain.walk import Walk as Walk
    from jaxcnnbp.explain.walk import model as model

_FROM_WALK = ("Walk", "model")


def __getattr__(name: str) -> Any:
    # A single layer needs no training code.
    if name in _FROM_WALK:
        from jaxcnnbp.explain import walk

        return getattr(walk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
