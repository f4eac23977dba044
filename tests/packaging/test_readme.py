"""What the README and its neighbours say is so: code prints what stands below it, links and commands lead somewhere."""

import re

import pytest
from running import ROOT, STRICT, environment, python

from jaxcnnbp.bench import markdown

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "benchmarks/README.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")

# A block of Python, and the block of text below it, if there is one.
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[0].strip().splitlines()[-1][:30])
def test_code_runs_and_prints_the_text_below_it(block: tuple[str, str]) -> None:
    code, text = block
    done = python(*STRICT, "-c", code, env=environment(quick=True))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == text.split()


def test_readme_has_code_and_is_short() -> None:
    assert len(BLOCKS) == README.count("```python") >= 2
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_make_knows_the_commands() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {name for document in DOCUMENTS for name in _made((ROOT / document).read_text(encoding="utf-8"))}
    assert {"demo", "test", "test-all"} <= named <= targets


def _made(text: str) -> list[str]:
    """What follows `make` at the start of a line of a shell's, or of what is in backticks."""
    return re.findall(r"(?:^|`)make ([\w-]+)", text, flags=re.MULTILINE)


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(.*?)\]", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_speeds_are_those_of_the_stored_run() -> None:
    """Each figure of the README's table, rounded, is in the file that the line below the table names."""
    file = re.search(r"jaxcnnbp bench --show (\S+\.json)", README).group(1)
    stored = [line.replace("*", "").split(" | ") for line in markdown(ROOT / file).splitlines()]
    table = {
        line.split()[2]: line.split("|")[2:4] for line in README.splitlines() if re.match(r"\| (\d+|training)", line)
    }
    for name, kind in (("convolutions:", "| convolutions"), ("pools:", "| pools")):
        means = [row[2:4] for row in stored if row[0] == kind]
        assert [_numbers(cell) for cell in table[name]] == [_near(row[side] for row in means) for side in (0, 1)]
    networks = ("lenet-5", "vgg-11", "resnet-18", "mobilenet", "u-net")
    steps = [next(row for row in stored if row[0] == f"| {name}" and row[2] == "step") for name in networks]
    assert [_numbers(cell) for cell in table["step"]] == [_near(row[side] for row in steps) for side in (5, 9)]


def _numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


def _near(cells: object) -> object:
    """As near as two digits come."""
    return pytest.approx([float(cell) for cell in cells], rel=0.02)
