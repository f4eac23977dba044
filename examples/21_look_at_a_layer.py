"""One layer with numbers of your own: which cells meet, the sums that they make, and a page to point at.

Run in a notebook, the last expression of a cell shows the page itself.
"""

import tempfile
from pathlib import Path

from jaxcnnbp import explain

image = [[0, 0, 1, 2, 0],
         [0, 3, 4, 1, 0],
         [1, 5, 2, 0, 0],
         [0, 4, 4, 3, 1],
         [0, 0, 1, 2, 0]]  # fmt: skip
edges = [[1, 0, -1],
         [2, 0, -2],
         [1, 0, -1]]  # fmt: skip

layer = explain.conv(image, edges, stride=2, padding=1, select={"dk": (0, 2), "dx": (2, 2)})
print(layer)

pool = explain.max_pool(image, 2, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], ceil_mode=True)
print(f"\n{pool}")

folder = Path(tempfile.mkdtemp())
layer.save_html(folder / "layer.html")
print(f"\nThe same to point at, {(folder / 'layer.html').stat().st_size // 1000} kB: {folder / 'layer.html'}")
