"""What is looked at around the verdicts, read from tables: confounds, exposure, repeatability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.anonymise import OPEN, Names
from lens.errors import InputError
from lens.study.cells import as_label, as_numbers, blanked
from lens.study.id_causes import probable_cause, same_but_for_writing
from lens.study.study import Study
from lens.study.tables import TableSource, name_of, to_table
from lens.verdicts.confounds import Confounds
from lens.verdicts.folds import leave_site_out

MOST_NAMES = 0.5
"""Different names a patient, above which a column of names tells patients apart, and no groups."""


@dataclass(frozen=True)
class Context:
    """What is looked at around the verdicts; of it, only exposure can withhold one, a gain.

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
    labels: TableSource | None = None,
    adjust: Sequence[str] = (),
    site: str | None = None,
    exposure: Mapping[str, TableSource] | None = None,
    repeatability: TableSource | None = None,
    seed: int = 0,
    names: Names = OPEN,
) -> Context:
    """The context that the tables give, on the study's rows.

    Args:
        study: the joined tables.
        labels: a path or table of ``patient_id`` and label columns, for `adjust` and `site`.
        adjust: its columns to adjust for.
        site: its column that names the site.
        exposure: task -> a path or table of the patients whom its fine-tuning saw.
        repeatability: a path or table of ``column`` and ``icc``.
        seed: of the folds by site.
        names: under which the study's patients go.

    Raises:
        InputError: a table or column cannot be used.
    """
    if unknown := sorted(set(exposure or {}) - set(study.x_ft)):
        raise InputError(f"exposure names task {unknown[0]!r}; the tasks are {sorted(study.x_ft)}")
    if labels is None and (adjust or site):
        raise InputError("adjust and site are columns of a table of labels, which is missing")
    if labels is not None:
        labels = names.source(labels, "labels", to_table)
    exposure = {
        task: names.source(table, "exposure", to_table) for task, table in (exposure or {}).items()
    }
    adjusted = read_labels(labels, study.ids, adjust) if labels is not None and adjust else None
    sites = _sites(labels, site, study, seed) if labels is not None and site else None
    exposed = {task: read_exposure(table, study.ids) for task, table in exposure.items()}
    ceiling = None
    if repeatability is not None:
        ceiling = read_ceiling(repeatability, study.features["column"])
    return Context(Confounds(adjust=adjusted, exposed=exposed, sites=sites), ceiling, site)


def read_labels(
    source: TableSource, ids: pd.DataFrame, columns: Sequence[str], *, names: bool = False
) -> pd.DataFrame:
    """Columns of a table of labels (``cohort.csv``, say) in the order of the study's rows.

    A cell such as ``n/a`` is blank. A column is numbers where every value is one, else names.

    Args:
        source: a path or table with ``patient_id``, and ``study_id`` where a patient's rows differ.
        ids: of the study.
        columns: to take.
        names: take every column as names, such as those of sites.

    Raises:
        InputError: a column or a patient is missing, a patient has two values, a column is empty,
            a column of numbers has a cell that is none, or one of names has nearly as many values
            as patients.
    """
    table, name = to_table(source, "labels"), name_of(source, "labels")
    for column in ("patient_id", *columns):
        if column not in table.columns:
            raise InputError(f"{name}: no column {column}; found {', '.join(table.columns[:20])}")
    keys = [key for key in ids.columns if key in table.columns]
    known = table[[*keys, *columns]].drop_duplicates()
    twice = known.loc[known.duplicated(keys), keys]
    if len(twice):
        raise InputError(f"{name}: several rows of {'/'.join(twice.iloc[0])} differ")
    merged = ids.merge(known, how="left", on=keys, indicator=True, validate="many_to_one")
    lost = merged.loc[merged["_merge"] == "left_only", "patient_id"]
    if len(lost):
        raise InputError(
            f"{name}: patient {lost.iloc[0]} and {len(lost) - 1} more of the study are missing"
            + _why(lost, table, ids, name)
        )
    read = {
        column: blanked(merged[column]) if names else as_label(merged, column, name)
        for column in columns
    }
    for column, values in read.items():
        if values.isna().all():
            raise InputError(f"{name}: column {column} is empty")
        count, patients = values.nunique(), ids["patient_id"].nunique()
        most = max(2, MOST_NAMES * patients)
        if not pd.api.types.is_numeric_dtype(values) and count > most:
            raise InputError(
                f"{name}: {column} has {count} different values in {patients} patients, the first "
                f"is {values.dropna().iloc[0]!r}; names as many as patients group nobody. Give "
                "numbers, or a column of few names"
            )
    return pd.DataFrame(read)


