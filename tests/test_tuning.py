"""What serves a convolution is what was measured: for the program by `autotune`, else on its neighbours in a table."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same
from click.testing import CliRunner

import jaxcnnbp
from jaxcnnbp import Tuning, autotune, correlate, explain_choice, implementation
from jaxcnnbp.cli.main import main
from jaxcnnbp.geometry import Window
from jaxcnnbp.ops.conv import tuning as tunings
from jaxcnnbp.ops.conv.api import conv_geometry
from jaxcnnbp.ops.conv.dispatch import passes
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.measured import Expected, Measured, Table, soonest_of_the_fast, table
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.ops.conv.tuning import Tuned, key_of
from jaxcnnbp.tune import autotune as autotuning
from jaxcnnbp.tune.grid import KINDS, random_problem
from jaxcnnbp.tune.measure import measure, supporting
from jaxcnnbp.tune.regret import PASSES, regret_of

pytestmark = pytest.mark.skipif(jax.device_count("cpu") > 1, reason="what may lie on several devices is not tuned")

X, KERNEL = jax.ShapeDtypeStruct((2, 8, 8, 4), np.float32), jax.ShapeDtypeStruct((3, 3, 4, 8), np.float32)
LAYER = functools.partial(correlate, padding="SAME")


def problem_of(x, kernel, images=2, **options):
    defaults = dict(stride=1, padding="SAME", dilation=1, groups=1, mirrored=False)
    x, kernel = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (x, kernel))
    geometry = dataclasses.replace(conv_geometry(x, kernel, **(defaults | options)), exact=False)
    return ConvProblem(geometry, kernel.shape[-2], kernel.shape[-1] // geometry.groups, images)


PROBLEM = problem_of(X.shape, KERNEL.shape)


def tuning_of(**implementations):
    """A tuning of `LAYER` by pass."""
    rows = ((name.replace("_", " "), chosen) for name, chosen in implementations.items())
    return Tuning(tuple(Tuned(key_of(name, PROBLEM), chosen) for name, chosen in rows))


def served(fun=LAYER, *args):
    return tuple(row.implementation for row in explain_choice(fun, *(args or (X, KERNEL)), platform="cpu").rows)


def test_in_force_within():
    usual = served()
    tuning = tuning_of(forward="winograd", input_grad="patches", kernel_grad="reference")
    with tuning as entered:
        assert entered is tuning
        assert served() == ("winograd", "patches", "reference")
        assert "the tuning in force" in explain_choice(LAYER, X, KERNEL, platform="cpu").rows[0].reason
        with implementation("xla"):
            assert served() == ("xla",) * 3
        with Tuning():
            assert served() == usual
        assert served() == ("winograd", "patches", "reference")
        assert served(correlate) == served(correlate, X, KERNEL)  # another problem
    assert served() == usual


def test_what_does_not_serve_is_not_served():
    """A tuning of another version may name what is gone, or what spreads a NaN under `jax_debug_nans`."""
    with tuning_of(forward="winograd", input_grad="gone"):
        usual = served()
        assert usual[0] == "winograd"
        with jax.debug_nans(True):
            assert served()[0] != "winograd"
    assert usual[1:] == served()[1:]


def test_backward_pass_and_jit_follow_the_call():
    rng = np.random.default_rng(0)
    x, kernel = (jax.device_put(rng.standard_normal(a.shape, a.dtype)) for a in (X, KERNEL))

    def loss(x, kernel):
        with tuning_of(forward="xla", input_grad="reference", kernel_grad="reference"):
            y = LAYER(x, kernel)
        return jnp.sin(y).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    with tuning_of(input_grad="xla", kernel_grad="xla"):
        assert gradient.lower(x, kernel).as_text().count("stablehlo.convolution") == 1  # the forward pass
    with jaxcnnbp.mode("autodiff"):
        assert_same(gradient(x, kernel), jax.grad(lambda *a: jnp.sin(LAYER(*a)).sum(), (0, 1))(x, kernel))
    layer, texts = jax.jit(LAYER), []
    for name in ("reference", "xla", "reference"):
        with tuning_of(forward=name):
            texts.append(layer.lower(X, KERNEL).as_text())
    assert texts[0] == texts[2] != texts[1]


def times(monkeypatch, **seconds):
    """Every measurement finds these."""
    monkeypatch.setattr(autotuning, "supporting", lambda *_: list(seconds))
    monkeypatch.setattr(autotuning, "measure", lambda name, problem, names, _: Measured(name, problem, seconds, {}))


@pytest.mark.parametrize(
    ("patches", "chosen"),
    [(0.5, "patches"), (0.96, "patches"), (0.98, "xla"), (1.1, "xla")],
    ids=["half", "4 % less", "2 % less", "more"],
)
def test_a_change_must_pay(patches, chosen, monkeypatch):
    monkeypatch.setattr(autotuning, "usual_name", lambda *_: "xla")
    times(monkeypatch, xla=1.0, patches=patches)
    tuning = autotune(LAYER, X, KERNEL, progress=False)
    assert {row.implementation for row in tuning.rows} == {chosen}
    assert tuning == autotune(LAYER, X, KERNEL, progress=False)
    assert hash(tuning) == hash(autotune(LAYER, X, KERNEL, progress=False))


def test_finds_every_problem_once(monkeypatch):
    times(monkeypatch, xla=1.0)

    def net(x, kernel):
        for _ in range(2):
            x = jax.jit(LAYER)(LAYER(x, kernel), kernel[..., :4, :4].repeat(2, 2))
            x = jax.checkpoint(LAYER)(x[..., :4], kernel)[..., :4]
        return jaxcnnbp.max_pool(x, (2, 2)).sum()

    tuning = autotune(jax.grad(net), X, KERNEL, progress=False)
    assert [row.key.split(" float32")[0] for row in tuning.rows] == [*PASSES[:1] * 2, *PASSES[1:2] * 2, *PASSES[2:] * 2]
    assert {row.calls for row in tuning.rows} == {1, 3}  # what is jitted counts once
    assert tuning.left_out == 0
    assert not autotune(jnp.sin, 1.0).rows


def test_a_budget_that_is_too_small(monkeypatch):
    times(monkeypatch, xla=1.0)
    tuning = autotune(LAYER, X, KERNEL, seconds=1e-9, progress=False)
    assert (len(tuning.rows), tuning.left_out) == (1, 2)
    assert "no time for 2 more" in repr(tuning)
    with pytest.raises(ValueError, match=r"`seconds` \(=0\) must be positive"):
        autotune(LAYER, X, KERNEL, seconds=0)


def test_measured_for_real():
    tuning = autotune(LAYER, X, KERNEL, seconds=0.1, progress=True)
    assert all({"xla", "reference"} <= dict(row.seconds).keys() for row in tuning.rows) or tuning.left_out
    assert tuning.rows[0].implementation in dict(tuning.rows[0].seconds)
    assert tuning.rows[0].key in repr(tuning)
    with tuning:
        served()


def test_settings_hold_while_it_compiles():
    """In other threads, where `jax.enable_x64` around the call is not in force."""
    window = Window((6, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1))
    problem = ConvProblem(ConvGeometry(window, 1, exact=False), 3, 4, 2, "float64")
    with jax.enable_x64(True):
        found = measure("forward", problem, ["columns"], 0.01)
    assert found.seconds["columns"] > 0


def test_through_a_file(tmp_path, monkeypatch):
    tuning = tuning_of(forward="winograd")
    assert Tuning.loads(tuning.dumps()) == tuning
    for text in ("", "[]", "{}", tuning.dumps().replace('"format": 1', '"format": 2')):
        with pytest.raises(ValueError, match=r"`text` \(=.*; tune again\."):
            Tuning.loads(text)
    path = tmp_path / "tuning.json"
    monkeypatch.setenv("JAXCNNBP_TUNING", str(path))
    with pytest.raises(ValueError, match=r"`JAXCNNBP_TUNING` \(=.*cannot be read"):
        tunings.installed.__wrapped__()
    path.write_text(tuning.dumps())
    assert tunings.installed.__wrapped__() == tuning
    with monkeypatch.context() as patched:
        patched.setattr(tunings, "installed", lambda: tuning)
        assert served()[0] == "winograd"
    other = dataclasses.replace(tuning, device="NVIDIA H200")
    path.write_text(other.dumps())
    with pytest.raises(ValueError, match=r"measured on 'NVIDIA H200', and this is 'cpu-.*tune again here"):
        tunings.installed.__wrapped__()
    with pytest.raises(ValueError, match="tune again here"), other:
        pass


@pytest.mark.parametrize(
    ("shape", "kernel", "options", "key"),
    [
        (X.shape, KERNEL.shape, {}, "forward float32[2,8,8,4] * [3,3,4,8], padding 1+1 1+1"),
        ((2, 9, 4), (3, 4, 8), dict(padding="VALID", stride=2), "forward float32[2,9,4] * [3,4,8], stride 2"),
        (
            (2, 9, 9, 4),
            (3, 2, 1, 8),
            dict(padding="VALID", dilation=(2, 1), groups=4),
            "forward float32[2,9,9,4] * [3,2,1,8], dilation 2x1, 4 groups",
        ),
    ],
)
def test_keys(shape, kernel, options, key):
    assert key_of("forward", problem_of(shape, kernel, **options)) == key


def row_of(problem, **seconds):
    return Measured("forward", problem, seconds, dict.fromkeys(seconds, 0.1))


def test_neighbours_decide():
    near, far = problem_of((2, 9, 9, 4), (3, 3, 4, 8)), problem_of((2, 64, 64, 64), (3, 3, 64, 64))
    depthwise = problem_of((2, 8, 8, 4), (3, 3, 1, 4), groups=4)
    table = Table.of(
        [row_of(near, xla=2.0, patches=1.0), row_of(far, xla=1.0, patches=3.0), row_of(depthwise, xla=9.0)]
    )
    expected, nearest = table.estimate(PROBLEM, ("xla", "patches", "winograd"))
    assert nearest is table.rows[0]
    assert set(expected) == {"xla", "patches"}
    assert expected["patches"].seconds < expected["xla"].seconds
    expected, nearest = table.estimate(problem_of((2, 56, 56, 48), (3, 3, 48, 64)), ("xla", "patches"))
    assert nearest is table.rows[1]
    assert expected["xla"].seconds < expected["patches"].seconds
    assert table.estimate(PROBLEM, ("winograd",))[0] == {}


def test_what_was_measured_itself_decides_against_its_neighbours():
    around = [problem_of(X.shape, KERNEL.shape, images) for images in (1, 2, 32, 64)]
    own = problem_of(X.shape, KERNEL.shape, 8)
    table = Table.of([row_of(own, xla=1.0, patches=1.5), *(row_of(each, xla=1.5, patches=1.0) for each in around)])
    expected, nearest = table.estimate(own, ("xla", "patches"))
    assert nearest is table.rows[0]
    assert expected["xla"].seconds < expected["patches"].seconds


def test_other_kinds_of_processors_count_less():
    here, there = row_of(PROBLEM, xla=2.0, patches=1.0), row_of(PROBLEM, xla=1.0, patches=2.0)
    for both, fastest in ((Table.of([here], [there]), "patches"), (Table.of([there], [here]), "xla")):
        expected, nearest = both.estimate(PROBLEM, ("xla", "patches"))
        assert nearest is both.rows[0]
        assert min(expected, key=lambda name: expected[name].seconds) == fastest
    expected, _ = Table.of([], [here]).estimate(PROBLEM, ("xla", "patches"))
    assert expected["patches"].seconds < expected["xla"].seconds
    kinds = {kind: table(kind, "forward") for kind in ("avx2", "avx512", "arm64")}
    assert len({len(of_kind.rows) for of_kind in kinds.values()}) == 1
    assert kinds["avx2"].rows[0] is not kinds["avx512"].rows[0]


def test_compiling_has_a_price():
    assert soonest_of_the_fast({"xla": Expected(1.05, 0.1), "patches": Expected(1.0, 0.9)}) == "xla"
    assert soonest_of_the_fast({"xla": Expected(1.5, 0.1), "patches": Expected(1.0, 0.9)}) == "patches"


def test_rows_of_tables_are_read_as_they_are_written():
    row = measure("kernel grad", PROBLEM, supporting("kernel grad", PROBLEM), 0.001)
    again = Measured.from_json(row.to_json())
    assert again.problem == row.problem
    assert again.pass_name == "kernel grad"
    assert again.seconds == pytest.approx(row.seconds, rel=1e-3)
    assert regret_of(again).to_best >= 1


@pytest.mark.parametrize("kind", ["avx2", "avx512"])
def test_shipped_tables(kind):
    """Every implementation that they name is there and supports the problem."""
    for name, of in passes().items():
        rows = table(kind, name).rows
        assert {row.problem.dtype for row in rows} >= {"float32"}
        for row in rows:
            able = {each.name for each in of.all if each.supports(row.problem)}
            assert row.seconds.keys() <= able | ({"in_turn"} if row.problem.has_single_cells else set())
            assert row.seconds.keys() == row.compile_seconds.keys()


def test_random_problems():
    rng = np.random.default_rng(0)
    problems = [random_problem(rng, "float32") for _ in range(150)]
    rng = np.random.default_rng(0)
    assert problems == [random_problem(rng, "float32") for _ in range(150)]
    assert {p.geometry.window.rank for p in problems} == {kind.rank for kind in KINDS.values()}
    assert all(p.geometry.window.output and supporting("forward", p) for p in problems)


def run(*args):
    result = CliRunner().invoke(main, ["tune", *args], catch_exceptions=False)
    return result.exit_code, result.output


def test_command_line(tmp_path, monkeypatch):
    times(monkeypatch, xla=1.0, reference=0.9)
    (tmp_path / "own_program.py").write_text(
        "import jax.numpy as jnp\nfrom jaxcnnbp import correlate\n"
        "def loss(x, k): return correlate(x, k).sum()\n"
        "def arguments(): return jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "tuning.json"
    code, output = run("own_program:loss", "--args", "own_program:arguments", "-o", str(path))
    assert code == 0
    assert "forward float32[1,4,4,1] * [2,2,1,3]\n      reference 900, xla 1e+03" in output
    assert len(Tuning.loads(path.read_text()).rows) == 3
    code, output = run("--model", "digits", "--batch", "2")
    assert code == 0
    assert "passes on cpu-" in output
    code, output = run("own_program:nothing", "--args", "own_program:arguments")
    assert code == 2
    assert "is not there" in output
    for wrong in ((), ("--model", "digits", "--table"), ("--table",)):
        assert run(*wrong)[0] == 2


def test_table_and_regret(tmp_path, monkeypatch):
    path, seen, cleared = tmp_path / "table.jsonl", [], []

    def fake(name, problem, names, _):
        seen.append(problem)
        return Measured(name, problem, {n: float(1 + i) for i, n in enumerate(names)}, dict.fromkeys(names, 0.1))

    monkeypatch.setattr("jaxcnnbp.tune.regret.measure", fake)
    # Else the tests that come after would have to compile all anew.
    monkeypatch.setattr("jaxcnnbp.tune.regret.jax.clear_caches", lambda: cleared.append(len(seen)))
    for count in (1, 2):
        code, _ = run("--table", "-o", str(path), "--seconds", "1e-9")
        assert (code, len(path.read_text().splitlines())) == (0, count)
    assert seen[0] != seen[1]
    code, output = run("--regret", "2")
    assert code == 0
    assert "worst" in output
    assert output.count("best ") >= 3
    assert cleared == [3, 4, 5, 6, 7]  # after every pass of two problems but the last
