"""The lines that a run ends with: verdicts by modality and region."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lens.files import read_table, write_table
from lens.report.answer_text import in_lines
from lens.report.results import read_results


def told(folder: Path) -> list[str]:
    return in_lines(read_results(folder)).splitlines()


def test_a_line_per_modality_and_region_says_its_own_verdict(folder: Path) -> None:
    results = read_results(folder)
    lines = told(folder)
    for task, tables in results.tasks.items():
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{task}: did anything")]
        rows = tables.levels[
            (tables.levels["level"] == "modality") & (tables.levels["group"] == "all")
        ]
        own = lines[at + 1 :]
        assert len(rows)
        for row in rows.to_dict("records"):
            line = next(each for each in own if f"{row['modality'].upper()} {row['roi']} " in each)
            assert line.split()[0] == row["verdict"]
            place = tables.features[["modality", "roi"]] == [row["modality"], row["roi"]]
            part = tables.features[place.all(axis=1)]
            count = (part["verdict"] == row["verdict"]).sum()
            assert f", {count} of {len(part)} features {row['verdict']}" in line


def test_losses_come_first_and_larger_changes_before_smaller(folder: Path) -> None:
    path = folder / "cls" / "levels.csv"
    levels = read_table(path)
    rows = levels.index[(levels["level"] == "modality") & (levels["group"] == "all")]
    assert len(rows) >= 2
    levels["verdict"] = levels["verdict"].where(~levels.index.isin(rows), "undecided")
    levels.loc[rows[-1], ["verdict", "delta_r2_cv"]] = ["lost", -0.4]
    write_table(levels, path)
    changed = levels.loc[rows[-1]]
    first = told(folder)[1]
    assert first.split()[0] == "lost"
    assert f"{changed['modality'].upper()} {changed['roi']} " in first
    assert "R2 −0.40" in first


def test_without_a_cross_validation_nothing_is_said(folder: Path) -> None:
    for task in read_results(folder).tasks:
        path = folder / task / "levels.csv"
        write_table(read_table(path).assign(verdict=pd.NA), path)
    assert told(folder) == []
