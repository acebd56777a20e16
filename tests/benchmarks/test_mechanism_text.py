"""What the docs say of the study with a known mechanism is what its record prints."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.mechanism_text import text

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks/results/mechanism.json"


def test_the_docs_hold_the_section_as_printed() -> None:
    section = text(json.loads(RECORD.read_text(encoding="utf-8")))
    assert section in (ROOT / "docs/evidence.md").read_text(encoding="utf-8")


def test_the_numbers_follow_the_record() -> None:
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    found["summary"]["full"]["sensitivity"] |= {"share": 0.123, "of": 77}
    found["summary"]["frozen"]["called"] |= {"share": 0.5, "of": 88}
    said = text(found)
    assert "the lens calls 12.3%" in said
    assert "of 77 in the right direction" in said
    assert "44 of 88 features are called, a check of the code" in said


def test_what_the_study_must_show_is_in_its_record() -> None:
    """The aims set before it was run; a record that misses them is not put here in silence."""
    summary = json.loads(RECORD.read_text(encoding="utf-8"))["summary"]
    assert 0.4 <= summary["full"]["median_r2_before"] <= 0.8
    assert summary["permuted"]["called"]["share"] <= 0.05
    assert summary["frozen"]["called"]["share"] == 0
    assert summary["frozen"]["runs"] == summary["full"]["runs"] == 12
