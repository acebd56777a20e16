"""What the profiles of both studies are made of: embeddings by run, features, patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

STAGES = 4
"""Of both encoders: of a ViT quarters of its blocks."""


@dataclass(frozen=True)
class Gathered:
    """A study's rows.

    Attributes:
        rows: places in the manifest, in the order of the others.
        r: features.
        features: their parts, as in `lens.study.Study`.
        patients: of each row.
    """

    rows: Int[np.ndarray, " n"]
    r: Float[np.ndarray, "n k"]
    features: pd.DataFrame
    patients: Shaped[np.ndarray, " n"]


def gathered(folder: Path, embeddings: Float[np.ndarray, "n d"]) -> Gathered:
    """The rows and features that the main job would judge.

    Args:
        folder: of the study, with ``cohort.csv`` and ``features/R.parquet``.
        embeddings: of any encoder, in the manifest's order.
    """
    from lens.study.load import load_study

    cohort = pd.read_csv(folder / "cohort.csv", dtype={"patient_id": str, "study_id": str})
    ids = [name for name in ("patient_id", "study_id") if name in cohort]
    given = {name: cohort[name].to_numpy(str) for name in ids} | {"embeddings": embeddings}
    study = load_study(
        given,
        {"same": given},
        folder / "features" / "R.parquet",
        split=cohort[["patient_id", "split"]].drop_duplicates(),
    )
    places = pd.Series(range(len(cohort)), index=pd.MultiIndex.from_frame(cohort[ids]))
    rows = places.loc[pd.MultiIndex.from_frame(study.ids[ids])].to_numpy()
    patients = study.ids["patient_id"].to_numpy(str)
    return Gathered(rows, study.observed(), study.features, patients)


def by_layer(
    trained: Path, study: str, pool: str, name: str, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Layer -> embeddings of a run, from the files of ``collect`` of `benchmarks.real.train`.

    Args:
        trained: folder of the files.
        study, pool: of which.
        name: of the run.
        rows: which, and in what order.
    """
    with np.load(trained / f"{study}-{pool}-layers.npz") as first:
        below = first[name][rows].astype(float)
    with np.load(trained / f"{study}-{pool}.npz") as last:
        top = last[name][rows].astype(float)
    ends = np.cumsum(_widths(below.shape[1], top.shape[1]))[:-1]
    parts = np.split(below, ends, axis=1)
    return {f"stage{at}": part for at, part in enumerate([*parts, top], start=1)}


def _widths(below: int, top: int) -> Sequence[int]:
    """Of the stages below the last one: each as wide, or half as wide as the next."""
    if below == (STAGES - 1) * top:
        return [top] * (STAGES - 1)
    halves = [top // 2**at for at in range(STAGES - 1, 0, -1)]
    assert sum(halves) == below, f"{below} channels below {top}"
    return halves
