"""Every result in benchmarks/*.json as the tables that `jaxcnnbp.bench` makes of it, losses included."""

import importlib
import importlib.util
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

STORED = Path(__file__).parents[2] / "benchmarks"
NONE = "No results are stored with this version."


class Benchmarks(SphinxDirective):
    """Headed by the name of the file, one after another."""

    def run(self):
        for path in stored():
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(text_of(stored(), renderer()), allow_section_headings=True)


def stored(folder=STORED):
    """The files, in the order of their names."""
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def renderer():
    """`jaxcnnbp.bench.markdown`; None in a version that has none."""
    if importlib.util.find_spec("jaxcnnbp.bench") is None:
        return None
    return getattr(importlib.import_module("jaxcnnbp.bench"), "markdown", None)


def text_of(paths, markdown):
    """Markdown of all results."""
    if not paths or markdown is None:
        return NONE
    return "\n\n".join(f"## {path.stem}\n\n{markdown(path)}" for path in paths)


def setup(app):
    app.add_directive("benchmarks", Benchmarks)
    return {"parallel_read_safe": True}
