"""Table 1 on the page: its columns by mode, with and without verdicts of the groups."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from lens.comparison import compare
from lens.report import groups_section, paper_table_section
from lens.report.headings import task as heading
from lens.report.page import write_report
from lens.report.section import by_task
from tests.planted import plant

pytestmark = pytest.mark.usefixtures("undrawn")

COLUMNS = ["delta_r2_cv", "delta_r2_cv_low", "delta_r2_cv_high", "p_group", "verdict"]
EVERY_ROW = [
    "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "original", "wavelet",
]  # fmt: skip


def tables(folder: Path) -> list[list[list[str]]]:
    """Cells of the paper's table, then of the groups of each task; their headings first."""
    sections = (paper_table_section.SECTION, by_task("t", heading, (groups_section.SECTION,)))
    html = write_report(folder, sections).read_text(encoding="utf-8")
    return [
        [
            [_text(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table>(.*?)</table>", html, re.DOTALL)
    ]


def _text(cell: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", cell)).replace("−", "-").split())


def plain(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"


def bracket(row: pd.Series, name: str, digits: int = 2) -> str:
    value, low, high = (plain(row[name + end], digits) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def edit(path: Path, **columns: object) -> pd.DataFrame:
    """Gives the rows of a change these columns in place of those of the verdicts."""
    table = pd.read_csv(path)
    table = table.drop(columns=[name for name in COLUMNS if name in table])
    for name, value in columns.items():
        table[name] = value
        table[name] = table[name].where(table["stage"] == "delta")
    table.to_csv(path, index=False)
    return table


def set_mode(folder: Path, mode: str) -> None:
    run = json.loads((folder / "run.json").read_text())
    run["config"]["mode"] = mode
    (folder / "run.json").write_text(json.dumps(run))


def in_every_task(folder: Path, **columns: object) -> None:
    for name in ("cls", "same"):
        for table in ("groups.csv", "modalities.csv"):
            edit(folder / name / table, **columns)


VERDICTS = {
    "delta_r2_cv": -0.25, "delta_r2_cv_low": -0.5, "delta_r2_cv_high": -0.125,
    "p_group": 0.004, "verdict": "lost",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_without_verdicts_of_groups_the_change_is_that_of_the_split(
    folder: Path, mode: str
) -> None:
    in_every_task(folder)
    set_mode(folder, mode)
    overall, groups, _ = tables(folder)
    assert overall[0][-1] == "Median change"
    assert groups[0][:6] == ["Group", "ROI", "Features", "R2 before", "R2 after", "Change of R2"]
    z = ["MSE (z) before", "MSE (z) after"]
    min_max = ["MSE (min-max) before", "MSE (min-max) after"]
    assert groups[0][6:] == (z + min_max if mode == "paper" else z)
    table = pd.read_csv(folder / "cls" / "groups.csv").set_index(["group", "stage"])
    for cells in groups[1:]:
        pre, ft, delta = (table.loc[(cells[0], stage)] for stage in ("pre", "ft", "delta"))
        expected = [cells[0], "gland", str(pre["n_features"])]
        expected += [bracket(row, "r2_median") for row in (pre, ft, delta)]
        expected += [bracket(row, "mse_z_median") for row in (pre, ft)]
        if mode == "paper":
            expected += [bracket(row, "mse_median", 4) for row in (pre, ft)]
        assert cells == expected


@pytest.mark.parametrize("mode", ["default", "paper"])
def test_verdicts_of_groups_take_the_place_of_the_splits_interval_by_default(
    folder: Path, mode: str
) -> None:
    in_every_task(folder, **VERDICTS)
    set_mode(folder, mode)
    overall, groups, _ = tables(folder)
    added = ["Mean change, cross-validated", "Verdict"]
    shown = ["-0.25 [-0.50, -0.12]", "lost p 0.0040"]
    assert overall[0][-3:] == ["Median change", *added]
    # In paper mode what the paper has comes first.
    first = 10 if mode == "paper" else 6
    assert groups[0][5] == "Change of R2"
    assert groups[0][first : first + 2] == added
    table = pd.read_csv(folder / "cls" / "groups.csv")
    changes = table[table["stage"] == "delta"].set_index("group")
    for cells in groups[1:]:
        change = changes.loc[cells[0]]
        paper = mode == "paper"
        own = bracket(change, "r2_median") if paper else plain(change["r2_median"])
        assert [cells[5], *cells[first : first + 2]] == [own, *shown]
    for cells in overall[1:]:
        assert cells[-2:] == shown
        assert ("[" in cells[-3]) == (mode == "paper")


def test_a_group_without_a_verdict_has_a_dash(folder: Path) -> None:
    in_every_task(folder, **VERDICTS | {"verdict": ""})
    _, groups, _ = tables(folder)
    assert groups[0][6:8] == ["Mean change, cross-validated", "Verdict"]
    assert all(cells[6:8] == ["–", "–"] for cells in groups[1:])


def test_the_baseline_of_r2_is_said_under_the_table(folder: Path) -> None:
    tables(folder)
    html = " ".join((folder / "report.html").read_text(encoding="utf-8").split())
    said = "R2 is against the mean of the train and validation patients"
    assert html.count(said) == html.count("<h3>By feature group</h3>") == 2


def test_a_run_in_paper_mode_has_every_row_of_the_papers_table(tmp_path: Path) -> None:
    """Of three classes and one filter, in two regions."""
    planted = plant(n=100, d=12)
    kept = [
        name for name in planted.radiomics
        if "original_" in name and any(c in name for c in ("glcm", "ngtdm", "firstorder"))
    ]  # fmt: skip
    radiomics = planted.radiomics[["patient_id", *kept]].rename(
        columns=lambda name: (
            name.replace("adc.gland", "t2.lesion").replace("_glcm_", "_shape_")
            if name.startswith("adc")
            else name
        )
    )
    options = {
        "mode": "paper", "hidden": 6, "l1": (1e-6,), "l2": (1e-5,), "epochs": 3, "folds": 0,
        "flips": 100, "bootstraps": 20,
    }  # fmt: skip
    result = compare(
        (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, radiomics,
        progress=False, **options,
    )  # fmt: skip
    counts = result.groups[result.groups["stage"] == "ft"].set_index(["roi", "group"])
    assert counts.index.tolist() == [
        *(("gland", name) for name in EVERY_ROW),
        *(("lesion", name) for name in [*EVERY_ROW, "shape"]),
    ]
    assert counts["n_features"].tolist() == [2, 2, 0, 0, 0, 2, 6, 0, 2, 0, 0, 0, 0, 2, 6, 0, 2]
    folder = result.save(tmp_path / "run")
    written = pd.read_csv(folder / "cls" / "groups.csv")
    empty = written["n_features"] == 0
    assert written.loc[empty, ["r2_median", "mse_z_mean"]].isna().all(axis=None)
    assert written.loc[~empty, "r2_median"].notna().all()
    rows = tables(folder)[1][1:]
    assert [(cells[1], cells[0]) for cells in rows] == counts.index.tolist()
    assert all((set(cells[3:]) == {"–"}) == (cells[2] == "0") for cells in rows)
