"""An oracle for every public operation: NumPy, float64, index arithmetic from the definition.

Importing this package fills `jaxcnnbp.modes.alternatives["oracle"]`. It shares no code with `jaxcnnbp.ops`,
`jaxcnnbp.geometry` or `jaxcnnbp.taps`, not even the parsing of padding words, so that one mistake cannot hide in both.
"""

from jaxcnnbp.audit.oracle import activations, chance, convolution, layers, pooling
from jaxcnnbp.audit.oracle.rule import Rule, oracle_p, widened

__all__ = ["Rule", "activations", "chance", "convolution", "layers", "oracle_p", "pooling", "widened"]
