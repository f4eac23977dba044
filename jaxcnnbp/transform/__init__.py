"""The rules of this package carried into functions that nobody has to edit."""

from jaxcnnbp.transform.choice import Choice as Choice
from jaxcnnbp.transform.choice import Choices as Choices
from jaxcnnbp.transform.choice import explain_choice as explain_choice
from jaxcnnbp.transform.explain import Swap as Swap
from jaxcnnbp.transform.explain import Swaps as Swaps
from jaxcnnbp.transform.explain import explain_swaps as explain_swaps
from jaxcnnbp.transform.manual import manual_backward as manual_backward
