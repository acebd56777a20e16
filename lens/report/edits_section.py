"""Section: how the task score responds when the image is edited (`experiments.edit`)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from lens.report.album import HIDDEN, LEFT_OUT
from lens.report.edits_figure import edits_figure
from lens.report.section import Need, Report, Section
from lens.report.words import modality_name, number, p_told

NAMED = 4
"""Edits that a sentence names."""

COLOUR = "#ffe14d"
"""Of contours, over gray pictures."""


def render(report: Report) -> Markup:
    """A sentence, a figure and a table per task, and the contact sheet."""
    edits = report.results.edits
    tasks = [_task(report, at, str(task), rows) for at, (task, rows) in enumerate(
        edits.groupby("task", sort=False))]  # fmt: skip
    absent = report.album.absent
    hidden = absent in (HIDDEN, LEFT_OUT)
    return report.fill(
        "edits_section.html",
        tasks=tasks,
        sheet=[] if hidden else report.results.edits_sheet.get("rows", []),
        hidden=absent if hidden else "",
        colour=COLOUR,
        measured=bool(edits["feature"].fillna("").astype(str).str.len().any()),
    )


SECTION = Section("edits", (Need("edits", ("slope",)),), render)


def sentence(rows: pd.DataFrame) -> str:
    """What the table of one task says, in words.

    Args:
        rows: of ``edits.csv``, one task.
    """
    stages = {stage: rows[rows["stage"] == stage] for stage in ("pre", "ft", "change")}
    tested = stages["ft"]["p_family"].notna().sum()
    if not tested:
        return "No edit could be tested: too few patients could be edited."
    said = []
    for stage, when in (("ft", "After fine-tuning"), ("pre", "Before it")):
        own = stages[stage]
        moving = own[own["moves"]].sort_values("slope", key=lambda s: -s.abs())
        said.append(f"{when}, {len(moving)} of {len(own)} edits move the task score beyond both "
                    f"controls{_named(moving)}.")  # fmt: skip
    change = stages["change"]
    moved = change[change["moves"]].sort_values("slope", key=lambda s: -s.abs())
    said.append(
        f"The response itself changed in {len(moved)} of {len(change)}{_named(moved)}."
        if len(moved)
        else "A change of the response by fine-tuning is not shown for any edit."
    )
    return " ".join(said)


def _named(rows: pd.DataFrame) -> str:
    told = [
        f"{row['edit']} of {modality_name(str(row['modality']))} in {row['roi']} "
        f"({number(row['slope'])} SD of the label per unit, {p_told(row['p_family'])})"
        for _, row in rows.head(NAMED).iterrows()
    ]
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f": {'; '.join(told)}{more}" if told else ""


def _task(report: Report, at: int, task: str, rows: pd.DataFrame) -> dict[str, Any]:
    r2 = rows.groupby("stage")["head_r2"].first()
    return {
        "name": task,
        "sentence": sentence(rows),
        "figure": report.draw(edits_figure(rows), f"edits-{at}"),
        "rows": rows.to_dict("records"),
        "family": int(rows["p_family"].notna().sum()),
        "pre": r2.get("pre"),
        "ft": r2.get("ft"),
        "fewest": int(rows["n"].min()),
        "most": int(rows["n"].max()),
        "no_outside": int((rows[rows["stage"] == "ft"]["p_outside"].isna()).sum()),
    }
