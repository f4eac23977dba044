"""What a report shows, and the command that prints it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from own_rules import rule, rule_of_many
from rich.console import Console
from running import environment, python

import jaxcnnbp
from jaxcnnbp.audit import GradientMismatch, compare_gradients, page
from jaxcnnbp.audit.hints import hint_for
from jaxcnnbp.audit.report import Maps
from jaxcnnbp.cli.main import main


@jax.custom_vjp
def correlated(x, kernel):
    return jaxcnnbp.correlate(x, kernel, padding="SAME")


def backward(args, delta):
    dx, dk = jax.vjp(lambda x, kernel: jaxcnnbp.correlate(x, kernel, padding="SAME"), *args)[1](delta)
    return dx.at[0, 0, 0].set(0), dk


correlated.defvjp(lambda x, kernel: (correlated(x, kernel), (x, kernel)), backward)


@pytest.fixture(scope="module")
def report():
    generator = np.random.default_rng(0)
    x, kernel = (jnp.asarray(generator.normal(size=s), jnp.float32) for s in ((2, 6, 6, 2), (3, 3, 2, 4)))
    return compare_gradients(correlated, x, kernel)


def test_rows_know_where_they_are(report):
    assert not report.ok
    assert report.worst_row() is report["x"]
    assert report["x"].axes == (1, 2)
    assert report["kernel"].axes == (0, 1)
    assert report["x"].worst.place == "corner, padding"
    with pytest.raises(KeyError, match="the leaves are x, kernel"):
        report["y"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit(report, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report)
    text = console.export_text()
    for part in ("x ", "kernel", "2x6x6x2", "[0,0,0,", "corner, padding", "1 of 2 right", "Temporary memory"):
        assert part in text
    assert max(map(len, str(report).splitlines())) <= 100


def test_dict_and_json(report):
    data = json.loads(report.to_json())
    assert data["ok"] is False
    assert [row["name"] for row in data["rows"]] == ["x", "kernel"]
    assert data["rows"][0]["worst"]["manual"] == 0
    assert data["rows"][1]["slope"]["agrees"] is True
    assert data["cost"]["rounds"] >= 3


def test_finite_differences_know_the_manual_gradient_is_off(report):
    slope = report["x"].slope
    assert slope.measured == pytest.approx(slope.oracle, rel=1e-6)
    assert slope.manual != pytest.approx(slope.oracle, rel=1e-6)


def test_plot(report, tmp_path):
    figure = report.plot("x", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 0
    assert len(figure.axes) == 6
    assert report.plot() is not None


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dtype", "leaves"), [("digits", "float32", 7), ("lenet5", "bfloat16", 11)])
def test_command_of_a_model(model, dtype, leaves):
    """One that is large enough for XLA to call the oracle from a thread of its own, which knows nothing of doubles."""
    arguments = ["compare", "--model", model, "--dtype", dtype, "--batch", "4", "--no-timing"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert f"{leaves} of {leaves} right" in result.output


def test_command_fails_on_a_wrong_gradient(monkeypatch, report):
    monkeypatch.setattr("jaxcnnbp.cli.compare.compare_gradients", lambda *args, **kwargs: report)
    result = CliRunner().invoke(main, ["compare", "--model", "digits", "--batch", "1"])
    assert result.exit_code == 1
    assert "`x`: " in result.output


MODULE = """
import jax, jax.numpy as jnp

@jax.custom_vjp
def square(x):
    return x * x

square.defvjp(lambda x: (x * x, x), lambda x, delta: ({factor} * x * delta,))
at = (jnp.arange(1.0, 4.0),)
def made():
    return at
