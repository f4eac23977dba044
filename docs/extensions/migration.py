"""The rows of `migration_rows` as tables."""

import migration_rows
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

HEADINGS = {"torch": "PyTorch", "flax": "Flax", "equinox": "Equinox"}


class Migration(SphinxDirective):
    """The table of one library."""

    required_arguments = 1

    def run(self):
        library = self.arguments[0]
        self.env.note_dependency(migration_rows.__file__)
        head = row_of([nodes.Text(HEADINGS[library]), nodes.Text("here")])
        body = [row_of(cells_of(row)) for row in migration_rows.LIBRARIES[library]]
        group = nodes.tgroup("", *(nodes.colspec(colwidth=50) for _ in range(2)), cols=2)
        group += [nodes.thead("", head), nodes.tbody("", *body)]
        return [nodes.table("", group, classes=["migration"])]


def cells_of(row):
    """The two expressions, and the note below the second."""
    note = [nodes.paragraph("", row.note.replace("`", ""))] if row.note else []
    return nodes.literal("", row.theirs), nodes.container(
        "", nodes.paragraph("", "", nodes.literal("", row.ours)), *note
    )


def row_of(cells):
    entries = (cell if isinstance(cell, nodes.container) else nodes.paragraph("", "", cell) for cell in cells)
    return nodes.row("", *(nodes.entry("", cell) for cell in entries))


def setup(app):
    app.add_directive("migration", Migration)
    return {"parallel_read_safe": True}
