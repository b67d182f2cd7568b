"""The encoders' benchmark: a small run of its job in a process, and the numbers of its page."""

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

FOLDER = Path(__file__).parent.parent / "scripts" / "encoder_benchmark"
specification = importlib.util.spec_from_file_location("encoder_benchmark_run", FOLDER / "run.py")
assert specification and specification.loader
run = importlib.util.module_from_spec(specification)
specification.loader.exec_module(run)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory by /proc")
def test_an_encoder_is_measured() -> None:
    figure = run.job("cost", "cellpose_cyto3", 256, 0)
    assert (figure["tiles"], figure["features"], figure["points"]) == (1, 480, 3000)
    assert 110 < figure["bytes_per_pixel"] < 130  # 480 float16 features at strides 1 to 8: 120 and an index
    assert figure["featureforest_bytes_per_pixel"] > 2 * 480
    assert figure["extra_mib"] > 0 and figure["network_mib"] > 0
    assert len(figure["bare"]) == len(figure["extract"]) == 1 and len(figure["lookup"]) >= 5
    [_, _, row] = run.cost_table([figure]).splitlines()
    assert row.startswith("| cellpose_cyto3 | 1 of 256² | ")
    [_, _, row] = run.store_table([figure]).splitlines()
    assert "32 at 1, 64 at 2, 128 at 4, 256 at 8" in row


def test_a_ratio_is_that_of_one_round() -> None:
    figure = {"bare": [[2.0, 4.0], [4.0, 8.0]], "extract": [[2.2, 4.0], [4.4, 9.6]]}
    assert run.ratio(figure, 0) == "1.10"
    assert run.ratio(figure, 1) == "1.10 (1.00 to 1.20)"


def test_differences_are_paired() -> None:
    found = np.array([0.5, 0.9, 0.7])
    assert run.difference((found + 0.1).tolist(), found.tolist()) == "+0.100 ± 0.000"
    table = run.combination_table(
        {"cell": {n: {"few": [v, v], "many": [v, v], "features": 9} for n, v in (("a", 0.5), ("b", 0.7), ("a+b", 0.8))}}
    )
    assert "| cell: a+b | 9 | 0.800 | +0.100 ± 0.000 | 0.800 | +0.100 ± 0.000 |" in table
    assert "| cell: b | 9 | 0.700 |  | 0.700 |  |" in table


def test_a_combination_is_no_worse_than_its_better_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one stroke of each class of `cell`, where a filter shows the classes and most features of a network do not."""
    monkeypatch.syspath_prepend(FOLDER)
    combination = importlib.import_module("combination")
    monkeypatch.setattr(combination, "SPLITS", 8)
    picture = combination.cell()
    means = [np.mean(combination.recalls(picture, name)["few"]) for name in combination.ENCODERS]
    assert means[2] > max(means[:2]) - 0.01, means
    assert means[0] > means[1] + 0.02, means


def test_a_table_is_replaced_and_dated() -> None:
    page = "# P\n\n## A\n\nText a.\n\n| a |\n| --- |\n\n## B\n\nText b.\n\n| b |\n| --- |\n| 1 |\n\n## C\n\nc\n"
    once = run.replaced(page, "B", "| n |\n| --- |")
    today = run.date.today().isoformat()
    assert once == page.replace("| b |\n| --- |\n| 1 |", f"Measured on {today}.\n\n| n |\n| --- |")
    assert run.replaced(once, "B", "| n |\n| --- |") == once
