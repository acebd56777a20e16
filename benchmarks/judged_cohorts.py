"""Planted cohorts through the folds, probes and tests of the lens, and how it judges them.

`examine` judges a cohort; the functions ``judge_...`` draw one by its seed and judge it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmarks.cohorts import (
    BY_NAME,
    GAUSSIAN,
    LATENTS,
    Cohort,
    Numbers,
    Size,
    Way,
    draw,
    draw_clusters,
    draw_losses,
    harmless_maps,
    population_r2,
)
from lens.settings import Rules, Scores, SweepConfig

SIZE = Size()
"""Five folds, once."""

FLIPS = 2000
"""Sign flips of each test; the lens's own default is 5,000."""


def examine(
    cohort: Cohort,
    sides: Mapping[str, np.ndarray] | None = None,
    *,
    size: Size = SIZE,
    seed: int = 0,
    flips: int = FLIPS,
    scores: Scores = "normal",
    mlp: SweepConfig | None = None,
) -> pd.DataFrame:
    """Verdicts of a cohort, from the folds to the groups of features.

    Args:
        cohort: as drawn.
        sides: name -> embeddings after fine-tuning; None for the cohort's own, as ``ft``.
        size: its folds and repeats are those of the cross-validation.
        seed: of folds, flips and the MLP.
        flips: sign flips of each test.
        scores: whether normal scores of the features are judged or their values.
        mlp: settings of the shared MLP; None leaves it and the verdict ``recoded`` out.

    Returns:
        A row per side and feature: ``side``, ``feature``, ``factor``, the columns of
        `lens.verdicts.rules.verdict_table`, and ``p_task`` and ``group_verdict``, the verdict of
        all features of the same factor together (`lens.verdicts.levels`).
    """
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.fold_values import impute
    from lens.verdicts.folds import make_folds
    from lens.verdicts.held_out import held_out_errors
    from lens.verdicts.judge import judge

    sides = {"ft": cohort.ft} if sides is None else sides
    folds = make_folds(cohort.groups, size.folds, size.repeats, seed)
    held_out = held_out_errors(
        cohort.pre, sides, cohort.r, cohort.groups, folds, mlp,
        scores=scores, seed=seed, back=False,
    )  # fmt: skip
    clusters = cluster_features(impute(cohort.r, np.ones(len(cohort.r), bool)))
    rows = {(str(factor),): cohort.factor == factor for factor in np.unique(cohort.factor)}
    options: dict[str, Any] = {"rules": Rules(flips=flips), "rows": rows, "seed": seed}
    tables = []
    for side in sides:
        judged = judge(held_out, side, clusters, cohort.groups, **options)
        table = judged.features
        table.insert(0, "side", side)
        table.insert(1, "feature", np.arange(len(table)))
        table.insert(2, "factor", cohort.factor)
        verdict = dict(zip(rows, judged.levels["verdict"][1:], strict=True))
        table["p_task"] = float(judged.levels["p_group"].iloc[0])
        table["group_verdict"] = [verdict[str(factor),] for factor in cohort.factor]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def judge_family(
    seed: int,
    *,
    family: str,
    size: Size,
    kept: Numbers | None = None,
    other: Literal["", "same embeddings", "patients permuted"] = "",
    flips: int = FLIPS,
) -> pd.DataFrame:
    """Verdicts of a cohort of a family.

    Args:
        seed: of everything but the mixing; two families have no draw in common.
        family: its name.
        size, kept: as in `draw`.
        other: ``same embeddings`` has those before on both sides, ``patients permuted`` the
            features of other patients.
        flips: sign flips of each test.
    """
    own = seed + 10_000 * [*BY_NAME].index(family)
    cohort = draw(BY_NAME[family], size, own, kept=kept)
    if other == "same embeddings":
        cohort = replace(cohort, ft=cohort.pre)
    if other == "patients permuted":
        cohort = replace(cohort, r=np.random.default_rng(own).permutation(cohort.r))
    return examine(cohort, size=size, seed=own, flips=flips)


def judge_harmless(seed: int, *, size: Size) -> pd.DataFrame:
    """Verdicts on every map of `harmless_maps`, with the population's R2 before and after it.

    In columns ``population_pre`` and ``population_ft``.
    """
    cohort = draw(GAUSSIAN, size, seed)
    maps = harmless_maps(cohort, seed)
    sides = {name: (cohort.pre @ change).astype(np.float32) for name, change in maps.items()}
    table = examine(cohort, sides, size=size, seed=seed)
    table["population_pre"] = np.tile(population_r2(cohort), len(maps))
    return table.assign(
        population_ft=np.concatenate([population_r2(cohort, change) for change in maps.values()])
    )


