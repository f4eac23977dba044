"""Real runs, short ones: no time is asserted, only that everything is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner, Result

from jaxcnnbp.bench import CASES, NETWORKS, Settings, check_instrument, limit, load, run
from jaxcnnbp.bench.columns import means
from jaxcnnbp.bench.program_facts import compile_cold, residual_bytes
from jaxcnnbp.cli.main import main

HAS_TORCH = Settings().with_torch


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("bench", *arguments), catch_exceptions=False)


@pytest.fixture(scope="module", autouse=True)
def _small_limit() -> Iterator[None]:
    """The limit of a machine takes seconds of all cores at the sizes where it is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limit, "_SIZES", dict.fromkeys(("cpu", "gpu"), (256, 2**20)))
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Path, Result]:
    """One run by the command line, with everything written."""
    path = tmp_path_factory.mktemp("bench") / "a.json"
    # Libraries are not as strict as this session is.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        chosen = ("--cases", "lenet-c1,dilated-max", "--steps", "lenet-5", "--passes", "kernel grad,together")
        arguments = (
            "--batch-scale",
            "0.02",
            "--seconds-per-row",
            "0.001",
            "--json",
            str(path),
            "--plot",
            str(path.with_suffix(".png")),
        )
        return path, call(*chosen, *arguments)


@pytest.mark.slow
def test_command_measures_and_writes(stored):
    path, result = stored
    assert result.exit_code == 0, result.output
    assert path.with_suffix(".png").stat().st_size > 10_000
    plain = json.loads(path.read_text())
    assert list(plain) == ["machine", "versions", "method", "self_check", "limit", "rows", "steps"]
    assert [(row["case"], row["pass"]) for row in plain["rows"]] == [
        ("lenet-c1", "kernel grad"),
        ("lenet-c1", "together"),
        ("dilated-max-3x3", "together"),
    ]
    for row in (*plain["rows"], *plain["steps"]):
        sides = ["jaxcnnbp", "autodiff"] if row["case"] != "dilated-max-3x3" else ["jaxcnnbp"]
        sides += ["alone", "torch"] if HAS_TORCH else []
        assert all(row[side]["low"] <= row[side]["median"] <= row[side]["high"] for side in sides)
        assert all(row["compile_s"][side] > 0 for side in sides if side in ("jaxcnnbp", "autodiff"))
        assert row["residual_bytes"]["jaxcnnbp"] > 0
        assert row["dtype"] == "float32"
    assert plain["steps"][0]["nn"]["calls"] >= 3
    assert plain["limit"]["float32"]["gflops"] > 0
    assert plain["machine"]["cores"] >= 1


@pytest.mark.slow
def test_missing_gradient_is_reported(stored):
    row = next(row for row in load(stored[0]).rows if row.case == "dilated-max-3x3")
    assert "autodiff" not in row.times
    assert "dilation" in row.notes["autodiff"]
    assert "No autodiff for dilated-max-3x3 (together): VJP not implemented" in stored[1].output


@pytest.mark.slow
def test_stored_results_are_shown_and_compared(stored):
    result = call("--show", str(stored[0]), "--compare", str(stored[0]))
    assert result.exit_code == 0
    assert "dilated-max-3x3" in result.output
    assert "1.00x as fast over 4 rows" in result.output


@pytest.mark.slow
def test_rows_are_appended(tmp_path):
    path = tmp_path / "a.json"
    for cases in ("vgg-max-2x2-late", "resnet-mean-global"):
        options = ("--passes", "forward", "--batch-scale", "0.01", "--seconds-per-row", "0.001", "--no-torch")
        assert call("--cases", cases, *options, "--json", str(path), "--append").exit_code == 0
    assert sorted(row.case for row in load(path).rows) == ["resnet-mean-global", "vgg-max-2x2-late"]


