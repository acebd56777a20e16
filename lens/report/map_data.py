"""The rows of the map of features, small: names as codes, numbers as whole millionths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lens.report.palette import MEANINGS
from lens.report.section import Task
from lens.report.words import label, literal, modality_name
from lens.verdicts.rules import VERDICTS

VALUES = (
    "r2_ridge_pre", "r2_ridge_pre_low", "r2_ridge_pre_high",
    "r2_ridge_ft", "r2_ridge_ft_low", "r2_ridge_ft_high",
    "delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt",
)  # fmt: skip
"""Columns of ``features.parquet`` on the page."""

DIGITS = 6
"""Digits that are kept: more than are shown, so that these are rounded once, as elsewhere."""

WORDS = ("modality", "roi", "image", "feature_class")
"""Columns that the features are filtered by."""

LARGEST = 1e6
"""What a value is at most on the page, in size: infinite ones are this."""


def map_data(tasks: Sequence[Task]) -> dict[str, Any]:
    """What the page's script draws.

    Returns:
        ``verdicts``, each with how it looks; ``listings`` of features, which tasks may share: their
        ``column`` and ``label``, and under ``words`` and ``codes`` the columns `WORDS`; ``tasks``
        with the ``listing``'s index, ``verdict`` and ``cluster`` of every feature, and ``values``:
        whole numbers, None where there is no value; ``unit``: how many of them make 1.
    """
    listings: list[dict[str, Any]] = []
    content = []
    for task in tasks:
        features = task.tables.features
        listing = _listing(features)
        if listing not in listings:
            listings.append(listing)
        content.append(
            {
                "name": literal(task.name),
                "listing": listings.index(listing),
                "verdict": [[*VERDICTS].index(verdict) for verdict in features["verdict"]],
                "cluster": features["cluster"].astype(int).tolist(),
                "values": {name: _whole(features[name]) for name in VALUES},
            }
        )
    looks = [
        {"name": name, "light": look.light, "dark": look.dark, "shape": look.symbol,
         "hollow": look.hollow}
        for name, look in ((verdict, MEANINGS[verdict]) for verdict in VERDICTS)
    ]  # fmt: skip
    return {"verdicts": looks, "listings": listings, "tasks": content, "unit": 10**DIGITS}


def _listing(features: pd.DataFrame) -> dict[str, Any]:
    """The features of a task without any result."""
    words, codes = {}, {}
    for name in WORDS:
        found, unique = pd.factorize(features[name])
        shown = modality_name if name == "modality" else str
        words[name] = [literal(shown(str(value))) for value in unique]
        codes[name] = found.tolist()
    rows = features[["modality", "roi", "image", "feature_class", "feature"]].to_dict("records")
    return {
        "column": [literal(str(column)) for column in features["column"]],
        "label": [literal(label(row)) for row in rows],
        "words": words,
        "codes": codes,
    }


def _whole(values: pd.Series) -> list[int | None]:
    found = np.clip(values.to_numpy(float), -LARGEST, LARGEST)
    missing = np.isnan(found)
    whole = np.rint(np.where(missing, 0.0, found) * 10**DIGITS).astype(np.int64)
    return [None if gone else int(value) for value, gone in zip(whole, missing, strict=True)]
