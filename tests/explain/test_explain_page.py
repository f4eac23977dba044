"""The page in a real browser: every number that its controls bring about is the package's, and every control works."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp
from jaxcnnbp import explain

GENERATOR = np.random.default_rng(6)
SET = """
const [fields] = arguments;
for (const [name, value] of Object.entries(fields)) {
  const field = document.querySelector(`#settings [name="${name}"]`);
  if (field.type === "checkbox") field.checked = value; else field.value = String(value);
  field.dispatchEvent(new Event("change", { bubbles: true }));
}
"""
READ = """
const found = {};
for (const cell of document.querySelectorAll("button.cell")) {
  (found[cell.dataset.map] ??= []).push([cell.dataset.index, cell.dataset.value]);
}
return found;
"""

# Settings by the fields' names: of stride, padding, dilation and window an entry each axis, and each end of it.
CONVOLUTIONS = [
    {},
    {"flip": "true"},
    {"stride0": 2, "stride1": 3, "flip": "false"},
    {"padding00": 1, "padding01": 2, "padding10": 0, "padding11": 3, "flip": "true"},
    {"dilation0": 2, "dilation1": 1},
    {"stride0": 1, "stride1": 1, "dilation1": 2, "padding00": -1, "padding11": 2},
    {"stride0": 5, "stride1": 4, "padding00": 4, "padding01": 4, "dilation0": 3, "flip": "false"},
]
POOLS = [
    {},
    {"stride0": 1, "stride1": 2, "size0": 3, "size1": 2},
    {"ceilMode": True, "stride0": 2, "stride1": 3},
    {"padding00": 1, "padding01": 0, "padding10": 2, "padding11": 1},
    {"dilation0": 2, "ceilMode": True, "stride0": 3},
    {"size0": 2, "size1": 2, "padding00": 3, "padding01": 3, "ceilMode": False, "stride0": 1},
]


def settled(fields, rank, names):
    """The values that the fields hold after `fields`, by axis."""
    axes = (1,) if rank == 1 else (0, 1)
    ends = [[fields[f"padding{axis}{end}"] for end in (0, 1)] for axis in axes]
    return {name: tuple(fields[f"{name}{axis}"] for axis in axes) for name in names} | {
        "padding": tuple(map(tuple, ends))
    }


def shown(browser, rank):
    """Every map of the page as an array."""
    found = {}
    for name, cells in browser.run(READ).items():
        indices = [tuple(map(int, index.split(","))) for index, _ in cells]
        array = np.zeros(np.max(indices, axis=0) + 1)
        for index, (_, value) in zip(indices, cells, strict=True):
            array[index] = float(value.replace("Infinity", "inf"))
        found[name] = array[0] if rank == 1 else array
    return found


def by_package(forward, delta, *operands):
    """y, dx and dk in float64 by the public functions."""
    with jax.enable_x64(True):
        y, pull_back = jax.vjp(forward, *(jnp.asarray(a)[None] for a in operands))
        found = (y, *pull_back(jnp.asarray(delta)[None, ..., None]))
        return dict(zip(("y", "dx", "dk"), (np.asarray(a) for a in found), strict=False))


def convolved(kind, fields, maps, rank):
    asked = settled(fields, rank, ("stride", "dilation"))
    flip = fields["flip"] == "true"

    def forward(x, kernel):
        x, kernel = x[..., None], kernel[0][..., None, None]
        if kind == "conv":
            return (jaxcnnbp.convolve if flip else jaxcnnbp.correlate)(x, kernel, **asked)
        return jaxcnnbp.conv_transpose(
            x, kernel, asked["stride"], asked["padding"], asked["dilation"], transpose_kernel=flip,
            use_consistent_padding=True,
        )  # fmt: skip

    found = by_package(forward, maps["delta"], maps["x"], maps["kernel"])
    return {"y": found["y"][0, ..., 0], "dx": found["dx"][0], "dk": found["dk"][0]}


def pooled(kind, fields, maps, rank):
    asked = settled(fields, rank, ("size", "stride", "dilation"))
    size, stride, padding, dilation = (asked[name] for name in ("size", "stride", "padding", "dilation"))
    shared = {"window_dilation": dilation, "ceil_mode": fields["ceilMode"]}

    def forward(x):
        if kind == "max-pool":
            return jaxcnnbp.max_pool(x[..., None], size, stride, padding, ties=fields["ties"], **shared)
        return jaxcnnbp.avg_pool(x[..., None], size, stride, padding, fields["countPadding"], **shared)

    found = by_package(forward, maps["delta"], maps["x"])
    return {"y": found["y"][0, ..., 0], "dx": found["dx"][0]}


def assert_equal(browser, kind, rank, fields):
    """The page shows what the package computes from the input, kernel and delta that stand there."""
    maps = shown(browser, rank)
    found = (pooled if kind.endswith("pool") else convolved)(kind, fields, maps, rank)
    for name, array in found.items():
        np.testing.assert_allclose(maps[name], array, rtol=1e-12, atol=1e-12, err_msg=f"{name} with {fields}")


def fields_of(browser):
    """What the fields say."""
    script = """return Object.fromEntries([...document.querySelectorAll("#settings [name]")].map((field) => [field.name,
        field.type === "checkbox" ? field.checked : field.type === "number" ? Number(field.value) : field.value]))"""
    return browser.run(script)


def normal(*shape):
    return GENERATOR.normal(size=shape)


def tied(*shape):
    """Numbers with many ties."""
    return GENERATOR.integers(-1, 2, size=shape).astype(np.float64)


@pytest.fixture
def page(browser, tmp_path):
    """Opens an explanation."""

    def opened(explanation, **how):
        path = tmp_path / "page.html"
        explanation.save_html(path)
        browser.open(path, **how)
        return browser

    return opened


@pytest.mark.parametrize(
    ("kind", "rank", "explanation", "cases"),
    [
        ("conv", 2, lambda: explain.conv(normal(6, 7), normal(3, 2)), CONVOLUTIONS),
        ("conv", 1, lambda: explain.conv1d(normal(9), normal(3)), [{"stride1": 2}, {"padding10": 2, "flip": "true"}]),
        ("conv-transpose", 2, lambda: explain.conv_transpose(normal(3, 4), normal(3, 3)), [
            {}, {"flip": "false"}, {"padding00": 1, "padding11": 2}, {"dilation0": 2, "stride0": 3, "flip": "true"},
            {"stride0": 1, "stride1": 1, "padding00": 0, "padding01": 2},
        ]),
        ("max-pool", 2, lambda: explain.max_pool(tied(7, 6), 3, stride=2, ties="split"), [
            *POOLS, {"ties": "first"}, {"ties": "all", "padding00": 1},
        ]),
        ("max-pool", 1, lambda: explain.max_pool(tied(9), 3), [{"ceilMode": True, "stride1": 2}, {"ties": "all"}]),
        ("mean-pool", 2, lambda: explain.mean_pool(normal(7, 6), 3, stride=2), [
            *POOLS, {"countPadding": False}, {"countPadding": False, "padding00": 3, "ceilMode": True},
        ]),
    ],
)  # fmt: skip
def test_numbers_are_those_of_the_package(page, kind, rank, explanation, cases):
    browser = page(explanation())
    assert float(browser.run("return document.getElementById('about').dataset.ownGap")) < 1e-12
    for case in cases:
        browser.run(SET, case)
        assert browser.text("#alert") == "", case
        assert_equal(browser, kind, rank, fields_of(browser))
    assert browser.console() == []


def test_a_wrong_rule_would_be_noticed(page):
    """The comparison above fails if the page's rule is wrong: here its stride is."""
    explanation = explain.conv(normal(6, 6), normal(3, 3))
    html = explanation.to_html()
    broken = html.replace("u0 * rows.stride + t0", "u0 + t0")
    assert broken != html
    browser = page(type("Broken", (), {"save_html": lambda self, path: path.write_text(broken)})())
    browser.run(SET, {"stride0": 2})
    with pytest.raises(AssertionError, match="stride"):
        assert_equal(browser, "conv", 2, fields_of(browser))


