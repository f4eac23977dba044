"""lax's own functions, as they were when this package was imported.

Who swaps the functions of this package in (`jax.lax.conv_general_dilated = jaxcnnbp.conv_general_dilated`) must not
find them calling themselves, so nothing in the package asks `jax.lax` for these again.
"""

from jax.lax import conv as conv
from jax.lax import conv_general_dilated as conv_general_dilated
from jax.lax import conv_transpose as conv_transpose
from jax.lax import conv_with_general_padding as conv_with_general_padding
from jax.lax import reduce_window as reduce_window
