"""The report as a page: readable without who made it, sortable by click and keyboard; and in a notebook."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browsing import browser as browser
from click.testing import CliRunner
from own_rules import rule_of_many

import jaxcnnbp
from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.cli.main import main


def plain(x, kernel, bias):
    return jaxcnnbp.add_bias(jaxcnnbp.correlate(x, kernel, padding="SAME"), bias)


def backward(kept, delta):
    dx, dk, db = jax.vjp(plain, *kept)[1](delta)
    return dx.at[0, 0, 0].set(0), dk, db


half_right = rule_of_many(lambda x, y: x * y, lambda args, delta: (2 * delta, delta))
layer = jax.custom_vjp(plain)
layer.defvjp(lambda *args: (plain(*args), args), backward)


@pytest.fixture(scope="module")
def report():
    generator = np.random.default_rng(0)
    shapes = {"<b>x</b>": (2, 6, 6, 2), "kernel": (3, 3, 2, 4), "bias": (4,)}
    args = [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes.values()]
    return compare_gradients(layer, *args, names=tuple(shapes), timing=False)


@pytest.fixture
def page(report, browser, tmp_path):
    path = tmp_path / "report.html"
    report.save_html(path, title="A layer & its mistake", command="python mine.py --seed 0")
    browser.open(path)
    return browser


def column(browser, table, number):
    script = """return [...document.querySelectorAll("table.sortable")[arguments[0]].tBodies[0].rows]
        .map((row) => row.cells[arguments[1]].dataset.value)"""
    return browser.run(script, table, number)


def test_says_what_happened(page, report):
    assert page.text("h1") == "A layer & its mistake"
    assert "Wrong." in page.text("header")
    assert "2 of 3 right" in page.text("header")
    words = page.text("main")
    for part in (
        "python mine.py --seed 0",
        "float64 oracle",
        jax.__version__,
        "seed of the probes",
        "elements are wrong",
    ):
        assert part in words
    assert report["<b>x</b>"].verdict() in words
    assert page.console() == []
    assert page.fetched() == []
    assert page.nameless() == []


@pytest.fixture(scope="module")
def small():
    return compare_gradients(half_right, jnp.ones(3), jnp.ones(3), names=("<b>x</b>", "y"), timing=False)


def test_names_are_text(small):
    assert "<b>x</b>" not in small.to_html().split("<body>")[1].split('<script type="application/json"')[0]
    assert "<b>x</b>" not in small._repr_html_()


def test_sorts_by_click_and_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    heads = page.driver.find_elements("css selector", "table.sortable th button")
    heads[9].click()
    sizes = [float(text) for text in column(page, 0, 9)]
    assert sizes == sorted(sizes, reverse=True)
    assert page.run("return document.querySelectorAll('th')[9].getAttribute('aria-sort')") == "descending"
    heads[9].send_keys(Keys.ENTER)
    assert [float(text) for text in column(page, 0, 9)] == sizes[::-1]
    heads[1].send_keys(Keys.SPACE)
    assert column(page, 0, 1) == sorted(column(page, 0, 1))


def test_worst_elements_are_the_worst(page, report):
    excess = [float(text) for text in column(page, 2, 6)]
    assert excess == sorted(excess, reverse=True)
    row = report["<b>x</b>"]
    assert column(page, 2, 1)[0] == f"[{','.join(map(str, row.worst.index))}]"
    assert len(excess) == 20


def test_error_maps_can_be_read(page, report):
    from selenium.webdriver.common.keys import Keys

    picture = page.driver.find_element("css selector", '[data-picture="kernel/manual"]')
    picture.send_keys(Keys.ARROW_RIGHT)
    found = re.fullmatch(r"kernel, manual: row 0, column 1 is (.*)", page.text("#readout"))
    row = report["kernel"]
    where = (0, 1, *row.worst.index[2:])
    assert float(found[1].replace("\u2212", "-")) == pytest.approx(row.maps.manual[where], rel=1e-4)


def test_phone_and_dark(report, browser, tmp_path):
    path = tmp_path / "report.html"
    report.save_html(path)
    browser.open(path, width=360, dark=True)
    assert browser.overflow() == 0
    assert browser.run("return document.documentElement.dataset.theme") == "dark"


def test_notebook_table(small):
    html = small._repr_html_()
    assert html.count("<table>") == 2
    assert "1 of 2 right" in html
    assert "<script" not in html


@pytest.mark.slow
def test_command_writes_it(tmp_path):
    path = tmp_path / "report.html"
    arguments = ["compare", "--model", "digits", "--batch", "1", "--no-timing", "--html", str(path)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = path.read_text(encoding="utf-8")
    assert "Gradients of digits, 1 images, float32" in text
    made = re.search(r"<pre>(.*?)</pre>", text)[1]
    assert made.startswith("jaxcnnbp compare --model digits --batch 1 --dtype float32 --seed 0 --html ")
    assert "--no-timing" in made
    again = CliRunner().invoke(main, made.split()[1:], catch_exceptions=False)
    assert again.exit_code == 0
