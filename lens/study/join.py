"""The tables of a study on common rows: the patients that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.errors import CaseError, InputError
from lens.radiomics.names import parse_columns
from lens.study.tables import ID_COLUMNS


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
    embeddings: Mapping[str, pd.DataFrame], radiomics: pd.DataFrame, sources: Mapping[str, str]
) -> Rows:
    """The rows that all tables have, sorted by id; the other patients are set aside.

    Args:
        embeddings: tables of ids and dimensions by name, ``pre`` among them.
        radiomics: ids and features.
        sources: what messages call each table, by the same names and ``radiomics``.

    Raises:
        InputError: embeddings of different widths, or ``study_id`` in some tables only.
    """
    _check_widths(embeddings, sources)
    frames = {sources[name]: frame for name, frame in embeddings.items()}
    ids, set_aside = _common_ids(frames | {sources["radiomics"]: radiomics})

    def aligned(frame: pd.DataFrame) -> pd.DataFrame:
        merged = ids.merge(frame, how="left", on=list(ids.columns), validate="one_to_one")
        return merged.drop(columns=list(ids.columns))

    return Rows(
        ids=ids,
        x={name: aligned(frame).to_numpy(np.float32) for name, frame in embeddings.items()},
        r=aligned(radiomics).to_numpy(np.float64),
        features=parse_columns([c for c in radiomics.columns if c not in ID_COLUMNS]),
        sources=sources,
        set_aside=set_aside,
    )


def _check_widths(embeddings: Mapping[str, pd.DataFrame], sources: Mapping[str, str]) -> None:
    widths = {
        name: frame.shape[1] - len(set(ID_COLUMNS) & set(frame.columns))
        for name, frame in embeddings.items()
    }
    for name, width in widths.items():
        if width != widths["pre"]:
            raise InputError(
                f"{sources[name]}: embeddings have {width} dimensions, {sources['pre']} has "
                f"{widths['pre']}; the frozen projection needs the same width"
            )


def _common_ids(
    frames: Mapping[str, pd.DataFrame],
) -> tuple[pd.DataFrame, tuple[CaseError, ...]]:
    """Ids present in every table, sorted, and the others as patients set aside."""
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
    return common.sort_values().to_frame(index=False), tuple(set_aside)