@pytest.mark.slow
def test_steps_in_a_loop():
    networks = tuple(network for network in NETWORKS if network.name == "lenet-5")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        found = run(Settings(cases=(), networks=networks, batch_scale=0.02, steps_a_call=3, seconds=1e-3))
    assert [(row.case, row.step) for row in found.steps] == [("lenet-5", "3 in a loop")]
    assert found.steps[0].times.keys() >= {"jaxcnnbp", "autodiff", "nn"}
    assert [mean.kind for mean in means(found)] == ["training steps"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes(dtype):
    wanted = tuple(case for case in CASES if case.name in ("lenet-c2", "mean-14x14"))
    found = run(
        Settings(
            cases=wanted, networks=(), passes=("together",), dtype=dtype, batch_scale=0.01, seconds=1e-3, torch=False
        )
    )
    assert {row.dtype for row in found.rows} == {dtype}
    assert list(found.limit) == [dtype]
    bytes_of = {row.case: row.residual_bytes["jaxcnnbp"] for row in found.rows}
    width = 8 if dtype == "float64" else 2
    assert bytes_of == {"lenet-c2": width * (14 * 14 * 6 + 5 * 5 * 6 * 16), "mean-14x14": 0}


def test_listing_names_everything():
    output = call("--list").output
    assert all(f"{entry.name} " in output and entry.layer in output for entry in (*CASES, *NETWORKS))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--cases", "nonsense"), "`cases` (='nonsense') matches none of"),
        (("--cases", ","), "`cases` (=',') matches none of"),
        (("--steps", "nonsense"), "`steps` (='nonsense') matches none of: lenet-5, vgg-11"),
        (("--passes", ","), "`passes` (=',') matches none of: forward"),
        (("--batch-scale", "0"), "`batch_scale` (=0.0) must be above 0."),
        (("--steps-a-call", "0"), "`steps_a_call` (=0) must be above 0."),
        (("--json", "no/such/folder/a.json"), "`json` (=no/such/folder/a.json) lies in no folder"),
        (("--append",), "`append` (=True) needs a file"),
        (("--plot", "a.xyz"), "must end like a picture"),
        (("--show", "no-such-file.json"), "no-such-file.json: No such file or directory."),
        (("--show", "pyproject.toml"), "holds no results of `jaxcnnbp bench`"),
    ],
)
def test_refusals_are_sentences(arguments, sentence, request):
    result = CliRunner().invoke(main, ("bench", *arguments))
    output = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code != 0
    assert sentence in output
    assert "Traceback" not in output


def test_settings_are_checked():
    with pytest.raises(ValueError, match="dtype"):
        Settings(dtype="float16")
    with pytest.raises(ValueError, match="passes"):
        Settings(passes=("backward",))


def test_self_check_says_what_it_found():
    found = check_instrument(with_torch=False, seconds=0.05)
    assert found.after_torch is None
    assert f"{found.interleaved:.3f} call by call" in str(found)


def test_residuals_are_counted():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 2))
    assert residual_bytes(jnp.matmul, x, w) == 4 * (32 + 16)
    assert residual_bytes(lambda x: (x.sum(), x), x, has_aux=True) == 0


def test_compilation_goes_past_the_cache(tmp_path):
    """A cache that the process used before is neither read nor written, and serves again afterwards."""
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    kept = {
        name: jax.config.values[name]
        for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    }
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        reset_cache()
        jax.jit(lambda x: x * 3 + 1).lower(jnp.ones(3)).compile()
        before = {path.name for path in tmp_path.iterdir()}
        assert before
        assert compile_cold(jax.jit(lambda x: x * 5 + 2), jnp.ones(3)).seconds > 0
        assert {path.name for path in tmp_path.iterdir()} == before
        jax.jit(lambda x: x * 7 + 3).lower(jnp.ones(3)).compile()
        assert {path.name for path in tmp_path.iterdir()} > before
    finally:
        for name, value in kept.items():
            jax.config.update(name, value)
        reset_cache()
