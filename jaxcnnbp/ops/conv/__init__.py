"""The convolution: `rule` is the formula and its `jax.custom_vjp`, `dispatch` says which implementation runs."""
