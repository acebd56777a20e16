"""The audit's side table, as what reads a radiomics table uses it: why values and columns go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.errors import InputError
from lens.formulas import read_csv

FINDINGS = ("patient_id", "column", "kind", "reason")
"""Columns of the side table; ``patient_id`` is empty where a finding is about all patients."""

OF_VALUE = ("one gray level", "undefined", "infinite")
"""Kinds of finding that explain a missing value of one patient."""

BASE = re.compile(r" x (\S+) in all ")


def default_audit_file(table: Path) -> Path | None:
    """``R-audit.csv`` beside ``R.parquet``, ``R.csv`` or ``R.csv.gz``; None where it is not."""
    stem = table.name.removesuffix(".gz").rsplit(".", 1)[0]
    path = table.with_name(f"{stem}-audit.csv")
    return path if path.is_file() else None


def read_findings(audit: Path | None) -> pd.DataFrame:
    """The findings of an audit, all as text; no rows without a file.

    Raises:
        InputError: the file is no such table.
    """
    if audit is None:
        return pd.DataFrame(columns=list(FINDINGS), dtype=str)
    try:
        table = read_csv(audit, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        message = f"{audit}: not readable as the audit of a radiomics table ({error})"
        raise InputError(message) from error
    missing = [name for name in FINDINGS if name not in table]
    if missing:
        raise InputError(
            f"{audit}: no column {missing[0]}, so not the audit of a radiomics table. Rename it if "
            "it is something else, or extract the table again"
        )
    return table


def explain(dropped: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Columns that are dropped because of missing values, with the audit's reasons.

    Args:
        dropped: ``column`` and ``reason`` (the share that is missing).
        findings: from `read_findings`.
    """
    constant = findings[findings["kind"] == "constant"].set_index("column")["reason"]
    values = findings[findings["kind"].isin(OF_VALUE)]
    kinds = dict(list(values.groupby("column")["kind"]))

    def reason(column: str, share: str) -> str:
        if column in constant:
            return f"constant: {constant[column]}"
        if column not in kinds:
            return share
        counts = kinds[column].value_counts().sort_index()
        said = [f"{kind} in {count} patient(s)" for kind, count in counts.items()]
        return f"{share}: {', '.join(said)}"

    reasons = [reason(*row) for row in dropped[["column", "reason"]].itertuples(index=False)]
    return dropped.assign(reason=reasons)


def repeated(
    r: Float[np.ndarray, "n k"], columns: Sequence[str], findings: pd.DataFrame
) -> tuple[Bool[np.ndarray, " k"], pd.DataFrame]:
    """Columns that are another one times a number, by the audit and by their values.

    The other one is kept, and where it is not among the columns so is this one.

    Args:
        r: values, NaN where missing.
        columns: their names.
        findings: from `read_findings`.

    Returns:
        Whether each column is to be dropped, and the dropped ones with the reason.
    """
    position = {column: index for index, column in enumerate(columns)}
    drop = np.zeros(len(columns), bool)
    rows = []
    proportional = findings[findings["kind"] == "proportional"]
    for column, reason in proportional[["column", "reason"]].itertuples(index=False):
        base = BASE.search(reason)
        if base is None or column not in position or base[1] not in position:
            continue
        if _proportional(r[:, position[column]], r[:, position[base[1]]]):
            drop[position[column]] = True
            rows.append((column, f"proportional: {reason}"))
    return drop, pd.DataFrame(rows, columns=["column", "reason"])


def missing_kinds(
    patients: Sequence[str], columns: Sequence[str], findings: pd.DataFrame
) -> dict[str, int]:
    """How many of the missing values of these patients and columns are of each kind."""
    ours = findings[findings["kind"].isin(OF_VALUE)]
    ours = ours[ours["patient_id"].isin(patients) & ours["column"].isin(columns)]
    return {str(kind): int(count) for kind, count in ours["kind"].value_counts().items()}


def _proportional(values: Float[np.ndarray, " n"], base: Float[np.ndarray, " n"]) -> bool:
    """The audit may be of an older table, so that its word is not enough."""
    present = np.isfinite(values)
    if not np.array_equal(present, np.isfinite(base)) or not np.any(base[present]):
        return False
    factor = (values[present] @ base[present]) / (base[present] @ base[present])
    # Ten digits, which text keeps.
    return np.allclose(values[present], factor * base[present], rtol=1e-10, atol=0)