def read_exposure(source: TableSource, ids: pd.DataFrame) -> Bool[np.ndarray, " n"]:
    """Rows of patients on whom the fine-tuned weights depend.

    Args:
        source: a path or table of ``patient_id`` and ``used`` (``patients.csv`` of
            experiments.finetune), or of ``patient_id`` and ``split``, whose train and val patients
            count. Patients who are not in it are not exposed, but one must be in it at least; a
            patient with several rows is if any of them is.
        ids: of the study.

    Raises:
        InputError: the columns are missing, `used` is neither true nor false, a split has another
            name, or the table is about other patients.
    """
    table, name = to_table(source, "exposure"), name_of(source, "exposure")
    if "patient_id" not in table.columns or not {"used", "split"} & set(table.columns):
        raise InputError(f"{name}: columns patient_id and used (or split) are needed")
    if "used" in table.columns:
        text = table["used"].astype(str).str.lower()
        unknown = ~text.isin(["true", "false", "1", "0"])
        if unknown.any():
            patient, found = table.loc[unknown, ["patient_id", "used"]].iloc[0]
            raise InputError(f"{name}: used is {found!r} (patient {patient}), not true or false")
        used = text.isin(["true", "1"])
    else:
        unknown = ~table["split"].isin(["train", "val", "test"])
        if unknown.any():
            patient, found = table.loc[unknown, ["patient_id", "split"]].iloc[0]
            raise InputError(
                f"{name}: split is {found!r} (patient {patient}), not train, val or test"
            )
        used = table["split"].isin(["train", "val"])
    there = set(table["patient_id"])
    lost = [patient for patient in ids["patient_id"] if patient not in there]
    own = table.loc[~table["patient_id"].isin(ids["patient_id"]), "patient_id"].dropna().tolist()
    if same_but_for_writing(lost, own):
        cause = probable_cause(lost, own, ("the study", name))
        raise InputError(
            f"{name}: {len(set(lost))} patients of the study are not in it, and would count as "
            f"unseen: {cause}. Write ids alike"
        )
    if len(lost) == len(ids):
        raise InputError(
            f"{name}: none of the study's patients is in it (it has {table['patient_id'].iloc[0]}, "
            f"the study {lost[0]}), and all would count as unseen; write ids alike, or list those "
            "who were not seen with used = false"
        )
    return ids["patient_id"].isin(table.loc[used, "patient_id"]).to_numpy()


def read_ceiling(source: TableSource, columns: pd.Series) -> Float[np.ndarray, " k"]:
    """Intraclass correlations of a repeatability table in the order of `columns`, else NaN.

    Raises:
        InputError: a column is missing, or the table has none of the features.
    """
    table, name = to_table(source, "repeatability"), name_of(source, "repeatability")
    if not {"column", "icc"} <= set(table.columns):
        raise InputError(f"{name}: columns column and icc are needed, as from --perturb")
    once = table.drop_duplicates("column")
    known = as_numbers(once, "icc", name).set_axis(once["column"])
    if not columns.isin(known.index).any():
        raise InputError(f"{name}: has none of the {len(columns)} features, such as {columns[0]}")
    return known.reindex(columns).to_numpy(np.float64)


def _why(lost: pd.Series, table: pd.DataFrame, ids: pd.DataFrame, name: str) -> str:
    """A clause on the likely reason why patients of the study are not in a table."""
    own = table.loc[~table["patient_id"].isin(ids["patient_id"]), "patient_id"].dropna()
    cause = probable_cause(lost.tolist(), own.tolist(), ("the study", name))
    return f": {cause}" if cause else ""


def _sites(source: TableSource, column: str, study: Study, seed: int) -> np.ndarray:
    values, name = (
        read_labels(source, study.ids, [column], names=True)[column],
        name_of(source, "labels"),
    )
    if values.isna().any():
        patient = study.ids["patient_id"][values.isna()].iloc[0]
        raise InputError(f"{name}: patient {patient} has no {column}")
    sites = values.astype(str).to_numpy(str)
    try:
        leave_site_out(study.ids["patient_id"].to_numpy(), sites, seed)
    except ValueError as error:
        raise InputError(f"site {column}: {error}") from error
    return sites
