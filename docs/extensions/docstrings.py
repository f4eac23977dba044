"""Docstrings are written for terminals; here the few signs are set right that reStructuredText reads otherwise."""

import re


def prepare(app, what, name, obj, options, lines):
    """$..$ are formulas, a bar is a bar, and what is in backticks stays as it is."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", "\n".join(lines))
    lines[:] = "".join(part if part.startswith("`") else _outside(part) for part in parts).splitlines()


def _outside(text):
    text = re.sub(r"\$([^$\n]+)\$", r":math:`\1`", text)
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def setup(app):
    # Before napoleon, which turns sections into fields.
    app.connect("autodoc-process-docstring", prepare, priority=400)
    return {"parallel_read_safe": True}
