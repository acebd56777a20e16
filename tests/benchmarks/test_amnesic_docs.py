"""What docs/amnesic.md says of rates is what the records hold; what had to be shown is there."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.amnesic_calibration import markdown
from benchmarks.amnesic_mechanism import sentences

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/amnesic.md").read_text(encoding="utf-8")


def record(name: str):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def test_the_docs_hold_the_rates_as_printed() -> None:
    assert markdown(record("amnesic_calibration")["rows"]) in DOCS
    for line in sentences(record("amnesic_mechanism")["summary"]):
        assert line.strip() in DOCS, line


def test_the_labels_own_factor_costs_and_others_do_not() -> None:
    found = record("amnesic_mechanism")["summary"]["factors"]
    for stage in ("before", "after, full"):
        assert found[stage]["own_costs"]["share"] == 1.0
        assert found[stage]["others_costs"]["share"] < 0.1


def test_false_alarms_keep_to_the_level() -> None:
    rows = record("amnesic_calibration")["rows"]
    assert all(row["false_rests"]["low"] <= 0.05 for row in rows)


def test_the_real_studies_in_the_docs_are_those_of_the_record() -> None:
    evidence = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    studies = record("amnesic_real")["studies"]
    rows = {
        (r["cluster"], r["stage"]): r for r in studies["ultrasound, malignancy"]["table"]
    }  # fmt: skip
    for stage in ("pre", "ft"):
        row = rows["us lesion shape2D", stage]
        told = f"{row['loss']:.2f} [{row['loss_low']:.2f}, {row['loss_high']:.2f}]"
        assert told in evidence
