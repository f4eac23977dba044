"""A formula beside the lines that compute it, which are taken from the package when the site is built.

:::{formula} jaxcnnbp.ops.conv.rule:kernel_grad
$$ dk[t] = \\sum_u p[u, t]\\, \\delta[u] $$
:::
"""

import ast
import importlib
import inspect
import textwrap
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


class Formula(SphinxDirective):
    """What is written, and the source of the function that is named."""

    required_arguments = 1
    has_content = True
    option_spec = {"docstring": directives.flag}  # noqa: RUF012  Sphinx wants it so

    def run(self):
        function = found(self.arguments[0])
        file = Path(inspect.getsourcefile(function))
        self.env.note_dependency(str(file))
        left = nodes.container(classes=["formula-words"])
        left += self.parse_content_to_nodes()
        right = nodes.container(classes=["formula-code"])
        code = nodes.literal_block(text := source_of(function, "docstring" in self.options), text, language="python")
        line = inspect.getsourcelines(function)[1]
        right += [code, nodes.caption("", "", nodes.literal("", f"{file.relative_to(ROOT)}:{line}"))]
        return [nodes.container("", left, right, classes=["formula"])]


def found(name):
    """`package.module:Class.function`."""
    module, _, path = name.partition(":")
    target = importlib.import_module(module)
    for part in path.split("."):
        target = getattr(target, part)
    return inspect.unwrap(target)


def source_of(function, docstring=False):
    """The lines of a function, without its docstring unless that is asked for."""
    text = textwrap.dedent(inspect.getsource(function))
    body = ast.parse(text).body[0].body
    if docstring or not (isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)):
        return text.rstrip()
    lines = text.splitlines()
    kept = lines[: body[0].lineno - 1] + lines[body[0].end_lineno :]
    return "\n".join(kept).rstrip()


def setup(app):
    app.add_directive("formula", Formula)
    return {"parallel_read_safe": True}
