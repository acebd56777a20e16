"""The tables of radiomic edits: what is kept in a folder, and how it is put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.edits.catalogue import Target
from lens.edits.features import changes, summary
from lens.edits.responses import Moved, Settings, respond
from lens.edits.versions import ARMS
from lens.files import write_json, write_table


@dataclass(frozen=True)
class Originals:
    """Embeddings of original images before and after one fine-tuning, and the labels.

    Attributes:
        patient_id: (n,).
        pre, ft: (n, d), rows as `patient_id`.
        labels: task -> (n,), NaN for a patient without the label.
    """

    patient_id: np.ndarray
    pre: np.ndarray
    ft: np.ndarray
    labels: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Effects:
    """What edits did to the embeddings and images of patients.

    Attributes:
        rows: places in `Originals.patient_id` of the m edited patients.
        pre, ft: per target (m, doses, arms, d): embedding less that of the original.
        rms, clipped: per target (m, doses, arms).
        found: per target (m,), kind of control region.
    """

    rows: np.ndarray
    pre: Sequence[np.ndarray]
    ft: Sequence[np.ndarray]
    rms: Sequence[np.ndarray]
    clipped: Sequence[np.ndarray]
    found: Sequence[np.ndarray]


@dataclass(frozen=True)
class Tables:
    """The tables of `lens.edits.files`.

    Attributes:
        edits: a row per task, edit and stage: slopes and tests.
        doses: a row per task, edit, stage and dose.
        patients: a row per task, edit, stage and patient.
        features: a row per edit, dose and feature; no rows where features were not measured.
    """

    edits: pd.DataFrame
    doses: pd.DataFrame
    patients: pd.DataFrame
    features: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def together(cls, parts: Sequence[Tables]) -> Tables:
        """The tables of several tasks as one; the features are those of the first, being alike."""
        joined = [
            pd.concat([getattr(part, name) for part in parts], ignore_index=True)
            for name in ("edits", "doses", "patients")
        ]
        return cls(*joined, parts[0].features)

    def write(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Writes the files; the table that the report looks for last."""
        names = {"doses": self.doses, "patients": self.patients}
        if len(self.features):
            names["features"] = self.features
        for name, table in names.items():
            write_table(table, folder / f"edits-{name}.csv")
        write_json(folder / "edits.json", dict(facts))
        write_table(self.edits, folder / "edits.csv")


def assemble(
    targets: Sequence[Target],
    originals: Originals,
    effects: Effects,
    settings: Settings,
    measured: Sequence[tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]] = (),
) -> Tables:
    """The tables of all tasks that share encoders.

    Args:
        targets: what was edited.
        originals: of all patients.
        effects: of the edited ones.
        settings: of the tests.
        measured: per target, features before and after, a mapping per patient; none where they were
            not measured.
    """
    names = pd.DataFrame([_names(target) for target in targets])
    parts: dict[str, list[pd.DataFrame]] = {"edits": [], "doses": [], "patients": []}
    for task, label in originals.labels.items():
        known = np.flatnonzero(np.isfinite(label))
        place = np.full(len(label), -1)
        place[known] = np.arange(len(known))
        moved = [_moved(at, target, effects, place) for at, target in enumerate(targets)]
        x = {"pre": originals.pre[known], "ft": originals.ft[known]}
        found = respond(x, label[known], moved, settings)
        ids = originals.patient_id[known]
        for name, table in zip(parts, found, strict=True):
            if name == "patients":
                table = table.assign(patient_id=ids[table["row"]]).drop(columns="row")
            lead = names.loc[table["at"].to_numpy()].reset_index(drop=True)
            rest = table.drop(columns="at").reset_index(drop=True)
            joined = pd.concat([lead, rest], axis=1)
            joined.insert(0, "task", task)
            parts[name].append(joined)
    edits = pd.concat(parts["edits"], ignore_index=True)
    facts = pd.DataFrame([_facts(at, effects) for at in range(len(targets))])
    features, tables = _features(targets, measured)
    on_images = pd.concat([names, facts, features], axis=1)
    edits = edits.merge(on_images, on=list(names.columns), how="left", validate="many_to_one")
    return Tables(
        edits,
        pd.concat(parts["doses"], ignore_index=True),
        pd.concat(parts["patients"], ignore_index=True),
        tables,
    )


def _names(target: Target) -> dict[str, Any]:
    return {
        "edit": target.edit.name, "roi": target.roi, "modality": target.modality,
        "unit": target.edit.about.unit,
    }  # fmt: skip


def _moved(at: int, target: Target, effects: Effects, place: np.ndarray) -> Moved:
    """An edit in the patients who have both the label and the edit."""
    ok = (place[effects.rows] >= 0) & np.isfinite(effects.pre[at][:, :, 0]).all(axis=(1, 2))
    change = {
        stage: {
            arm: np.asarray(values[at][ok][:, :, number], np.float64)
            for number, arm in enumerate(ARMS)
        }
        for stage, values in (("pre", effects.pre), ("ft", effects.ft))
    }
    return Moved(np.array(target.edit.doses), place[effects.rows[ok]], change)


def _facts(at: int, effects: Effects) -> dict[str, Any]:
    """How large an edit was in the images, and where its control lay."""
    rms, clipped, found = effects.rms[at], effects.clipped[at], effects.found[at]
    made = np.isfinite(rms[:, :, 0]).all(axis=1)

    def mean(values: np.ndarray) -> float:
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

    return {
        "rms": mean(rms[:, :, 0]),
        "rms_outside": mean(rms[:, :, 1]),
        "clipped": mean(clipped[:, :, 0]),
        "copies": int(np.sum(found[made] == "copy")),
        "shells": int(np.sum(found[made] == "shell")),
    }


def _features(
    targets: Sequence[Target],
    measured: Sequence[tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What tells most of each edit's features, and the table of all."""
    rows, tables = [], []
    for target, (before, after) in zip(targets, measured or [((), ())] * len(targets), strict=True):
        if not before:
            nothing = pd.DataFrame({"column": [], "on_target": [], "change": [], "change_sd": []})
            rows.append(summary(target, nothing.astype({"column": str, "on_target": bool})))
            continue
        table = changes(target, before, after)
        rows.append({"measured_dose": target.edit.measured} | summary(target, table))
        lead = _names(target) | {"dose": target.edit.measured}
        for place, (name, value) in enumerate(lead.items()):
            table.insert(place, name, value)
        tables.append(table)
    found = pd.DataFrame(rows)
    if "measured_dose" not in found:
        found.insert(0, "measured_dose", np.nan)
    return found, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
