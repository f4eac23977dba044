"""The site builds without a warning and without a network, names everything public, and its search works offline."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import jaxcnnbp
from jaxcnnbp import audit, explain, nn, train

pytestmark = pytest.mark.slow

sphinx = pytest.importorskip("sphinx")
for needed in ("furo", "myst_parser", "latex2mathml"):
    pytest.importorskip(needed)

JUDGE = {"compare_gradients", "GradientReport", "GradientMismatch"}
ROOT = Path(__file__).parents[2]


def build(source: Path, target: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-b", "html"]
    return subprocess.run([*command, str(source), str(target)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", target)
    assert done.returncode == 0, done.stderr
    return target


def documented(site: Path) -> set[str]:
    """Every name that the reference describes."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as stream:
        inventory = InventoryFile.load(stream, "", lambda base, path: path)
    return {name for kind, objects in inventory.items() if kind.startswith("py:") for name in objects}


def public(namespace: types.ModuleType) -> set[str]:
    """What a module offers, under the name by which it is reached."""
    listed = getattr(namespace, "__all__", None) or [n for n in dir(namespace) if not n.startswith("_")]
    found = {name: getattr(namespace, name) for name in listed}
    return {
        f"{namespace.__name__}.{name}"
        for name, value in found.items()
        if not (inspect.ismodule(value) or isinstance(value, bool) or value is Any)
    }


@pytest.mark.parametrize("namespace", [jaxcnnbp, nn, train, explain], ids=lambda module: module.__name__)
def test_no_public_name_is_missing(site: Path, namespace: types.ModuleType) -> None:
    names = public(namespace)
    assert len(names) > 5
    assert sorted(names - documented(site)) == []


def test_names_of_the_judge(site: Path) -> None:
    """Reached as names of the package, all but the exception."""
    assert {name for name in vars(audit) if name[0] != "_" and not inspect.ismodule(getattr(audit, name))} == JUDGE
    reached = {f"jaxcnnbp.{name}" for name in JUDGE - {"GradientMismatch"}} | {"jaxcnnbp.audit.GradientMismatch"}
    assert reached <= documented(site)


def test_nothing_comes_from_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["'](?:https?:)?//[^"']*""", text) == [], (
            page
        )
    for style in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")) == [], style


def test_formulas_stand_with_the_lines_that_compute_them(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "tutorial.html").read_text(encoding="utf-8"))
    for line in ("return scatter(sent_back, geometry.window)", "jaxcnnbp/ops/conv/forms.py:"):
        assert line in text
    page = (site / "tutorial.html").read_text(encoding="utf-8")
    assert page.count("formula-code") >= 15
    assert page.count("<math") > 40
    assert "$" not in re.sub(r"<(script|pre)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)


def test_a_warning_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "conf.py").write_text('extensions = ["myst_parser"]\n', encoding="utf-8")
    (source / "index.md").write_text("# Title\n\n[gone](gone.md)\n", encoding="utf-8")
    assert build(source, tmp_path / "site").returncode != 0


def test_benchmarks_are_rendered_or_said_to_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "extensions"))
    import benchmarks

    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    assert benchmarks.text_of([], lambda path: "") == benchmarks.NONE
    assert benchmarks.text_of(benchmarks.stored(tmp_path), None) == benchmarks.NONE
    text = benchmarks.text_of(benchmarks.stored(tmp_path), lambda path: f"table of {path.name}")
    assert text == "## a\n\ntable of a.json\n\n## b\n\ntable of b.json"


def test_search_works_on_files(site: Path, browser) -> None:
    browser.open(site / "search.html")
    browser.driver.get((site / "search.html").as_uri() + "?q=conv_transpose")
    browser.driver.implicitly_wait(5)
    links = browser.driver.find_elements("css selector", "#search-results li a")
    assert any("functions" in link.get_attribute("href") for link in links)
    assert browser.console() == []


@pytest.mark.parametrize("page", ["index", "tutorial", "migrating", "how-to/look", "reference/functions"])
def test_pages_fit_a_phone(site: Path, browser, page: str) -> None:
    browser.open(site / f"{page}.html", width=360, dark=True)
    assert browser.overflow() == 0
    assert browser.console() == []
    assert [entry for entry in browser.fetched() if not entry.startswith(("file:", "data:"))] == []