def test_numbers_first_shown_are_the_packages_own(page):
    """Not recomputed ones: float32 has its own last digits, and the page says where they are from."""
    explanation = explain.mean_pool(normal(6, 6).astype(np.float32), 3)
    browser = page(explanation)
    np.testing.assert_array_equal(shown(browser, 2)["y"], explanation.arrays["y"][..., 0].astype(np.float64))
    assert browser.text("#status") == f"Numbers computed by jaxcnnbp {jaxcnnbp.__version__}"
    assert "autodiff of the same layer differs from them by at most" in browser.text("#about")
    browser.run(SET, {"stride0": 2})
    assert browser.text("#status") == "Numbers recomputed in this page"
    browser.run("document.getElementById('reset').click()")
    assert browser.text("#status").startswith("Numbers computed by")


def test_several_maps(page):
    x, kernel = normal(4, 5, 2), normal(2, 2, 2, 3)
    explanation = explain.conv(x, kernel)
    browser = page(explanation)
    browser.run(SET, {"map-x": 1, "map-y": 2})
    maps = shown(browser, 2)
    for name, place in (("y", (2,)), ("dx", (1,)), ("dk", (1, 2)), ("kernel", (1, 2))):
        np.testing.assert_allclose(maps[name], explanation.arrays[name][(..., *place)], rtol=1e-6)
    browser.run("document.querySelector('button[data-map=y]').click()")
    assert browser.run("return document.querySelectorAll('#terms li').length") == 1 + 2 * 2 * 2


