"""The networks are the same in every framework, and those of the papers."""

import jax
import jax.numpy as jnp
import pytest
from marks import slow_but

from jaxcnnbp.bench import NETWORKS
from jaxcnnbp.bench.own_models import own_model

NAMES = [network.name for network in NETWORKS]
# Worked out from the papers' tables, with ten classes (two for the U-Net); batch normalisation has two a channel.
PARAMETERS = {"lenet-5": 61_706, "resnet-18": 11_181_642, "mobilenet": 3_217_226}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def flax_variables(network):
    linen = pytest.importorskip("jaxcnnbp.bench.flax_models")
    images = jax.ShapeDtypeStruct(network.shape, jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        return jax.eval_shape(linen.FlaxModel(network.layers).init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize("network", slow_but(NETWORKS[:1], NETWORKS, lambda network: network.name))
def test_frameworks_build_the_same_network(network):
    outputs, variables = flax_variables(network)
    assert outputs.shape[0] == network.shape[0]
    assert PARAMETERS.get(network.name, count(variables["params"])) == count(variables["params"])
    own = own_model(network)
    if own is not None:
        assert count(own.init(jax.random.key(0), network.shape)) == count(variables["params"])


@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_torch_builds_the_same_network(network):
    torch = pytest.importorskip("torch")
    from jaxcnnbp.bench.torch_models import _build

    outputs, variables = flax_variables(network)
    forward, shape, modules = _build(network.layers, (network.shape[3], *network.shape[1:3]))
    assert sum(p.numel() for m in modules for p in m.parameters()) == count(variables["params"])
    images = torch.zeros(2, network.shape[3], *network.shape[1:3])
    assert tuple(forward(images).shape) == (2, *shape)
    assert (shape[-1:] if len(shape) == 1 else (*shape[1:], shape[0])) == outputs.shape[1:]
