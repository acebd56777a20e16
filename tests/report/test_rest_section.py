"""The section on what changed: sentences say what the rows hold, and claim nothing without them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.anonymise import Anonymiser
from lens.report import patients_section, rest_section
from lens.report.page import write_report
from lens.report.rest_section import rest_figure
from lens.report.rest_text import percent, sentences

HOSTILE = "</script><b>\u202eQ"


def row(side: str, grouping: str, group: str, share: float, **options) -> dict:
    """A row of a side with a size of 0.3 over a floor of 0.02."""
    ends = {
        f"{name}{end}": value + move
        for name, value in (("share", share), ("size", 0.3), ("unique", options.get("unique", 0.1)))
        for end, move in (("", 0.0), ("_low", -0.05), ("_high", 0.05))
    }
    first = {"side": side, "grouping": grouping, "group": group, "n_features": 12}
    last = {"p_maxt": 0.01, "p_unique_maxt": 0.2, "floor": 0.02, "null_high": 0.03}
    return {**first, **ends, **last, "finding": "told"} | options


def table(**options) -> pd.DataFrame:
    rows = [
        row(side, *each, **options)
        for side in ("new", "gone")
        for each in (
            ("all", "all", 0.4), ("modality", "dwi gland", 0.3), ("modality", HOSTILE, 0.02),
            ("class", "glcm", 0.35), ("seed", "another seed", 0.8),
            ("seed", "all and another seed", 0.9),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_sentences_say_what_the_rows_hold() -> None:
    new, gone = sentences(table())
    assert "30% [25%, 35%] of the embedding after fine-tuning is new" in new
    assert "The 12 features tell 40% [35%, 45%] of what is new (alone: glcm 35%, DWI" in new
    assert "The other 60% is not radiomic, or not in a form" in new
    assert (
        "from another seed tells 80% [75%, 85%] of what is new, 10% [5%, 15%] of it beyond" in new
    )
    assert "comes again and is not radiomic" in new
    assert "Neither tells 10%" in new
    assert "of the embedding before is gone" in gone


def test_nothing_is_claimed_without_a_finding() -> None:
    (said, _) = sentences(table(finding="no change shown", floor=0.29))
    assert "no more is shown to be new, and no share of it is claimed" in said
    assert "tell" not in said.replace("does not tell", "")
    (said, _) = sentences(table(finding="not told"))
    assert "not shown to tell any of what is new" in said
    assert "other" not in said.replace("another", "")
    (said, _) = sentences(table(floor=0.2))
    assert "much of this may be no change" in said
    (said, _) = sentences(table(unique=-0.01))
    assert "nothing that comes again is shown to lie outside" in said
    (said, _) = sentences(table(size=np.nan))
    assert "does not vary" in said


def test_no_sentence_claims_more_than_the_whole_or_that_nothing_changed() -> None:
    """An estimate may be above one, and "not shown" is not "nothing"."""
    (said, _) = sentences(table(size=1.09, size_low=1.01, size_high=1.16, unique=1.04))
    assert "100% [100%, 100%] of the embedding after fine-tuning is new" in said
    assert not re.findall(r"\b1[0-9][1-9]%", said)
    rows = table(finding="no change shown", size=0.3, size_low=-0.05, size_high=0.6)
    (said,) = sentences(rows[rows["side"] == "new"].assign(side="difference"))
    assert "Nothing changed" not in said
    assert "not shown" in said


@pytest.mark.parametrize(("finding", "verb"), [("told", "tells"), ("not told", "is not shown")])
def test_a_single_feature_is_one(finding: str, verb: str) -> None:
    (said, _) = sentences(table(finding=finding, n_features=1))
    assert f"The only feature {verb}" in said


@pytest.mark.parametrize(
    ("value", "text"), [(0.423, "42%"), (0.004, "0.4%"), (-0.02, "−2%"), (np.nan, "–")]
)
def test_shares_in_per_cent(value: float, text: str) -> None:
    assert percent(value) == text


def test_no_mark_is_drawn_of_a_share_that_is_not_claimed() -> None:
    def marks(options: dict) -> int:
        figure = rest_figure(table(**options))
        return sum(np.size(line.get_xdata()) for axes in figure.axes for line in axes.lines)

    assert marks({}) > marks({"finding": "no change shown"})
    nothing = rest_figure(table(finding="no change shown"))
    assert any("no change" in text.get_text() for text in nothing.axes[0].texts)


def test_the_page_shows_the_section_and_who_moved(folder: Path) -> None:
    found = pd.read_csv(folder / "cls" / "rest.csv")
    found.loc[found["group"] == "t2", "group"] = HOSTILE
    found.loc[found["side"] == "new", "finding"] = "told"
    found.to_csv(folder / "cls" / "rest.csv", index=False)
    write_report(folder, [rest_section_of_tasks(), patients_section.SECTION])
    html = (folder / "report.html").read_text(encoding="utf-8")
    html = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "<script" not in html
    assert HOSTILE not in html
    assert "What changed, and is it radiomic?" in html
    assert "Nothing changed, and no share of it is claimed" in html, "the task that kept its start"
    assert "Moved most for no radiomic reason, cls" in html
    assert "Moved most for no radiomic reason, same" not in html
    first = pd.read_parquet(folder / "cls" / "rest_patients.parquet").iloc[0]
    card = html.split("Moved most for no radiomic reason, cls")[1].split('<div class="patient">')[1]
    assert f"<b>{first['patient_id']}</b>" in card
    assert (folder / "figures" / "cls-rest.svg").is_file()


def test_hidden_patients_are_hidden_here_too(folder: Path) -> None:
    names = Anonymiser(b"a salt of the tests, for nothing else")
    write_report(folder, [patients_section.SECTION], names=names)
    html = (folder / "report.html").read_text(encoding="utf-8")
    block = html.split("Moved most for no radiomic reason")[1].partition("</h4>")[2]
    known = pd.read_parquet(folder / "cls" / "rest_patients.parquet")["patient_id"]
    assert f"<b>{names.patient(known[0])}</b>" in block
    assert not any(name in html for name in known)


def rest_section_of_tasks():
    from lens.report import headings
    from lens.report.section import by_task

    return by_task("beyond", headings.beyond_verdicts, (rest_section.SECTION,))