def test_nan_and_padding_in_a_max_pool(page):
    x = np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, 0.0], [1.0, 1.0, 1.0]])
    browser = page(explain.max_pool(x, 2, stride=1, padding=2))
    assert_equal(browser, "max-pool", 2, fields_of(browser))
    browser.run(SET, {"ties": "all"})
    assert_equal(browser, "max-pool", 2, fields_of(browser))
    assert np.isneginf(shown(browser, 2)["y"][0, 0])


def test_impossible_settings_end_in_a_sentence(page):
    browser = page(explain.conv((4, 4), (3, 3)))
    before = shown(browser, 2)["y"]
    browser.run(SET, {"dilation0": 3})
    assert "The window spans 7 positions along the rows, but the padded input has 4" in browser.text("#alert")
    np.testing.assert_array_equal(shown(browser, 2)["y"], before)
    browser.run(SET, {"dilation0": 1})
    assert browser.text("#alert") == ""


def cell(name, *index):
    return f'button[data-map="{name}"][data-index="{",".join(map(str, index))}"]'


def hits(browser, name):
    script = "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.dataset.index)"
    return set(browser.run(script, f'button.cell.hit[data-map="{name}"]'))


def test_a_kernel_element_marks_what_it_met(page):
    explanation = explain.conv(padding=1)
    browser = page(explanation)
    browser.run(f"document.querySelector('{cell('kernel', 0, 1)}').click()")
    assert len(hits(browser, "delta")) == 6 * 6 - 6  # the row of outputs on padding is left out
    assert hits(browser, "x") == {f"{r},{c}" for r in range(5) for c in range(6)}
    assert (
        float(browser.run("return document.getElementById('total').dataset.value"))
        == explanation.arrays["dk"][0, 1, 0, 0]
    )
    assert browser.text("#spoken").startswith("kernel gradient at row 0, column 1 is ")


def test_an_input_cell_marks_the_flipped_kernel_over_the_deltas(page):
    explanation = explain.conv(padding=1)
    browser = page(explanation)
    browser.run(f"document.querySelector('{cell('x', 2, 3)}').click()")
    assert hits(browser, "delta") == hits(browser, "y") == {f"{r},{c}" for r in (1, 2, 3) for c in (2, 3, 4)}
    badge = r"""return document.querySelector(arguments[0]).lastChild.textContent.slice(1).replace("\u2212", "-")"""
    kernel = explanation.arrays["kernel"][..., 0, 0]
    for r in range(3):
        for c in range(3):
            assert float(browser.run(badge, cell("delta", 1 + r, 2 + c))) == kernel[2 - r, 2 - c]


