"""A small WaveNet in Haiku: causal convolutions along time, each twice as dilated as the one before."""

import haiku as hk
import jax
import jax.numpy as jnp

from jaxcnnbp.transform import explain_swaps, manual_backward

jax.config.update("jax_enable_x64", True)  # so that what differs is a rule, not rounding
DILATIONS = (1, 2, 4, 8)


def wavenet(signal):
    """`(batch, time, 1)` -> a prediction of the next sample at every time."""
    x = hk.Conv1D(8, 2, padding=hk.pad.causal)(signal)
    skipped = 0.0
    for dilation in DILATIONS:
        filtered, gate = (hk.Conv1D(8, 2, rate=dilation, padding=hk.pad.causal)(x) for _ in range(2))
        gated = jnp.tanh(filtered) * jax.nn.sigmoid(gate)
        skipped = skipped + hk.Conv1D(8, 1)(gated)
        x = x + hk.Conv1D(8, 1)(gated)
    return hk.Conv1D(1, 1)(jax.nn.relu(skipped))


model = hk.without_apply_rng(hk.transform(wavenet))
time = jnp.arange(64.0)[None, :, None]
signal = jnp.concatenate([jnp.sin(time / 3), jnp.cos(time / 5)])
params = model.init(jax.random.key(0), signal)


def loss(params):
    return jnp.mean((model.apply(params, signal)[:, :-1] - signal[:, 1:]) ** 2)


print(explain_swaps(loss)(params))
before, after = (jax.jit(jax.grad(function))(params) for function in (loss, manual_backward(loss)))
scale = max(jnp.abs(g).max() for g in jax.tree.leaves(before))  # the last residual feeds nothing: its gradient is zero
gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / scale, after, before)
print(f"largest relative difference of {len(jax.tree.leaves(gaps))} gradients: {max(jax.tree.leaves(gaps)):.0e}")