"""


@pytest.mark.parametrize(("factor", "code", "words"), [(2, 0, "1 of 1 right"), (3, 1, "1.5 times the right")])
def test_command_of_a_function(tmp_path, monkeypatch, factor, code, words):
    name = f"square_by_{factor}"
    (tmp_path / f"{name}.py").write_text(MODULE.replace("{factor}", str(factor)))
    monkeypatch.chdir(tmp_path)
    for args in ("at", "made"):
        arguments = [f"{name}:square", "--args", f"{name}:{args}", "--no-timing", "--json", "report.json"]
        result = CliRunner().invoke(main, ["compare", *arguments])
        assert result.exit_code == code, result.output
        assert words in " ".join(result.output.split())
        assert json.loads((tmp_path / "report.json").read_text())["ok"] is (code == 0)


def test_command_of_a_function_in_a_dtype(tmp_path, monkeypatch):
    """Of what was named, or not at all."""
    (tmp_path / "squares.py").write_text(MODULE.replace("{factor}", "2"))
    monkeypatch.chdir(tmp_path)
    arguments = ["compare", "squares:square", "--args", "squares:at", "--no-timing", "--json", "report.json"]
    assert CliRunner().invoke(main, [*arguments, "--dtype", "bfloat16"]).exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["dtype"] == "bfloat16"
    result = CliRunner().invoke(main, [*arguments, "--batch", "3"])
    assert (result.exit_code, "--batch is of the shipped models" in result.output) == (2, True)


@pytest.mark.parametrize("command", ["compare", "tune"])
@pytest.mark.parametrize(("function", "args"), [("broken", "at"), ("square", "broken_args")])
def test_what_the_author_raises_is_shown_and_no_wrong_gradient(tmp_path, monkeypatch, command, function, args):
    (tmp_path / "own.py").write_text(
        "import jax.numpy as jnp\nat = (jnp.ones(3),)\nsquare = jnp.square\n"
        "def broken(x): raise TypeError('mine')\ndef broken_args(): raise KeyError('mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [command, f"own:{function}", "--args", f"own:{args}"])
    assert result.exit_code == 2
    assert "own.py" in result.stderr
    assert "mine" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["json:dumps"], "go together"),
        (["json", "--args", "json:x"], "must read module:name"),
        (["json:nothing", "--args", "json:dumps"], "is not there"),
        (["no_such_module:f", "--args", "json:dumps"], "is not there"),
        (["json:dumps", "--args", "json:__name__"], "must be a function"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "tune"])
def test_commands_refuse_a_function_without_arguments(command, arguments, words):
    result = CliRunner().invoke(main, [command, *arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_command_refuses_what_cannot_be_compared():
    result = CliRunner().invoke(main, ["compare", "json:dumps", "--args", "json:__all__"])
    assert result.exit_code == 2
    assert "cannot be compared" in result.output


@pytest.mark.parametrize(
    "arguments",
    [["compare", "--json"], ["compare", "--plot"], ["tune", "--model", "digits", "-o"], ["explain", "conv", "--png"]],
)
@pytest.mark.parametrize(("place", "words"), [("no/report.json", "no folder that exists"), ("", "is a folder")])
def test_commands_refuse_what_cannot_become_a_file(tmp_path, arguments, place, words):
    """Before anything is measured."""
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / place)])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--seed", "99999999999999999999"], "is not in the range"),
        (["tune", "json:dumps", "--args", "json:__all__"], "json:dumps cannot be tuned"),
        (["tune", "--table", "--seconds", "nan", "-o", "x"], "must be a number of seconds"),
        (["tune", "--table", "-o", __file__], "is no table that could be continued"),
        (["explain", "conv", "--values", __file__], "no .npy file of numbers"),
    ],
)
def test_commands_refuse_other_values(arguments, words):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_full_device_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(Path, "write_text", full)
    result = CliRunner().invoke(main, ["compare", "--no-timing", "--model", "digits", "--json", str(tmp_path / "x")])
    assert (result.exit_code, "Error: report.json: No space left on device." in result.output) == (1, True)


LOCALISED = {
    "the last columns": (lambda g: g.at[..., 8:].set(0), "but for axis 1 in [8, 9]: all 0 there"),
    "a row": (lambda g: g.at[2].multiply(1.5), "but for axis 0 in [2]: 1.5 times the right one there"),
    "every second column": (lambda g: g.at[:, ::2].multiply(-1), "but for axis 1 in 0, 2 .. 8: -1 times the right one"),
    "many rows": (lambda g: g.at[:5].add(1), "but for axis 0 in 0 .. 4."),
    "an element": (lambda g: g.at[3, 4].set(0), "but for axis 0 in [3], axis 1 in [4]: all 0 there"),
    "a block": (
        lambda g: g.at[:2, :2].set(g[:2, :2].T),
        "but for axis 0 in [0, 1], axis 1 in [0, 1]: the right one there with axes 0 and 1 transposed",
    ),
    "above the diagonal": (jnp.tril, "but for where axis 0 < axis 1: all 0 there"),
}


def spoilt_sine(spoil):
    sine = jax.custom_vjp(jnp.sin)
    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, delta: (spoil(delta * jnp.cos(x)),))
    return sine


@pytest.mark.parametrize(("spoil", "words"), LOCALISED.values(), ids=LOCALISED)
def test_says_where_a_mistake_lies(spoil, words):
    right = np.random.default_rng(0).uniform(0.1, 1, (6, 10)).astype(np.float32)
    manual, allowed = np.asarray(spoil(jnp.asarray(right))), np.full(right.shape, 1e-6)
    hint = hint_for(Maps(manual, None, right, allowed), np.abs(manual - right) > allowed, (), {})
    assert words in f"{hint}."


def test_says_which_part_of_a_complex_number_is_missing():
    z = jnp.asarray([0.3 + 0.4j, 0.5 - 0.2j], jnp.complex64)
    square = jax.custom_vjp(lambda z: z * z)
    square.defvjp(lambda z: (z * z, z), lambda z, delta: ((2 * z * delta).real.astype(z.dtype),))
    assert "the real part of the right gradient" in compare_gradients(square, z, timing=False)["z"].hint


def test_says_which_output_is_wrong():
    two = jax.custom_vjp(lambda x: {"sine": jnp.sin(x), "cosine": jnp.cos(x)})
    two.defvjp(
        lambda x: (two(x), x),
        lambda x, delta: (delta["sine"] * jnp.cos(x) - delta["cosine"] * jnp.sin(x) * (1 + x),),
    )
    hint = "the right gradient but for what comes from the output `output.cosine`"
    assert compare_gradients(two, jnp.arange(1.0, 4.0), timing=False)["x"].hint == hint


def test_names_the_rule_and_what_it_needs_if_it_is_meant():
    wrong = spoilt_sine(lambda g: g + 1)
    report = compare_gradients(wrong, jnp.ones(3), timing=False)
    text = " ".join(str(report).split())
    assert text.startswith("Gradients: 0 of 1 right, by the hand-written rule of `sin`, against a float64 oracle")
    assert "If that is meant to differ from the derivative of the function as written" in text
    with pytest.raises(AssertionError, match="pass `reference`, or `tolerance`"):
        report.assert_close()
    assert "meant to differ" not in str(compare_gradients(wrong, jnp.ones(3), reference=jnp.sin, timing=False))


def test_rules_of_one_name_are_told_apart():
    """And nobody is blamed where the truth is another function's."""

    def sine(x):
        return jnp.sin(x)

    def rule(scale):
        spoilt = jax.custom_vjp(sine)
        if scale == 1:
            spoilt.defvjp(lambda x: (jnp.sin(x), x), lambda x, delta: (delta * jnp.cos(x),))
        else:
            spoilt.defvjp(lambda x: (jnp.sin(x), x), lambda x, delta: (scale * delta * jnp.cos(x),))
        return spoilt

    both = lambda x: rule(1)(x) + rule(2)(x)  # noqa: E731
    (name,) = compare_gradients(both, jnp.ones(3), timing=False).blamed
    assert name.startswith("sine (test_audit_report.py:")
    assert not compare_gradients(both, jnp.ones(3), reference=lambda x: 2 * jnp.sin(x), timing=False).blamed


