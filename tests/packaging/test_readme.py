"""What the README says is so: its code prints what stands below it, and its table names what exists."""

import ast
import re

import pytest
from running import ROOT, STRICT, environment, python

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")

# A block of Python, indented or not, and the block of text below it, if there is one.
BLOCKS = re.findall(
    r"^( *)```python\n(.*?)^\1```\n(?:\n\1```text\n(.*?)^\1```)?", README, flags=re.DOTALL | re.MULTILINE
)
FORMULAS = re.findall(r"^\|.*\| \[.*?\]\((jaxcnnbp/.*?\.py)\) \| (`.*`) \|$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[1].strip().splitlines()[-1].strip()[:30])
def test_code_runs_and_prints_the_text_below_it(block: tuple[str, str, str]) -> None:
    indent, code, text = block
    lines = (line.removeprefix(indent) for line in code.splitlines())
    done = python(*STRICT, "-c", "\n".join(lines), env=environment(quick=True))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == text.split()


def test_readme_has_code_and_formulas() -> None:
    assert len(BLOCKS) >= 4
    assert len(FORMULAS) >= 30


@pytest.mark.parametrize(("file", "names"), FORMULAS)
def test_formula_stands_where_the_table_says(file: str, names: str) -> None:
    defined = set(definitions(ast.parse((ROOT / file).read_text(encoding="utf-8"))))
    assert set(re.findall(r"`(.+?)`", names)) <= defined


def definitions(module: ast.Module) -> list[str]:
    """Functions, classes, methods as `Class.method`, and names that are assigned."""
    found = []
    for node in module.body:
        if isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found += [node.name]
            found += [f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)]
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_first_steps_are_listed() -> None:
    listed = set(re.findall(r"\]\(examples/(.*?\.py)\)", README))
    assert {path.name for path in (ROOT / "examples").glob("0*.py")} <= listed
