"""Activation layers: delta = f'(u) o delta_next."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from jaxcnnbp.nn.layer import Backward, Params, Stateless
from jaxcnnbp.ops import activation_api
from jaxcnnbp.ops.activation import rule_named


@dataclass(frozen=True)
class Activation(Stateless):
    """An activation of this package, by name.

    Attributes:
      name: `"identity"`, `"logistic"`, `"tanh"`, `"scaled_tanh"`, `"relu"`, `"leaky_relu"`, `"gelu"` or `"silu"`.
      argument: the function's second argument, if it has one: the slope of leaky relu, whether gelu is approximate.

    Raises:
      ValueError: for a name that is none of these.

    Example:
      >>> import jax.numpy as jnp
      >>> Activation("relu").apply({}, jnp.array([-1., 2.]))
      Array([0., 2.], dtype=float32)

    Source: Bouvrie (2006), section 2.
    """

    name: str
    argument: float | bool | None = None

    def __post_init__(self) -> None:
        rule_named(self.name, self.argument)

    @property
    def kind(self) -> str:
        """What `Sequential` calls the layer."""
        return self.name

    def apply(self, params: Params, x: Array) -> Array:
        """f(x)."""
        del params
        function = getattr(activation_api, self.name)
        return function(x) if self.argument is None else function(x, self.argument)

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        """f(x), and what f' is written from: the output, or for some the input."""
        del params
        return rule_named(self.name, self.argument).fwd(x)

    def backward(self, params: Params, residuals: Array, delta: Array) -> Backward:
        """f'(u) o delta."""
        del params
        return Backward({}, rule_named(self.name, self.argument).bwd(residuals, delta)[0])


def Identity() -> Activation:
    """f(u) = u."""
    return Activation("identity")


def Logistic() -> Activation:
    """f(u) = 1 / (1 + exp(-u))."""
    return Activation("logistic")


def Tanh() -> Activation:
    """f(u) = tanh(u)."""
    return Activation("tanh")


def ScaledTanh() -> Activation:
    """f(u) = 1.7159 tanh(2u/3)."""
    return Activation("scaled_tanh")


def Relu() -> Activation:
    """f(u) = max(u, 0)."""
    return Activation("relu")


def LeakyRelu(negative_slope: float = 0.01) -> Activation:
    """f(u) = u where u > 0, else negative_slope u."""
    return Activation("leaky_relu", float(negative_slope))


def Gelu(approximate: bool = True) -> Activation:
    """f(u) = u Phi(u), or its tanh approximation."""
    return Activation("gelu", bool(approximate))


def Silu() -> Activation:
    """f(u) = u / (1 + exp(-u))."""
    return Activation("silu")