def test_no_edges_without_windows():
    """Nor a factor for a single number, which always has one."""
    row = compare_gradients(spoilt_sine(lambda g: g.at[0, 0, 0, 0].set(0)), jnp.ones((2, 5, 5, 2)), timing=False)["x"]
    assert (row.axes, row.wrong_places, row.worst.place) == ((), {}, "")
    assert compare_gradients(spoilt_sine(lambda g: 3 * g), jnp.float32(1), timing=False)["x"].hint == ""


def test_pages_stay_small(monkeypatch):
    """Of large arrays what is around the worst element."""
    monkeypatch.setattr(page, "CELLS", page.CELLS // 100)
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (150, 120)), jnp.float32)
    spoilt = spoilt_sine(lambda g: g.at[140, 110].set(0))
    text = compare_gradients(spoilt, x, finite_differences=False, timing=False).to_html()
    assert len(text) < 2**16
    assert "of 150x120 only rows 106 .. 149, columns 75 .. 119" in text


def test_fixture(tmp_path):
    """A right rule passes, a wrong one fails with the verdict, and both have a page."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["jaxcnnbp.audit.pytest_plugin"]')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_rules.py").write_text(
        """
import jax, jax.numpy as jnp

sine = jax.custom_vjp(jnp.sin)
sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, delta: (1.5 * delta * jnp.cos(x),))