def judge_clusters(seed: int, *, size: Size) -> pd.DataFrame:
    """Verdicts of a cohort of `draw_clusters`, with the column ``touched``."""
    drawn = draw_clusters(size, seed)
    return examine(drawn.cohort, size=size, seed=seed).assign(touched=drawn.touched)


def judge_recoding(seed: int, *, size: Size, noise: float, mlp: SweepConfig) -> pd.DataFrame:
    """Verdicts with the MLP on a rotation (side ``rotation``) and on fresh noise alone (``ft``).

    A first layer of random weights reads an embedding whose every direction holds signal as well as
    a trained one, and then a rotation costs it nothing. With much noise in many channels it has to
    find the directions that hold the signal, and loses them with a rotation.

    Args:
        seed, size, noise: as in `draw`.
        mlp: settings of the MLP.
    """
    cohort = draw(GAUSSIAN, size, seed, noise=noise)
    rotation = harmless_maps(cohort, seed)["rotation"]
    sides = {"rotation": (cohort.pre @ rotation).astype(np.float32), "ft": cohort.ft}
    return examine(cohort, sides, size=size, seed=seed, mlp=mlp)


CELLS = tuple(
    (before, loss) for before in (0.25, 0.5, 0.8) for loss in (0.05, 0.1, 0.2, 0.3) if loss < before
)
"""R2 before and its loss that the power table asks for; one feature in twelve loses nothing."""


@cache
def power_design(
    size: Size, way: Way, cohorts: int = 10, steps: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """``share`` and ``left`` of `draw_losses` with which the sorts have the R2 and loss of `CELLS`.

    By bisection on the mean held-out R2, before and after, over cohorts that are used for nothing
    else.
    """
    before, loss = np.array(CELLS).T
    sort, others = np.arange(size.k) % LATENTS, LATENTS - len(CELLS)
    low, high = np.zeros((2, len(CELLS))), np.ones((2, len(CELLS)))
    share, left = np.ones((2, LATENTS))
    for _ in range(steps):
        middle = (low + high) / 2
        share, left = np.r_[middle[0], np.full(others, 0.5)], np.r_[middle[1], np.ones(others)]
        found = np.zeros((2, size.k))
        for seed in range(10**6, 10**6 + cohorts):
            found += _held_out_r2(draw_losses(size, seed, way, share, left), size) / cohorts
        cells = [found[:, sort == cell].mean(axis=1) for cell in range(len(CELLS))]
        by_cell = np.stack(cells, axis=1)
        # Before: more is read where more is shared. After: compared with what is read before.
        more = np.stack([by_cell[0] < before, by_cell[1] / by_cell[0] < 1 - loss / before])
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return share, left


def judge_power(seed: int, *, size: Size, way: Way) -> pd.DataFrame:
    """Verdicts of a cohort whose features have the R2 and the losses of `CELLS`.

    With columns ``aim_r2, aim_loss``, NaN for the features that lose nothing.
    """
    cohort = draw_losses(size, seed, way, *power_design(size, way))
    aims = np.vstack([CELLS, np.full((LATENTS - len(CELLS), 2), np.nan)])[cohort.factor]
    table = examine(cohort, size=size, seed=seed)
    return table.assign(aim_r2=aims[:, 0], aim_loss=aims[:, 1])


def _held_out_r2(cohort: Cohort, size: Size) -> np.ndarray:
    """Held-out R2 of the ridge probe before and after (2, k)."""
    from lens.verdicts.estimates import r2_score
    from lens.verdicts.folds import make_folds
    from lens.verdicts.held_out import PROBES, held_out_errors

    folds = make_folds(cohort.groups, size.folds, size.repeats, 0)
    probes, sides = {"per_channel": PROBES["per_channel"]}, {"ft": cohort.ft}
    found = held_out_errors(
        cohort.pre, sides, cohort.r, cohort.groups, folds, None, probes=probes
    )  # fmt: skip
    errors = found.probes["per_channel"].values()
    return np.stack([r2_score(each, found.baseline, cohort.groups).value for each in errors])
