"""Section: single patients, their pictures, and what the embeddings told of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lens.report.album import Album, NoPictureError
from lens.report.patients_figure import patients_figure
from lens.report.pictures import LOOKS, SLICES, Picture
from lens.report.results import PATIENT_TABLES
from lens.report.section import Need, Report, Section, Task
from lens.report.words import label, modality_name
from lens.rest.patients import FAR
from lens.verdicts.patients import KINDS

MOVED = 4
"""Patients with pictures whose predictions moved most."""

EACH = 2
"""Patients with pictures who have a feature high, and low."""

SHARE = 0.1
"""Patients who count as having a feature high (low), of all."""

AXIS = 3.0
"""Standard deviations that the axis of a patient's values reaches at least, to either side."""


def render(report: Report) -> Markup:
    """The patients of every task: whose predictions moved most, then those of each feature."""
    gallery, looks = _Gallery(report.album), _looks(report)
    tasks = []
    left = [
        task
        for task in report.tasks
        if any(len(getattr(task.tables, name)) for name in PATIENT_TABLES)
    ]
    for at, task in enumerate(left):
        gallery.share(len(left) - at)
        moved, rest = _moved(task, gallery), _rest(task, gallery)
        features = [*_features(task, gallery)]
        figure = patients_figure(task.tables.patients, features, gallery.pictures, looks)
        tasks.append(
            {
                "name": task.name,
                "scope": task.scope,
                "moved": moved,
                "rest": rest,
                "features": features,
                "figure": report.draw(figure, f"{task.name}-patients") if figure else None,
            }
        )
    return report.fill(
        "patients_section.html",
        tasks=tasks,
        album=report.album,
        pictures=gallery.pictures,
        looks=looks,
        plain=LOOKS[0],
        drawn=dict.fromkeys(roi for each in gallery.pictures for roi in each.contours),
        views=views,
        figures=figures,
        kinds=KINDS,
        narrow=all(len(each.strips) == 1 for each in gallery.pictures),
        most=SLICES,
        each=EACH,
        share=SHARE,
    )


SECTION = Section("patients", (Need("patients"),), render)


