"""One self-contained HTML file out of a body, styles, scripts and data; and the same inside a notebook."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

FRAME_HEIGHT = 760


def part(name: str, package: str = "jaxcnnbp.pages") -> str:
    """The text of a file that lies beside the modules of `package`.

    Example:
      >>> part("frame.html").splitlines()[0]
      '<!doctype html>'
    """
    return files(package).joinpath(name).read_text(encoding="utf-8")


def document(
    title: str, body: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), data: Any = None
) -> str:
    """A whole page that fetches nothing.

    Args:
      title: of the page, plain text.
      body: HTML between header and footer.
      styles: CSS after that of the frame.
      scripts: JavaScript after that of the frame, run as one module.
      data: what the scripts find as `readData()`, anything that JSON can hold, and NaN and infinities as words.

    Example:
      >>> "<title>a &lt; b</title>" in document("a < b", "<p>text</p>")
      True
    """
    return Template(part("frame.html")).substitute(
        title=html.escape(title),
        body=body,
        style="\n".join([part("frame.css"), *styles]),
        script="\n".join([part("frame.js"), *scripts]),
        data=json_block(data),
    )


def json_block(data: Any) -> str:
    r"""`data` as JSON that may stand inside a script element.

    Example:
      >>> json_block({"a": [1.5, float("nan")], "b": "</script>"})
      '{"a": [1.5, "NaN"], "b": "\\u003c/script>"}'
    """
    return json.dumps(plain(data), allow_nan=False).replace("<", "\\u003c")


def plain(value: Any) -> Any:
    """`value` in types that JSON has; numbers that are not finite become the words that JavaScript reads as numbers.

    Example:
      >>> plain({"a": (1, float("-inf"))})
      {'a': [1, '-Infinity']}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.item() if isinstance(value, np.generic) else value


def in_frame(page: str, title: str, height: int = FRAME_HEIGHT) -> str:
    """A page as an element of another one, a notebook's: its styles and scripts stay inside.

    Example:
      >>> in_frame("<p>", "a picture", 100)[:40]
      '<iframe title="a picture" srcdoc="&lt;p&'
    """
    inner, name = html.escape(page), html.escape(title)
    style = f"width:100%;height:{height}px;border:1px solid #8886;border-radius:8px"
    return f'<iframe title="{name}" srcdoc="{inner}" style="{style}"></iframe>'
