"""Results as JSON, as a table, as Markdown, as a picture, and against older ones."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from jaxcnnbp.bench import Results, Row, SelfCheck, Timing, load, markdown, save
from jaxcnnbp.bench.columns import means
from jaxcnnbp.bench.compare import changed, changes
from jaxcnnbp.bench.limit import Limit
from jaxcnnbp.bench.plot import plot_speedups
from jaxcnnbp.bench.results import geometric_mean, losses, speedups
from jaxcnnbp.bench.table import tables
from jaxcnnbp.cli.compare import WIDTH
from jaxcnnbp.train import InputError


def timing(ms: float, spread: float = 0.0) -> Timing:
    return Timing(1e-3 * ms, 1e-3 * ms * (1 - spread / 2), 1e-3 * ms * (1 + spread / 2), 9)


def row(case: str, ours: float, step: str = "forward", layer: str = "2x8x8x3 -> 4, 3x3", **others: float) -> Row:
    times = {"jaxcnnbp": timing(ours)} | {side: timing(ms) for side, ms in others.items()}
    both = {"jaxcnnbp": 3 * 2**20, "autodiff": 2**30}
    return Row(
        case, layer, step, "float32", times, both, both, {"jaxcnnbp": 0.5, "autodiff": 12.0}, 0.5, "channels last"
    )


ROWS = (
    row("conv", 2.0, autodiff=8.0, alone=1.0, torch=3.0),
    row("conv", 2.0, "together", autodiff=1.0, alone=2.0, torch=1.0),
    row("pool", 1.0, layer="2x8x8x3, max 2x2/2", autodiff=100.0),
    dataclasses.replace(row("dilated", 1.0, "together"), notes={"autodiff": "VJP not implemented."}),
)
RESULTS = Results(
    machine={"cpu": "A CPU", "cores": 2, "memory_gib": 4.0, "os": "an OS", "platform": "cpu", "device": "cpu"},
    versions={"jaxcnnbp": "0", "jax": "1"},
    method={"figures": "medians"},
    self_check=SelfCheck(1.001, 0.99),
    limit={"float32": Limit(100.0, 10.0, {"matmul, JAX": 100.0})},
    rows=ROWS,
    steps=(row("net", 10.0, "step", "4x8x8x3, sgd", autodiff=50.0, nn=9.0, alone=10.0, torch=12.0),),
)


def test_json_there_and_back(tmp_path):
    save(RESULTS, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == RESULTS
    plain = json.loads((tmp_path / "a.json").read_text())
    assert plain["self_check"]["ok"] is True
    assert plain["rows"][0]["pass"] == "forward"
    assert plain["rows"][0]["jaxcnnbp"] == {"median": 0.002, "low": 0.002, "high": 0.002, "calls": 9}
    assert plain["rows"][2]["torch"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"`path` \(=.*a.json\) holds no results"):
        load(tmp_path / "a.json")


def test_torch_is_compared_with_the_block_of_its_kind():
    assert ROWS[0].speedup("autodiff") == pytest.approx(4)
    assert ROWS[0].speedup("torch") == pytest.approx(3)
    assert ROWS[2].speedup("torch") is None
    assert speedups(ROWS, "torch") == pytest.approx([3, 0.5])
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4)


def test_limit_bounds_the_speedup():
    """Half the limit in 2 ms: 1 ms there, 8 times faster than autodiff's 8 ms."""
    assert ROWS[0].bound == pytest.approx(8)
    assert dataclasses.replace(ROWS[0], roofline_fraction=None).bound is None
    assert ROWS[3].bound is None
    assert [mean.bound for mean in means(RESULTS)][:2] == pytest.approx([8, 1])


def test_dtypes_are_told_apart():
    narrow = dataclasses.replace(ROWS[0], dtype="bfloat16")
    assert (ROWS[0].name, narrow.name) == (ROWS[0].case, f"{ROWS[0].case} bf16")
    both = dataclasses.replace(RESULTS, rows=(ROWS[0], narrow), steps=())
    assert [(mean.kind, mean.rows) for mean in means(both)] == [("convolutions", 1), ("convolutions bf16", 1)]


def test_losses_are_named_the_worst_first():
    slight, equal = row("slight", 1.0, autodiff=0.94), row("equal", 1.0, autodiff=0.96)
    assert losses((equal, slight, *ROWS), "autodiff") == [ROWS[1], slight]
    assert losses(ROWS, "torch") == [ROWS[1]]


