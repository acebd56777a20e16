"""What docs/rest.md says of rates is what the record holds; what had to be shown is there."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.rest_calibration import SETTINGS, markdown

ROOT = Path(__file__).resolve().parents[2]

ROWS = json.loads((ROOT / "benchmarks/results/rest_calibration.json").read_text())["rows"]


def test_the_table_of_the_docs_is_that_of_the_record() -> None:
    assert markdown(ROWS) in (ROOT / "docs/rest.md").read_text(encoding="utf-8")
    assert [row["name"] for row in ROWS] == [setting.name for setting in SETTINGS]


def test_nothing_is_told_where_nothing_is_there_and_much_where_much_is() -> None:
    for row in ROWS:
        for side in ("new", "gone"):
            found = row[side]
            if not row["truth"]:
                assert found["told"]["share"] <= 0.1, row["name"]
                assert abs(found["share"]) < 0.06, row["name"]
            elif row["n"] >= 200 and not row["outliers"]:
                assert found["told"]["share"] == 1.0
                assert 0.8 * row["truth"] < found["share"] < 1.02 * row["truth"]


def test_no_change_is_shown_where_an_embedding_was_turned() -> None:
    for row in ROWS:
        if row["measured"] is None and not row["noise"]:
            assert row["new"]["changed"]["share"] == 0.0
            assert row["gone"]["changed"]["share"] == 0.0
