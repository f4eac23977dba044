"""Explanations as objects: their numbers, sums, text, pictures, and what a notebook shows."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

import jaxcnnbp
from jaxcnnbp import explain
from jaxcnnbp.explain.sums import sum_of
from jaxcnnbp.pages import document, part

EXPLANATIONS = {
    "conv": lambda: explain.conv(stride=2, padding=1),
    "conv of maps": lambda: explain.conv((4, 4, 2), (3, 3, 2, 3), flip=True, padding="SAME"),
    "conv1d": lambda: explain.conv1d(dilation=2, padding="SAME"),
    "conv-transpose": lambda: explain.conv_transpose(padding=1),
    "max-pool": lambda: explain.max_pool((7, 7), 3, stride=2, padding=1, ceil_mode=True, ties="split"),
    "mean-pool": lambda: explain.mean_pool((7, 7), 3, ceil_mode=True),
}


@pytest.fixture(params=EXPLANATIONS)
def shown(request):
    return EXPLANATIONS[request.param]()


def value_of(expression):
    """The calculation in words, carried out by Python."""
    plain = re.sub(r", it lost in .*", "", expression).replace("·", "*")
    return 0 if "nothing" in plain else eval(plain, {"max": max})


def test_every_sum_makes_its_number(shown):
    """Carried out as it is written, for every element of every result."""
    for name in ("y", "dx", "dk"):
        if name not in shown.arrays:
            continue
        maps = (shown.arrays["x"].shape[-1] - 1, shown.arrays["y"].shape[-1] - 1)
        for index in np.ndindex(shown.arrays[name].shape[: shown.window.rank]):
            made = sum_of(shown, name, index, maps)
            assert value_of(made.expression) == pytest.approx(made.total, abs=1e-5), str(made)


def test_autodiff_is_near(shown):
    assert max(shown.gaps.values()) < 1e-6


def test_text_and_picture(shown, tmp_path):
    text = str(shown)
    assert max(map(len, text.splitlines())) <= 100
    assert "JAX's autodiff differs by at most" in text
    assert "dx[" in text
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(shown)
    assert "gradient of the input" in console.export_text()
    path = tmp_path / "picture.png"
    shown.plot(path)
    assert path.stat().st_size > 5000


def test_notebooks_show_the_page_in_a_frame(shown):
    html = shown._repr_html_()
    assert html.startswith("<iframe title=")
    assert "<script" not in html.split("srcdoc=")[0]
    assert "&lt;script" in html


def test_page_asks_nothing_of_a_network(shown):
    page = shown.to_html()
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert "http" not in page
    assert "@import" not in page


def test_no_gradient_by_autodiff_is_said():
    shown = explain.max_pool(ties="all")
    assert shown.gaps == {}
    assert "no counterpart" in shown.note
    assert "JAX has no gradient of a dilated max pool" in explain.max_pool(dilation=2).note


def test_precision_is_kept():
    assert explain.conv(np.ones((3, 3)), np.ones((2, 2))).arrays["dx"].dtype == np.float64
    assert explain.conv(np.ones((3, 3), np.float32), np.ones((2, 2))).arrays["dx"].dtype == np.float32


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explain.conv("abc"), "`x` must be an array of real numbers"),
        (lambda: explain.conv(np.ones((2, 2, 2, 2))), "`x` (shape=(2, 2, 2, 2)) must have 2 axes, or 3"),
        (lambda: explain.conv((0, 3)), "`x` (=(0, 3)) must have at least one cell"),
        (lambda: explain.conv((40, 40)), "is too large to be looked at"),
        (lambda: explain.conv((3, 3), (5, 5)), "`kernel` (=(5, 5)) spans 5 positions"),
        (lambda: explain.conv(stride=0), "`stride` (=0) must be at least 1"),
        (lambda: explain.conv(delta=np.ones((2, 2))), "`delta` (shape=(2, 2, 1)) must have the shape of the output"),
        (lambda: explain.conv_transpose(padding="SAME"), "`padding` (='SAME') must be 'VALID', 'FULL'"),
        (lambda: explain.max_pool(ties="none"), "`ties` (='none') is unknown"),
        (lambda: sum_of(explain.conv(), "y", (9, 9)), "`index` (=(9, 9)) must lie inside y"),
    ],
)
def test_refusals(call, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        call()


def test_explain_is_a_name_of_the_package():
    assert jaxcnnbp.explain is explain


def test_data_cannot_end_its_element():
    page = document("t", "", data={"a": "</script><script>alert(1)</script><!--"})
    assert "alert" in page
    assert "</script><script>alert" not in page


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_read(theme):
    """WCAG AA: text has a contrast of 4.5 with what is behind it, in both themes."""
    block = re.findall(r":root[^{]*\{(.*?)\}", part("frame.css"), flags=re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    pairs = [("ink", behind) for behind in ("paper", "card", "soft", *(f"{r}-tint" for r in ROLES), "bad-tint")]
    pairs += [("quiet", behind) for behind in ("paper", "card", "soft")]
    pairs += [(role, behind) for role in (*ROLES, "bad", "good") for behind in ("card", "paper", "soft")]
    for front, behind in pairs:
        light, dark = sorted((luminance(colours[front]), luminance(colours[behind])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, behind)


ROLES = ("input", "kernel", "output", "grad")
