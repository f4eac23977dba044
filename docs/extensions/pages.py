"""Pages that nobody lists, such as those of an optional part, are listed at the end of the front page."""

from pathlib import Path

MARK = "% further pages"
LISTED = {"index", "tutorial", "formulas", "slips", "where-jax", "benchmarks", "mnist", "examples", "migrating"}


def list_rest(app, name, source):
    if name == "index":
        rest = sorted(path.stem for path in Path(app.srcdir).glob("*.md") if path.stem not in LISTED)
        source[0] = source[0].replace(MARK, "\n".join(rest))


def setup(app):
    app.connect("source-read", list_rest)
    return {"parallel_read_safe": True}
