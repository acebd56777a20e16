"""What the docs say of edits, depth and kinds of training is what the records hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.edits import markdown

ROOT = Path(__file__).parents[2]
EVIDENCE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")


def studies(name: str) -> Any:
    path = ROOT / f"benchmarks/results/{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["studies"]


def section(title: str) -> str:
    return EVIDENCE.split(f"### {title}\n")[1].split("\n## ")[0].split("\n### ")[0]


def test_no_edit_moves_the_score_of_malignancy() -> None:
    table = studies("edits_real")["us"]["table"]
    assert not any(row["moves"] for row in table if row["task"] != "permuted")
    largest = next(r for r in table if r["edit"] == "texture:3" and r["task"] == "malignancy"
                   and r["stage"] == "ft")  # fmt: skip
    told = f"{largest['slope']:.2f} SD of the label per SD of added noise "
    told += f"[{largest['slope_low']:.2f}, {largest['slope_high']:.2f}]"
    assert told in section("What the scores do when the image is edited")


@pytest.mark.parametrize(("task", "told"), [("volume", "0.07"), ("low-rank", "0.04")])
def test_the_score_of_volume_follows_the_contour_by_as_much_as_is_said(
    task: str, told: str
) -> None:
    rows = [row for row in studies("edits_real")["hip"]["table"] if row["edit"] == "grow"]
    own = {row["stage"]: row for row in rows if row["task"] == task}
    assert not own["pre"]["moves"]
    after = [row for row in rows if row["task"] == task and row["stage"] == "ft"]
    assert all(row["moves"] and f"{row['slope']:.2f}" == told for row in after)
    assert not any(row["moves"] for row in rows if row["stage"] == "change")
    assert not any(row["moves"] for row in rows if row["task"] == "permuted")


def test_the_frame_tells_the_volume_as_is_said() -> None:
    found = studies("edits_real")["hip"]
    assert f"tell the volume with R2 {found['label_r2_of_frame']:.2f}" in EVIDENCE
    # Half its size per millimetre, in standard deviations of the label: 3.30 and 0.43 ml.
    assert found["size_of_region_per_unit"] * 3.295 / 0.4325 == pytest.approx(3.8, abs=0.05)


def test_what_is_called_by_depth_is_what_is_said() -> None:
    found = studies("layers_real")
    assert found["us"]["cls-0"]["called"] == ["glrlm lost stage4", "gldm lost stage4"]
    for run in ("lora-0", "permuted-0"):
        assert not found["us"][run]["called"]
    for run, content in found["hip"].items():
        assert bool(content["called"]) == run.startswith("permuted"), run
    gldm = next(r for r in found["us"]["cls-0"]["table"]
                if r["group"] == "gldm" and r["layer"] == "stage4")  # fmt: skip
    told = f"GLDM {gldm['delta_r2']:.2f} [{gldm['delta_r2_low']:.2f}, {gldm['delta_r2_high']:.2f}]"
    assert told in section("Where in the encoder")


def test_kinds_are_told_apart_as_is_said() -> None:
    found = studies("taxonomy_real")
    assert all(row["differ"] == "not known" for row in found["us"]["kinds"])
    apart = {
        frozenset((row["kind_a"], row["kind_b"]))
        for row in found["hip"]["kinds"]
        if row["differ"] == "yes"
    }
    assert apart == {
        frozenset((other, "volume, low-rank")) for other in ("volume", "outline", "permuted")
    }
    text = section("Which trainings changed the same")
    for row in found["hip"]["kinds"]:
        if {row["kind_a"], row["kind_b"]} in (
            {"volume", "outline"},
            {"volume", "volume, low-rank"},
        ):
            assert f"({row['lowest']:.2f} to {row['highest']:.2f})" in text


def test_the_docs_of_edits_hold_the_tables_as_printed() -> None:
    path = ROOT / "benchmarks/results/edits.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    docs = (ROOT / "docs/edits.md").read_text(encoding="utf-8")
    for table in markdown(record).split("\n\n"):
        assert table in docs
    rates = {(r["kind"], r["head"], r["own"], r["stage"]): r for r in record["rates"]}
    own, others = rates["full", "own", True, "ft"], rates["full", "own", False, "ft"]
    assert own["low"] > others["high"]
    assert f"{own['moves']} of {own['of']}, in all three seeds of four of five labels" in docs
    assert not any(r["moves"] for r in record["rates"] if r["head"] == "exchanged")