class _Gallery:
    """Pictures of a page, each with a number of its own.

    Attributes:
        pictures: in the order of their numbers.
    """

    def __init__(self, album: Album) -> None:
        self.album = album
        self.pictures: list[Picture] = []
        self._cards = self._end = 0

    def share(self, tasks: int) -> None:
        """Leaves a fair share of the pictures to each of the tasks that are left."""
        self._end = len(self.pictures) + max(1, (self.album.most - len(self.pictures)) // tasks)

    def card(self, row: dict[str, Any], task: Task) -> dict[str, Any]:
        """What a card shows of a study: its ids, its picture's number or why there is none."""
        patient, study = str(row["patient_id"]), str(row.get("study_id") or "")
        self._cards += 1
        card = {"number": self._cards, "patient": patient, "study": study, "picture": None}
        card["reason"] = ""
        if not self.album.absent:
            key = (patient, study, tuple(task.scope["rois"]))
            if len(self.pictures) >= self._end and not self.album.has(*key):
                return card | {"reason": f"no picture: the task has its {self._end} already"}
            try:
                found = self.album.picture(*key)
            except NoPictureError as error:
                return card | {"reason": str(error)}
            if not any(found is each for each in self.pictures):
                self.pictures.append(found)
            card["picture"] = next(n for n, each in enumerate(self.pictures) if each is found)
        return card


def _looks(report: Report) -> dict[str, tuple[str, str]]:
    """Region -> colour and dashes of its contour, the same on all of the page."""
    names = dict.fromkeys(roi for scope in report.scopes for roi in scope["rois"])
    return {name: LOOKS[at % len(LOOKS)] for at, name in enumerate(names)}


def _moved(task: Task, gallery: _Gallery) -> dict[str, Any] | None:
    """The patients whose predictions moved most, and how far they do in general."""
    table = task.tables.moved
    if table.empty:
        return None
    better = table["error_ft"] < table["error_pre"]
    return {
        "cards": [
            row | gallery.card(row, task) | {"better": row["error_ft"] < row["error_pre"]}
            for row in _records(table[table["moved"] > 0].head(MOVED))
        ],
        "by_study": "study_id" in table,
        "median": float(table["moved"].median()),
        "count": len(table),
        "better": int(better.sum()),
        "features": int(table["n_features"].iloc[0]),
    }


def _rest(task: Task, gallery: _Gallery) -> dict[str, Any] | None:
    """The patients who moved most without any radiomic reason; None where nothing is new."""
    table, change = task.tables.rest_patients, task.tables.rest
    if table.empty or change.empty:
        return None
    new = change[(change["side"] == "new") & (change["grouping"] == "all")].iloc[0]
    if new["finding"] == "no change shown":
        return None
    return {
        "cards": [row | gallery.card(row, task) for row in _records(table.head(MOVED))],
        "by_study": "study_id" in table,
        "median": float(table["unexplained"].median()),
        "count": len(table),
        "far": int((table["beyond"] > FAR).sum()),
        "limit": FAR,
    }


def _features(task: Task, gallery: _Gallery) -> Iterator[dict[str, Any]]:
    """The shown features, each with the patients who have it high and low."""
    known = task.tables.features.drop_duplicates("column").set_index("column", drop=False)
    for column, rows in task.tables.patients.groupby("column", sort=False):
        if column not in known.index:
            continue
        feature = known.loc[column].to_dict()
        high, low = high_and_low(rows)
        shown = pd.concat([high, low])
        numbers = shown[["observed", "predicted_pre", "predicted_ft"]].abs()
        reach = max(AXIS, float(np.ceil(np.nanmax(numbers.to_numpy(), initial=0.0))))
        yield {
            "column": column,
            "label": label(feature),
            "row": feature,
            "kind": rows["shown"].iloc[0],
            "first": feature["modality"],
            "reach": reach,
            "count": rows[_ids(rows)].drop_duplicates().shape[0],
            "cards": [
                row | gallery.card(row, task) | {"side": side}
                for side, row in _alternating(_records(high), _records(low))
            ],
        }


def high_and_low(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patients who have a feature high, and low; those whose prediction changed most come first.

    Args:
        rows: of one feature, of `lens.verdicts.patients`; repeats are averaged.
    """
    ids = _ids(rows)
    means = rows.groupby(ids, sort=False, dropna=False).mean(numeric_only=True).reset_index()
    order = means["observed"].to_numpy().argsort(kind="stable")
    pool = min(max(EACH, int(np.ceil(SHARE * len(means)))), len(means) // 2)
    change = (means["predicted_ft"] - means["predicted_pre"]).abs()
    first = [
        change.iloc[at].sort_values(ascending=False, kind="stable").index[:EACH]
        for at in (order[::-1][:pool], order[:pool])
    ]
    return means.loc[first[0]], means.loc[first[1]]


def views(picture: Picture, first: str = "") -> list[tuple[int, str, str]]:
    """Place of each modality in `Picture.strips`, its name on the page, and its window in words.

    Args:
        picture: of a study.
        first: modality to begin with.
    """
    found = sorted(enumerate(picture.strips), key=lambda each: each[1] != first)
    return [
        (at, modality_name(name), " to ".join(figures(end) for end in picture.windows[name]))
        for at, name in found
    ]


def figures(value: float) -> str:
    """A number in its own unit, to three figures, with a true minus sign; a dash without one."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.3g}"
    return (f"{value:.0f}" if "e+" in text and abs(value) < 1e6 else text).replace("-", "−")


def _alternating(
    high: list[dict[str, Any]], low: list[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """High and low side by side."""
    for one, other in zip_longest(high, low):
        yield from ((side, row) for side, row in (("high", one), ("low", other)) if row)


def _ids(table: pd.DataFrame) -> list[str]:
    return [name for name in ("patient_id", "study_id") if name in table]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
