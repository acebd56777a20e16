"""The tables of a study on common rows: the patients that all of them have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.errors import CaseError, InputError
from lens.radiomics.names import parse_columns
from lens.study.cells import ID_COLUMNS
from lens.study.dimensions import matched
from lens.study.id_causes import probable_cause
from lens.study.tables import dimensions

LEAST = 0.5
"""Share of the largest table's rows that must be in all tables, unless fewer are allowed."""


def no_columns() -> pd.DataFrame:
    """An empty table of columns left out."""
    return pd.DataFrame(columns=["column", "reason"])


@dataclass(frozen=True)
class Rows:
    """Embeddings and features on the same rows, and what was left out so far.

    Attributes:
        ids: ``patient_id`` and, where all tables have it, ``study_id``.
        x: embeddings by name, as in `sources`.
        r: radiomic features in their own units, not finite where missing and not imputed.
        features: a row per column of `r`, see `parse_columns`.
        sources: what messages call each table, ``radiomics`` among them.
        dropped: columns left out, with the reason.
        set_aside: patients left out, with the reason.
        notes: what a reader of the results must know.
        imputed: entries of `r` that were missing, once they are imputed.
    """

    ids: pd.DataFrame
    x: dict[str, Float[np.ndarray, "n d"]]
    r: Float[np.ndarray, "n k"]
    features: pd.DataFrame
    sources: Mapping[str, str]
    dropped: pd.DataFrame = field(default_factory=no_columns)
    set_aside: tuple[CaseError, ...] = ()
    notes: tuple[str, ...] = ()
    imputed: Bool[np.ndarray, "n k"] | None = None

    @property
    def columns(self) -> list[str]:
        """Names of the features."""
        return self.features["column"].tolist()

    def with_rows(self, keep: Bool[np.ndarray, " n"], *set_aside: CaseError) -> Rows:
        """Only these rows; the others are explained by `set_aside`, or have no part."""
        return replace(
            self,
            ids=self.ids[keep].reset_index(drop=True),
            x={name: values[keep] for name, values in self.x.items()},
            r=self.r[keep],
            imputed=None if self.imputed is None else self.imputed[keep],
            set_aside=self.set_aside + set_aside,
        )

    def with_columns(
        self, keep: Bool[np.ndarray, " k"], dropped: pd.DataFrame | None = None
    ) -> Rows:
        """Only these features; `dropped` explains the others, unless nobody asked for them."""
        listed = [table for table in (self.dropped, dropped) if table is not None and len(table)]
        return replace(
            self,
            r=self.r[:, keep],
            imputed=None if self.imputed is None else self.imputed[:, keep],
            features=self.features[keep].reset_index(drop=True),
            dropped=pd.concat(listed, ignore_index=True) if listed else self.dropped,
        )


def join(
    embeddings: Mapping[str, pd.DataFrame],
    radiomics: pd.DataFrame,
    sources: Mapping[str, str],
    *,
    named: Collection[str] = (),
    allow_partial: bool = False,
) -> Rows:
    """The rows that all tables have, sorted by id; the other patients are set aside.

    Where patients are lost, a note says how many of how many joined and the probable cause.

    Args:
        embeddings: tables of ids and dimensions by name, ``pre`` among them.
        radiomics: ids and features.
        sources: what messages call each table, by the same names and ``radiomics``.
        named: embeddings whose dimensions have names of their own, which must then be the same;
            the others are taken in their order.
        allow_partial: go on where fewer than half of the largest table's rows join.

    Raises:
        InputError: embeddings of different dimensions, ``study_id`` in some tables only, or too few
            rows that join.
    """
    columns = _dimensions(embeddings, sources, named)
    frames = {sources[name]: frame for name, frame in embeddings.items()}
    ids, set_aside, note = _common_ids(frames | {sources["radiomics"]: radiomics}, allow_partial)

    def aligned(frame: pd.DataFrame, wanted: Sequence[str]) -> pd.DataFrame:
        merged = ids.merge(frame, how="left", on=list(ids.columns), validate="one_to_one")
        return merged[list(wanted)]

    features = dimensions(radiomics)
    # A value beyond float32 becomes infinite, and is refused as one.
    with np.errstate(over="ignore"):
        x = {
            name: aligned(frame, columns[name]).to_numpy(np.float32)
            for name, frame in embeddings.items()
        }
    return Rows(
        ids=ids,
        x=x,
        r=aligned(radiomics, features).to_numpy(np.float64),
        features=parse_columns(features),
        sources=sources,
        set_aside=set_aside,
        notes=(note,) if note else (),
    )


def _dimensions(
    embeddings: Mapping[str, pd.DataFrame], sources: Mapping[str, str], named: Collection[str]
) -> dict[str, list[str]]:
    """The columns of each embedding, in the order of those before fine-tuning."""
    columns = {name: dimensions(frame) for name, frame in embeddings.items()}
    return {
        name: matched(
            columns["pre"], found, (sources["pre"], sources[name]),
            named={"pre", name} <= set(named),
        )
        for name, found in columns.items()
    }  # fmt: skip


def _common_ids(
    frames: Mapping[str, pd.DataFrame], allow_partial: bool
) -> tuple[pd.DataFrame, tuple[CaseError, ...], str]:
    """Ids present in every table, sorted, the others as patients set aside, and a note on these."""
    with_study = [name for name, frame in frames.items() if "study_id" in frame.columns]
    if with_study and len(with_study) < len(frames):
        other = next(name for name in frames if name not in with_study)
        raise InputError(
            f"{with_study[0]} has column study_id, {other} does not; add it or drop it"
        )
    keys = list(ID_COLUMNS if with_study else ID_COLUMNS[:1])
    indexes = {name: pd.MultiIndex.from_frame(frame[keys]) for name, frame in frames.items()}
    common, *others = indexes.values()
    for index in others:
        common = common.intersection(index)
    note = _partial(indexes, common)
    if len(common) < LEAST * max(map(len, indexes.values())) and not allow_partial:
        raise InputError(
            f"{note}. Give all tables the same patients, with ids written alike; if so few are "
            "meant, allow it (--allow-partial, in Python allow_partial=True)"
        )
    everyone = pd.MultiIndex.from_frame(pd.concat([f[keys] for f in frames.values()])).unique()
    set_aside = [
        CaseError(
            "/".join(row),
            ", ".join(name for name, index in indexes.items() if row not in index),
            stage="join",
            reason="the patient is not in this file but in others",
            remedy="Add the patient's row, or remove the patient from the other files",
        )
        for row in everyone.difference(common)
    ]
    return common.sort_values().to_frame(index=False), tuple(set_aside), note


def _partial(indexes: Mapping[str, pd.MultiIndex], common: pd.MultiIndex) -> str:
    """How many of how many rows joined and why; empty where all tables have the same ids."""
    largest = max(map(len, indexes.values()))
    if all(len(index) == len(common) for index in indexes.values()):
        return ""
    rows = "studies" if common.nlevels > 1 else "patients"
    note = f"{len(common)} of {largest} {rows} joined"
    for one, other in combinations(indexes, 2):
        first, second = (
            [*map("/".join, indexes[here].difference(indexes[there]))]
            for here, there in ((one, other), (other, one))
        )
        if cause := probable_cause(first, second, (one, other)):
            return f"{note}: {cause}"
    short = min(indexes, key=lambda name: len(indexes[name]))
    return f"{note}: {short} has only {len(indexes[short])}"
