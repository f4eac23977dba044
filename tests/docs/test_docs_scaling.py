"""The tables on paper are those that the script prints, and it counts what is known of ResNet-50."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_tables_on_paper(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("flax")
    script = runpy.run_path(str(DOCS / "reckon_scaling.py"))
    step = script["step_of"](script["resnet50"]())
    assert step.parameters == 25_557_032  # torchvision's
    forward = (step.operations / 64 + 2 * 112 * 112 * 64 * 7 * 7 * 3) / 3  # the images have no gradient
    assert forward == pytest.approx(2 * 4.09e9, rel=0.01)  # torchvision's 4.09 G multiplications
    script["main"]()
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page