def test_right(gradients):
    assert gradients(jnp.sin, jnp.arange(3.0)).ok

def test_wrong(gradients):
    gradients(sine, jnp.arange(3.0))
"""
    )
    done = python("-m", "pytest", "-p", "no:cacheprovider", "--gradients=pages", cwd=tmp_path, env=environment())
    assert done.returncode == 1, done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "1.5 times the right gradient" in done.stdout
    names = {f"tests-test_rules.py-test_{name}-1.html" for name in ("right", "wrong")}
    assert {path.name for path in (tmp_path / "pages").iterdir()} == names


def test_says_which_rule_is_wrong():
    @jax.custom_vjp
    def right(x):
        return jnp.sin(x)

    right.defvjp(lambda x: (jnp.sin(x), x), lambda x, delta: (delta * jnp.cos(x),))

    @jax.custom_vjp
    def wrong(x):
        return jnp.exp(x)

    wrong.defvjp(lambda x: (jnp.exp(x), x), lambda x, delta: (1.1 * delta * jnp.exp(x),))
    report = compare_gradients(lambda x, y: wrong(right(x)) * right(y), jnp.ones(3), jnp.arange(1.0, 4), timing=False)
    assert report.blamed == {"wrong": ("x",)}
    assert "By itself, without the other rules, `wrong` makes `x` wrong." in str(report)
    with pytest.raises(jaxcnnbp.audit.GradientMismatch, match="`wrong` makes `x` wrong"):
        report.assert_close()
    assert json.loads(report.to_json())["blamed"] == {"wrong": ["x"]}


def test_numbers_that_differ_look_different():
    x = jnp.asarray([1.0, 2.0])
    verdict = compare_gradients(rule(jnp.sin, lambda x, d: 1.00001 * d * jnp.cos(x)), x, timing=False).rows[0].verdict()
    manual, oracle = (verdict.partition(f"{by} ")[2].partition(",")[0].partition(";")[0] for by in ("manual", "oracle"))
    assert manual != oracle
    one = compare_gradients(rule(jnp.sin, lambda x, d: 2 * d * jnp.cos(x)), x[0], timing=False)
    assert "`args[0]`: it is wrong: manual 1.081" in one.rows[0].verdict()


def test_what_is_allowed_is_said_once():
    wrong = rule_of_many(lambda x, y: x * y, lambda args, d: (2 * d, 3 * d))
    report = compare_gradients(wrong, jnp.arange(1.0, 4.0), jnp.arange(2.0, 5.0), timing=False)
    assert str(report).count("rounding noise") == 1
    with pytest.raises(GradientMismatch) as caught:
        report.assert_close()
    assert str(caught.value).count("rounding noise") == 1
