"""What `--help` says of every command, taken from the commands themselves."""

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from jaxcnnbp.cli.main import main


class Commands(SphinxDirective):
    """A section for each command."""

    def run(self):
        found = []
        for path, command in sorted(commands(main, "jaxcnnbp")):
            section = nodes.section(ids=[path.replace(" ", "-")])
            section += [
                nodes.title("", path),
                nodes.literal_block(text := help_of(command, path), text, language="text"),
            ]
            found.append(section)
        return found


def commands(group, path):
    """Every command that is no group, with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def help_of(command, path):
    context = click.Context(command, info_name=path, terminal_width=90, max_content_width=90)
    return command.get_help(context)


def setup(app):
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
