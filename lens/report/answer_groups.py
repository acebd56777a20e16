"""What became of the features of each modality and region, and of their classes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from lens.report.statements import Group
from lens.report.words import modality_name, number, short
from lens.verdicts.rules import NO_CHANGE, VERDICTS

CHANGES = tuple(verdict for verdict in VERDICTS if verdict not in NO_CHANGE)

CLASSES = 3
"""Feature classes named of a group."""


def group_name(modality: str, roi: str) -> str:
    """Modality and region as they are read in the clinic, without unseen characters."""
    return f"{short(modality_name(modality))} {short(roi)}"


def change(row: Mapping[Hashable, Any], name: str) -> str:
    """``value [low, high]`` of a column that has ``<name>_low`` and ``<name>_high`` with it."""
    low, high = number(row[f"{name}_low"]), number(row[f"{name}_high"])
    return f"{number(row[name])} [{low}, {high}]"


def groups(features: pd.DataFrame, levels: pd.DataFrame) -> tuple[Group, ...]:
    """Modalities and regions in the order of the verdicts, the largest changes first.

    Args:
        features: rows of ``features.parquet``.
        levels: rows of ``levels.csv``.
    """
    found = levels[(levels["level"] == "modality") & levels["verdict"].isin([*VERDICTS])]
    rows = found[found["group"] == "all"]
    order = {verdict: place for place, verdict in enumerate(VERDICTS)}
    rows = rows.assign(place=rows["verdict"].map(order), size=-rows["delta_r2_cv"].abs())
    rows = rows.sort_values(["place", "size"], kind="stable")
    return tuple(_group(row, features, found) for row in rows.to_dict("records"))


def _group(row: dict[Hashable, Any], features: pd.DataFrame, found: pd.DataFrame) -> Group:
    modality, roi, verdict = str(row["modality"]), str(row["roi"]), str(row["verdict"])
    own = features[(features["modality"] == modality) & (features["roi"] == roi)]
    counts = own["verdict"].value_counts()
    same = int(counts.get(verdict, 0))
    # An average over features that cannot be read says little of those that can.
    beside = (*CHANGES, "absent") if verdict in NO_CHANGE else CHANGES
    others = {name: int(counts[name]) for name in beside if name in counts and name != verdict}
    text = f"{same} of {len(own)} features {verdict}"
    if others:
        text += f", {', '.join(f'{count} {name}' for name, count in others.items())}"
    place = (found["modality"] == modality) & (found["roi"] == roi) & (found["group"] != "all")
    differing = _differing(found[place], verdict)
    return Group(
        verdict=verdict,
        name=group_name(modality, roi),
        size=change(row, "delta_r2_cv"),
        counts=text,
        classes=_named(differing),
        numbers={
            "modality": modality,
            "roi": roi,
            **{name: row[name] for name in ("delta_r2_cv", "delta_r2_cv_low", "delta_r2_cv_high")},
            "features": len(own),
            verdict: same,
            **others,
            "classes": differing,
        },
    )


def _differing(classes: pd.DataFrame, verdict: str) -> list[dict[Hashable, Any]]:
    """Classes with another verdict than their group; of a group without a change those with one."""
    other = classes["verdict"] != verdict
    if verdict in NO_CHANGE:
        other &= classes["verdict"].isin([*CHANGES])
    names = ["group", "verdict", "delta_r2_cv", "delta_r2_cv_low", "delta_r2_cv_high"]
    rows = classes.loc[other, names].to_dict("records")
    return sorted(rows, key=lambda row: [*VERDICTS].index(row["verdict"]))


def _named(classes: list[dict[Hashable, Any]]) -> str:
    if not classes:
        return ""
    named = [
        f"{short(row['group'])} {row['verdict']} {change(row, 'delta_r2_cv')}"
        for row in classes[:CLASSES]
    ]
    if len(classes) > CLASSES:
        named.append(f"and {len(classes) - CLASSES} more")
    return f"but {', '.join(named)}"
