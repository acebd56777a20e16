"""What is looked at around the verdicts, read from tables: confounds, exposure, repeatability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.errors import InputError
from lens.files import read_table
from lens.study.study import Study
from lens.verdicts.confounds import Confounds, read_exposure, read_labels
from lens.verdicts.folds import leave_site_out


@dataclass(frozen=True)
class Context:
    """What is looked at around the verdicts; none of it changes one.

    Attributes:
        confounds: explanations to rule out.
        ceiling: intraclass correlation of each feature, NaN where unknown; None without a table.
        site: name of the sites' column, if any.
    """

    confounds: Confounds = field(default_factory=Confounds)
    ceiling: Float[np.ndarray, " k"] | None = None
    site: str | None = None

    @property
    def adjust(self) -> tuple[str, ...]:
        """Names of the columns that are adjusted for."""
        table = self.confounds.adjust
        return () if table is None else tuple(map(str, table.columns))


def read_context(
    study: Study,
    *,
    labels: Path | None = None,
    adjust: Sequence[str] = (),
    site: str | None = None,
    exposure: Mapping[str, Path] | None = None,
    repeatability: Path | None = None,
    seed: int = 0,
) -> Context:
    """The context that the tables give, on the study's rows.

    Args:
        study: the joined tables.
        labels: table of ``patient_id`` and label columns, for `adjust` and `site`.
        adjust: its columns to adjust for.
        site: its column that names the site.
        exposure: task -> table of the patients whom its fine-tuning saw.
        repeatability: table of ``column`` and ``icc``.
        seed: of the folds by site.

    Raises:
        InputError: a table or column cannot be used.
    """
    if labels is None and (adjust or site):
        raise InputError("adjust and site are columns of a table of labels, which is missing")
    adjusted = read_labels(labels, study.ids, adjust) if labels is not None and adjust else None
    sites = _sites(labels, site, study, seed) if labels is not None and site else None
    exposed = {task: read_exposure(table, study.ids) for task, table in (exposure or {}).items()}
    ceiling = None
    if repeatability is not None:
        ceiling = read_ceiling(repeatability, study.features["column"])
    return Context(Confounds(adjust=adjusted, exposed=exposed, sites=sites), ceiling, site)


def read_ceiling(path: Path, columns: pd.Series) -> Float[np.ndarray, " k"]:
    """Intraclass correlations of a repeatability table in the order of `columns`, else NaN.

    Raises:
        InputError: a column is missing, or the table has none of the features.
    """
    table = read_table(path)
    if not {"column", "icc"} <= set(table.columns):
        raise InputError(f"{path}: columns column and icc are needed, as from --perturb")
    known = table.drop_duplicates("column").set_index("column")["icc"]
    if not columns.isin(known.index).any():
        raise InputError(f"{path}: has none of the {len(columns)} features, such as {columns[0]}")
    return known.reindex(columns).to_numpy(np.float64)


def _sites(path: Path, column: str, study: Study, seed: int) -> np.ndarray:
    values = read_labels(path, study.ids, [column])[column]
    if values.isna().any():
        patient = study.ids["patient_id"][values.isna()].iloc[0]
        raise InputError(f"{path}: patient {patient} has no {column}")
    sites = values.astype(str).to_numpy(str)
    try:
        leave_site_out(study.ids["patient_id"].to_numpy(), sites, seed)
    except ValueError as error:
        raise InputError(f"site column {column}: {error}") from error
    return sites
