"""Rows of a table as the templates show them."""

from __future__ import annotations

from typing import Any

import pandas as pd

CROSS_VALIDATED = ("delta_r2_cv", "delta_r2_cv_low", "delta_r2_cv_high", "p_group", "verdict")
"""Columns of a group's change and verdict from the cross-validation."""


def cross_validated(table: pd.DataFrame) -> bool:
    """Whether a table of groups has their changes and verdicts from the cross-validation."""
    return set(CROSS_VALIDATED) <= set(table.columns)


def by_stage(table: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    """A row per group with its values before, after and their change side by side.

    Args:
        table: a row per group and ``stage`` (``pre, ft, delta``), with ``n_features``.
        keys: columns that name a group.

    Returns:
        Entries with the keys, ``n_features``, and under each stage the row of that stage.
    """
    return [
        dict(zip(keys, names, strict=True))
        | {"n_features": int(rows["n_features"].iloc[0])}
        | {row["stage"]: row for row in rows.to_dict("records")}
        for names, rows in table.groupby(keys, sort=False)
    ]
