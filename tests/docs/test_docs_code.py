"""All code on the site runs, page by page as a reader would, and prints the text below it.

Its commands are real, and its table of formulas names what exists.
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from marks import slow_but
from running import ROOT, STRICT, environment, python

from jaxcnnbp.cli.main import main

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
BLOCKS = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
WITH_CODE = [path for path in PAGES if BLOCKS.search(path.read_text(encoding="utf-8"))]
# The code of this page runs in a few seconds; the first page says what the README does, which is always run.
QUICK = [page for page in WITH_CODE if page.stem == "migrating"]
# Each once, whatever the remark behind it.
COMMANDS = {
    line.partition(" #")[0].strip(): path.stem
    for path in PAGES
    for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
}
# What comes between the outputs of two blocks.
MARK = "\x1e"


def runnable(page: Path) -> tuple[str, list[str]]:
    """The blocks of a page as one program that prints a mark after each, and what each must print."""
    blocks = BLOCKS.findall(page.read_text(encoding="utf-8"))
    return "\n".join(f"{code}\nprint({MARK!r})" for code, _ in blocks), [text for _, text in blocks]


@pytest.mark.parametrize("page", slow_but(QUICK, WITH_CODE, lambda page: page.stem))
def test_code_prints_the_text_below_it(page: Path, tmp_path: Path) -> None:
    program, expected = runnable(page)
    # The page about speed measures, which plain machine code takes longer for than it is quicker to compile.
    done = python(*STRICT, "-c", program, cwd=tmp_path, env=environment(quick=page.stem != "speed"))
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(MARK)[:-1]
    for number, (found, text) in enumerate(zip(printed, expected, strict=True)):
        if text:  # a block without a text below it may print what differs from run to run
            assert found.split() == text.split(), f"block {number} of {page.name}"


def test_pages_have_code() -> None:
    """The pattern finds the blocks: none is written in a way that it overlooks."""
    assert len(WITH_CODE) >= 9
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"```python", text)) == len(BLOCKS.findall(text)), page


@pytest.mark.parametrize(
    "line",
    slow_but(
        [line for line in COMMANDS if " compare " not in line],
        COMMANDS,
        lambda line: f"{COMMANDS[line]}: {line[9:50]}",
    ),
)
def test_commands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick ones are run, those that train, measure or need data are only read by the command they name."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (DOCS.parent / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    assert program == "jaxcnnbp"
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("train", "bench", "tune") or arguments[:2] == ["explain", "model"]:
        command: click.Command = main
        context = click.Context(main)
        while isinstance(command, click.Group):
            command = command.get_command(context, arguments.pop(0)) or pytest.fail(f"no such command: {line}")
        command.make_context("jaxcnnbp", arguments)
        return
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for name in re.findall(r"\S+\.(?:html|png)", line):
        assert (tmp_path / name).stat().st_size > 1000


def test_formulas_stand_where_the_table_says() -> None:
    page = (DOCS / "formulas.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\| \[.*?\]\((.*?\.py)\) \| (`.*`) \|$", page, flags=re.MULTILINE)
    assert len(rows) >= 30
    named = [(file, name) for file, names in rows for name in re.findall(r"`(.+?)`", names)]
    defined = {file: definitions(DOCS / file) for file, _ in rows}
    assert [(file, name) for file, name in named if name not in defined[file]] == []


def definitions(source: Path) -> set[str]:
    """Functions, classes, methods as `Class.method`, and names that are assigned."""
    found = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def test_files_of_numbers(tmp_path: Path) -> None:
    """The files that the page on pictures names."""
    arrays = {
        "--values": np.ones((4, 4, 2)),
        "--kernel-values": np.ones((2, 2, 2, 3)),
        "--delta-values": np.ones((3, 3, 3)),
    }
    arguments = []
    for number, (option, array) in enumerate(arrays.items()):
        np.save(tmp_path / f"{number}.npy", array)
        arguments += [option, str(tmp_path / f"{number}.npy")]
    result = CliRunner().invoke(main, ["explain", "conv", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "= 8" in result.output
