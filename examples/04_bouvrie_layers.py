"""Two layers of Bouvrie's notes: sub-sampling with a trained gain, and the learned combination of maps.

sub-sampling   u = beta down(x) + b                  dbeta = sum(delta o down(x)),   dx = beta up(delta)
combination    u = sum_i alpha_i (x_i * k_i) + b     alpha = softmax(c)
                                                     dc_i = alpha_i (dalpha_i - sum_k dalpha_k alpha_k)
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcnnbp


def show(name, array):
    print(f"  {name:<34}{np.array2string(np.asarray(array).ravel(), precision=4, suppress_small=True)}")


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def sub_sampling():
    print("Sub-sampling: x = [1 2 3 4], blocks of two, beta = 0.5, b = 1, delta = [10 -1]")
    x, delta = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1), jnp.array([10.0, -1.0]).reshape(1, 2, 1)
    beta, bias = jnp.array([0.5]), jnp.array([1.0])
    u, pull_back = jax.vjp(lambda x, beta, bias: jaxcnnbp.subsample(x, beta, bias, (2,)), x, beta, bias)
    dx, dbeta, dbias = pull_back(delta)
    show("u = beta down(x) + b", u)
    show("dbeta", dbeta)
    show("  sum(delta o down(x)) on paper", 10 * (1 + 2) - 1 * (3 + 4))
    show("db = sum(delta)", dbias)
    show("dx = beta up(delta)", dx)


def combination_by_paper(x, kernel, logits, delta):
    """dc_i = alpha_i (dalpha_i - sum_k dalpha_k alpha_k), with dalpha_i = sum(delta o (x_i * k_i))."""
    alpha = jax.nn.softmax(logits, axis=0)[:, 0]
    each = [jaxcnnbp.convolve(x[..., i : i + 1], kernel[:, :, i : i + 1]) for i in range(len(alpha))]
    dalpha = jnp.array([jnp.vdot(delta, u) for u in each])
    return alpha * (dalpha - jnp.vdot(dalpha, alpha))


def combination():
    print("\nCombination of three maps into one, all alpha 1/3 at first")
    x, kernel, delta = normal(0, (1, 6, 6, 3)), normal(1, (3, 3, 3, 1)), normal(2, (1, 4, 4, 1))
    logits = jnp.zeros((3, 1))

    def u(logits):
        return jaxcnnbp.combine_maps(x, kernel, logits, jnp.zeros(1))

    show("dc, the rule of the package", jax.vjp(u, logits)[1](delta)[0])
    show("dc, the formula above", combination_by_paper(x, kernel, logits, delta))
    with jaxcnnbp.mode("autodiff"):
        show("dc, JAX's autodiff", jax.vjp(u, logits)[1](delta)[0])


def penalties():
    print("\nA penalty for sparsity: the L1 norm of alpha is 1 everywhere and says nothing; the entropy does")
    logits = jnp.array([[1.0], [0.5], [-1.0]])
    show("gradient of sum |alpha|", jax.grad(lambda c: jnp.abs(jax.nn.softmax(c, axis=0)).sum())(logits))
    show("gradient of the entropy", jax.grad(jaxcnnbp.combination_entropy)(logits))


def which_map():
    """The target is made from map 1 alone: descent has to find that out."""
    print("\nLearning which map to listen to: the target was made from the second of three maps")
    x, kernel = normal(3, (8, 6, 6, 3)), normal(4, (3, 3, 3, 1))
    target = jaxcnnbp.convolve(x[..., 1:2], kernel[:, :, 1:2])

    def energy(logits):
        error = jaxcnnbp.combine_maps(x, kernel, logits, jnp.zeros(1)) - target
        return jnp.mean(error**2) + 0.1 * jaxcnnbp.combination_entropy(logits)

    optimizer, logits = optax.adam(0.2), jnp.zeros((3, 1))
    state, slope = optimizer.init(logits), jax.jit(jax.grad(energy))
    for step in range(61):
        if step % 20 == 0:
            show(f"step {step:>2}: alpha", jax.nn.softmax(logits, axis=0))
        updates, state = optimizer.update(slope(logits), state)
        logits = optax.apply_updates(logits, updates)


sub_sampling()
combination()
penalties()
which_map()
