"""The judge: are these gradients right, and if not, which element, by how much, and where?"""

from jaxcnnbp.audit.compare import compare_gradients
from jaxcnnbp.audit.report import GradientMismatch, GradientReport

__all__ = ["GradientMismatch", "GradientReport", "compare_gradients"]
