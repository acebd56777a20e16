"""The section of radiomic edits: says what the table shows, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lens.edits.catalogue import parse_edits, targets
from lens.report.album import LEFT_OUT, Album
from lens.report.edits_section import SECTION, sentence
from lens.report.edits_sheet import sheet
from lens.report.page import write_report
from tests.edits.builders import case, ready, tables


def page(folder: Path, **options) -> str:
    return write_report(folder, [SECTION], **options).read_text("utf-8")


@pytest.fixture
def with_edits(folder: Path) -> Path:
    (folder / "edits").mkdir()
    tables().write(folder / "edits", {})
    found = targets(parse_edits(["shift", "grow"], {}, flat=False), ["lesion"], ["t2"])
    of = ready(case(shape=(24, 40, 40), radius=5.0))
    (folder / "edits/edits-sheet.json").write_text(json.dumps(sheet({"lesion": of}, found)))
    return folder


def test_without_edits_there_is_no_section(folder: Path) -> None:
    assert "When the image is edited" not in page(folder)


def test_the_sentence_is_that_of_the_table(with_edits: Path, undrawn: list[str]) -> None:
    html = page(with_edits)
    assert "After fine-tuning, 1 of 3 edits move the task score" in html
    assert "shift of T2 in lesion" in html
    assert "Before it, 0 of 3 edits move the task score beyond both controls." in html
    assert "1 edit(s) have no control outside" in html
    assert html.count("<image id=") == 2
    assert "P00" not in html
    assert re.search(r"n = \d+( to \d+)? edited\s+patients", html)
    assert not re.search(r"\bALL\b", re.sub("<(style|script).*?</", "", html, flags=re.S))


def test_a_page_without_pictures_has_no_sheet(with_edits: Path) -> None:
    html = page(with_edits, album=Album(LEFT_OUT))
    assert "<image id=" not in html
    assert LEFT_OUT in html


def test_names_that_are_markup_stay_text(with_edits: Path) -> None:
    made = tables(tasks=("</script><b>x", "other"))
    made.write(with_edits / "edits", {})
    html = page(with_edits)
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html


def test_what_was_not_tested_is_not_claimed() -> None:
    rows = tables().edits
    rows["p_family"] = np.nan
    assert "could be tested" in sentence(rows)


def test_the_sheet_shows_original_doses_and_controls() -> None:
    found = targets(parse_edits(["shift", "grow"], {}, flat=False), ["lesion"], ["t2"])
    rows = sheet({"lesion": ready(case(shape=(24, 40, 40), radius=5.0))}, found)["rows"]
    assert [tile["label"] for tile in rows[0]["tiles"]] == [
        "original", "-1", "-0.5", "+0.5", "+1", "outside -1", "noise as -1",
    ]  # fmt: skip
    assert all(tile["path"] for row in rows for tile in row["tiles"])
    # A grown region has another contour, an outside one lies elsewhere.
    paths = [tile["path"] for tile in rows[1]["tiles"]]
    assert len(set(paths[:3])) == 3