def test_an_output_marks_its_window_and_a_pool_its_winner(page):
    browser = page(explain.max_pool([[1, 5, 2], [0, 3, 9], [4, 4, 4]], 2, [[7, 8], [5, 6]], ceil_mode=True))
    browser.run(f"document.querySelector('{cell('y', 0, 1)}').click()")
    assert hits(browser, "x") == {"0,2", "1,2"}
    assert browser.run("return document.querySelector('button.winner[data-map=x]').dataset.index") == "1,2"
    assert "partial window: 2 of its 4 taps lie on the input" in browser.text("#sum-heading")


def test_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    browser = page(explain.conv())
    browser.run("document.querySelector('button[data-map=x]').focus()")
    keys = browser.driver.switch_to.active_element
    keys.send_keys(Keys.ARROW_RIGHT)
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.run("return document.activeElement.dataset.index") == "1,1"
    assert browser.run("return document.activeElement.getAttribute('aria-selected')") == "true"
    assert browser.text("#spoken").startswith("input gradient at row 1, column 1 is ")
    browser.driver.switch_to.active_element.send_keys(Keys.END)
    assert browser.run("return document.activeElement.dataset.index") == "1,5"
    # A map is one stop of the Tab key.
    browser.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.run("return document.activeElement.dataset.map") == "kernel"
    assert browser.run("return document.querySelectorAll('.grid').length") == browser.run(
        "return document.querySelectorAll('.cell[tabindex=\"0\"]').length"
    )


def test_pointing_shows_and_leaving_goes_back(page):
    from selenium.webdriver import ActionChains

    browser = page(explain.conv())
    kept = browser.text("#total")
    target = browser.driver.find_element("css selector", cell("dx", 3, 3))
    ActionChains(browser.driver).move_to_element(target).perform()
    assert browser.text("#total").startswith("dx[3,3] = ")
    ActionChains(browser.driver).move_to_element(browser.driver.find_element("id", "title")).perform()
    assert browser.text("#total") == kept


@pytest.mark.parametrize("kind", ["conv", "max_pool"])
def test_steps_play_the_algorithm(page, kind):
    browser = page(getattr(explain, kind)((4, 4)))
    click = "document.getElementById(arguments[0]).click()"
    count = int(browser.run("return document.getElementById('position').max")) + 1
    known = """return document.querySelectorAll(`button[data-map="${arguments[0]}"]:not([data-value=""])`).length"""
    whole = shown(browser, 2)
    browser.run(click, "first")
    assert [browser.run(known, name) for name in ("y", "dx")] == [0, 0]
    for step in range(count):
        browser.run(click, "step")
        assert browser.run(known, "y") == min(step + 1, whole["y"].size)
    assert browser.text("#progress").startswith(f"Step {count} of {count}: backward")
    for name, array in shown(browser, 2).items():
        np.testing.assert_array_equal(array, whole[name])
    browser.run(click, "back")
    browser.run(click, "play")
    assert browser.run("return document.getElementById('play').getAttribute('aria-pressed')") == "true"
    browser.run(click, "play")
    browser.run(click, "all")
    assert browser.console() == []


def test_a_number_can_be_changed(page):
    browser = page(explain.conv())
    browser.run(f"document.querySelector('{cell('x', 0, 0)}').click()")
    browser.run("const f = document.getElementById('edit'); f.value = '100'; f.dispatchEvent(new Event('change'))")
    assert shown(browser, 2)["x"][0, 0] == 100
    assert_equal(browser, "conv", 2, fields_of(browser))
    assert browser.text("#status") == "Numbers recomputed in this page"


EXPLANATIONS = {
    "conv": lambda: explain.conv((8, 8), (5, 5), padding=2),
    "conv1d": lambda: explain.conv1d((12,)),
    "conv_transpose": lambda: explain.conv_transpose((4, 4)),
    "max_pool": lambda: explain.max_pool((7, 7), 3, ceil_mode=True, ties="all"),
    "mean_pool": lambda: explain.mean_pool((28, 28), 2),
}


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_phone_theme_and_names(page, name):
    browser = page(EXPLANATIONS[name](), width=360, dark=True)
    assert browser.overflow() == 0
    assert browser.nameless() == []
    assert browser.fetched() == []
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.run("document.getElementById('theme').click()")
    assert browser.run("return document.documentElement.dataset.theme") == "light"
    assert browser.console() == []