def test_newer_rows_replace_older_ones_and_the_worse_check_stays():
    newer = dataclasses.replace(RESULTS, rows=(row("conv", 1.0),), steps=(), self_check=SelfCheck(1.0))
    older = dataclasses.replace(RESULTS, self_check=SelfCheck(1.2))
    merged = newer.over(older)
    assert merged.self_check == SelfCheck(1.2)
    assert merged.rows == (newer.rows[0], *ROWS[1:])
    assert merged.steps == RESULTS.steps


def printed(results: Results, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, force_terminal=terminal, color_system="standard" if terminal else None)
    for part in tables(results):
        console.print(part)
    return file.getvalue()


def test_table_fits_and_tells():
    text = printed(RESULTS)
    assert max(map(len, text.splitlines())) <= WIDTH
    for told in ("A CPU, 2 cores", "100 GFLOP/s", "as it must be", "3.0/1024", "0.5/12", "50%"):
        assert told in text
    assert "Slower than autodiff (1): conv together 0.50." in text
    assert "No autodiff for dilated (together): VJP not implemented." in text
    lines = [line.split() for line in text.splitlines()]
    assert ["conv", "forward", "2.00", "8.00", "4.00", "1.00", "3.00", "3.00"] in [line[:8] for line in lines]
    assert ["net", "step", "10.0", "50.0", "5.00", "9.00", "10.0", "12.0", "1.20"] in [line[:9] for line in lines]
    assert ["convolutions", "forward", "4.00", "3.00", "8.00", "1"] in lines


def test_longest_case_fits():
    long = row("shufflenet-1x1-3-groups", 1234.5, "kernel grad", autodiff=1234.5, alone=1234.5, torch=1234.5)
    text = printed(dataclasses.replace(RESULTS, rows=(long,)))
    assert "shufflenet-1x1-3-groups" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text


def test_unquiet_machine_is_red():
    restless = dataclasses.replace(RESULTS, self_check=SelfCheck(1.5))
    assert "\x1b[1;31mA function against itself: 1.500" in printed(restless, terminal=True)
    assert "\x1b[1;31mA function" not in printed(RESULTS, terminal=True)


def test_spread_is_marked():
    noisy = dataclasses.replace(ROWS[0], times={"jaxcnnbp": timing(2.0, spread=0.2)})
    assert "~2.00" in printed(dataclasses.replace(RESULTS, rows=(noisy,)))


def test_markdown(tmp_path):
    save(RESULTS, tmp_path / "a.json")
    text = markdown(tmp_path / "a.json")
    assert "| conv | 2x8x8x3 -> 4, 3x3 | together | 2.00 | 1.00 | **0.50** |" in text
    assert "- Slower than PyTorch (1): conv together 0.50." in text
    assert "| training steps | step | 5.00 | 1.20 | 10.0 | 1 |" in text
    tables_only = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables_only[-3:]}) == 1


def test_change_is_what_the_machine_does_not_explain():
    """The machine became half as fast: autodiff tells. One layer became faster against that."""
    now = (row("conv", 4.0, autodiff=16.0), row("pool", 1.0, autodiff=200.0), row("new", 1.0))
    found = list(changed(dataclasses.replace(RESULTS, rows=now, steps=()), RESULTS))
    assert [(c.row.case, c.factor, c.machine, c.own) for c in found] == [("conv", 0.5, 0.5, 1), ("pool", 1, 0.5, 2)]
    text = changes(dataclasses.replace(RESULTS, rows=now), RESULTS)
    assert "Faster than before: pool forward 2.00x." in text
    assert "Slower than before: nothing." in text
    assert "no row in common" in changes(RESULTS, dataclasses.replace(RESULTS, rows=(), steps=()))


def test_other_machine_is_mentioned():
    other = dataclasses.replace(RESULTS, machine=RESULTS.machine | {"cpu": "Another"})
    assert "of another machine: Another" in changes(RESULTS, other)


def test_picture(tmp_path):
    plot_speedups(tmp_path / "a.svg", RESULTS)
    drawn = (tmp_path / "a.svg").read_text()
    for label in ("PyTorch", "training step", "together"):
        assert f"<!-- {label} -->" in drawn
    with pytest.raises(InputError, match="nothing was compared"):
        plot_speedups(tmp_path / "b.svg", dataclasses.replace(RESULTS, rows=ROWS[3:], steps=()))
