"""A gradient report as a page for somebody who was not there: verdict, sortable tables, error maps, environment.

The rule under judgement has a planted mistake: its input gradient loses the first row.
"""

import tempfile
from pathlib import Path

import jax

import jaxcnnbp


@jax.custom_vjp
def layer(x, kernel):
    return jaxcnnbp.correlate(x, kernel, padding="SAME")


def forward(x, kernel):
    return layer(x, kernel), (x, kernel)


def backward(kept, delta):
    dx, dk = jax.vjp(lambda x, kernel: jaxcnnbp.correlate(x, kernel, padding="SAME"), *kept)[1](delta)
    return dx.at[:, 0].set(0), dk


layer.defvjp(forward, backward)

x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
report = jaxcnnbp.compare_gradients(layer, x, kernel, names=("x", "kernel"), timing=False)

page = Path(tempfile.mkdtemp()) / "report.html"
report.save_html(page, title="A layer that loses a row", command="python examples/22_a_report_to_hand_on.py")
for row in report.rows:
    print(f"{row.name:8}{'right' if row.ok else f'{row.wrong} of {row.maps.manual.size} elements wrong'}")
print(f"{page.stat().st_size // 1000} kB: {page}")
