"""Alarms, power and coverage of the verdicts in planted cohorts: ``benchmarks.calibration``, small.

Few cohorts can only show gross faults; the limits are those that a rate of 5% breaks in one case of
a thousand. The benchmark has the same rows with hundreds of cohorts. What draws many cohorts is run
by ``make calibration``; ``make test`` keeps the quickest alarm, a loss that must be called, and the
population's own numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, spearmanr

from benchmarks.acceptance import against_interval, alarms, coverage
from benchmarks.cohorts import (
    FOUR_STUDIES,
    GAUSSIAN,
    LATENTS,
    OUTLYING,
    SKEWED,
    SMALL,
    Family,
    Size,
    draw,
    draw_clusters,
    harmless_maps,
    population_r2,
)
from benchmarks.judged_cohorts import examine, judge_clusters
from lens.probes.spectral import Solution
from lens.settings import Scores
from lens.verdicts.estimates import delta_r2, significance
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import PROBES, held_out_errors

COHORTS, FLIPS = 12, 999
SIZE = Size(n=200, d=96, k=48)


def allowed(cohorts: int) -> int:
    """Cohorts with an alarm that a rate of 5% exceeds once in a thousand times."""
    return int(binom.ppf(0.999, cohorts, 0.05))


def together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Verdicts of several cohorts, none of them against the feature's own interval."""
    numbered = [each.assign(cohort=number) for number, each in enumerate(tables)]
    table = pd.concat(numbered, ignore_index=True)
    assert against_interval(table)[0] == 0
    return table


def nulls(family: Family, size: Size, scores: str = "normal") -> dict[str, int]:
    """Alarms in cohorts in which nothing changed."""
    made = [draw(family, size, 500 + seed) for seed in range(COHORTS)]
    options = {"size": size, "flips": FLIPS, "scores": scores}
    return alarms(together([examine(each, seed=i, **options) for i, each in enumerate(made)]))


@pytest.mark.parametrize(
    ("family", "size"),
    [
        pytest.param(SKEWED, SIZE, marks=pytest.mark.calibration),
        pytest.param(OUTLYING, SIZE, marks=pytest.mark.calibration),
        pytest.param(FOUR_STUDIES, replace(SIZE, n=60), marks=pytest.mark.calibration),
        (SMALL[1], Size(n=60, d=256, k=48)),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_nothing_is_called_where_nothing_changed(family: Family, size: Size) -> None:
    assert max(nulls(family, size).values()) <= allowed(COHORTS)


def in_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Influences from the residuals of the fit at hand, as the infinitesimal jackknife has them."""
    monkeypatch.setattr(Solution, "left_out", lambda self, groups=None: self.residual)


@pytest.mark.calibration
@pytest.mark.parametrize("family", [OUTLYING, SKEWED], ids=lambda each: each.name)
def test_in_sample_residuals_of_raw_values_raise_alarms(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What normal scores and left-out residuals are for: in one view, since three hide most of it.

    The tests above can fail.
    """
    count, size = 30, replace(SIZE, d=64)
    made = [draw(family, size, 500 + seed) for seed in range(count)]
    probes = {"per_channel": PROBES["per_channel"]}

    def cohorts_with_an_alarm(scores: Scores) -> int:
        found = 0
        for seed, each in enumerate(made):
            folds = make_folds(each.groups, 5, 1, seed)
            held_out = held_out_errors(
                each.pre, {"ft": each.ft}, each.r, each.groups, folds, None,
                scores=scores, probes=probes,
            )  # fmt: skip
            before, after = held_out.probes["per_channel"].values()
            change = delta_r2(before, after, held_out.baseline, each.groups)
            found += significance(change, flips=FLIPS, seed=seed).p_maxt.min() <= 0.05
        return found

    assert cohorts_with_an_alarm("normal") <= allowed(count)
    in_sample(monkeypatch)
    assert cohorts_with_an_alarm("raw") > allowed(count)


@pytest.mark.calibration
def test_changes_that_take_nothing_away_give_no_call() -> None:
    """Whitening among them, with more patients than channels (`benchmarks` has other sizes)."""
    cohort = draw(GAUSSIAN, Size(n=720, d=300, k=48), 1)
    maps = harmless_maps(cohort, 1)
    sides = {name: (cohort.pre @ change).astype(np.float32) for name, change in maps.items()}
    table = examine(cohort, sides, flips=FLIPS)
    assert not table["verdict"].isin(["lost", "gained"]).any()
    # They are no small changes: one takes a tenth of R2 from what the reported probe reads.
    by_side = table.groupby("side")["delta_r2"].mean()
    assert by_side["signal-free directions x 5"] < -0.1


def test_the_population_reads_the_same_after_a_harmless_change() -> None:
    """And what simulated patients say of it: least squares in 125 for each channel."""
    size = Size(n=12_000, d=96, k=60)
    cohort = draw(GAUSSIAN, size, 1)
    expected = population_r2(cohort)
    for change in harmless_maps(cohort, 1).values():
        np.testing.assert_allclose(population_r2(cohort, change), expected, rtol=1e-6)
    x = np.c_[np.ones(size.n), cohort.pre]
    rest = cohort.r - x @ np.linalg.lstsq(x, cohort.r, rcond=None)[0]
    found = 1 - np.square(rest).mean(axis=0) / cohort.r.var(axis=0)
    # Least squares explains 96/12000 of what is left by chance, the sample scatters by 0.01.
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.calibration
def test_untouched_near_copies_are_not_called_with_their_medoid() -> None:
    size = Size(n=400, d=96, k=60)
    drawn = draw_clusters(size, 0)
    rho = np.abs(spearmanr(drawn.cohort.r)[0])
    assert rho[drawn.cluster[:, None] == drawn.cluster].min() > 0.9
    table = together([judge_clusters(seed, size=size) for seed in range(3)])
    assert table["cluster"].nunique() == 10
    assert table.loc[table["medoid"], "touched"].any()
    assert (table.loc[table["touched"], "verdict"] == "lost").mean() > 0.5
    assert not table.loc[~table["touched"], "verdict"].isin(["lost", "gained"]).any()


def test_large_losses_are_called_and_nothing_else() -> None:
    kept = np.r_[0.0, 0.0, 0.0, np.ones(LATENTS - 3)]
    made = [draw(GAUSSIAN, SIZE, seed, kept=kept) for seed in range(4)]
    table = together([examine(each, seed=i, flips=FLIPS) for i, each in enumerate(made)])
    large = (table["factor"] < 3) & (table.groupby("feature")["delta_r2"].transform("mean") < -0.3)
    assert large.sum() > 30
    assert (table.loc[large, "verdict"] == "lost").mean() > 0.9
    assert alarms(table[table["factor"] >= 3])["calls"] <= allowed(4)


@pytest.mark.calibration
@pytest.mark.parametrize("family", [SKEWED, OUTLYING], ids=lambda family: family.name)
def test_intervals_cover_a_change_that_is_not_zero(family: Family) -> None:
    size, kept = Size(n=120, d=64, k=24), np.r_[0.0, 0.4, 0.7, np.ones(LATENTS - 3)]
    made = [draw(family, size, seed, kept=kept) for seed in range(30)]
    table = together([examine(each, seed=i, flips=49) for i, each in enumerate(made)])
    by_feature, touched = coverage(table), np.arange(24) % LATENTS < 3
    # The truth is the mean of these 30 itself, which costs nothing much: sqrt(29/30).
    assert 0.91 < by_feature[touched].mean() < 0.99
    assert 0.91 < by_feature[~touched].mean() < 0.99


@pytest.mark.calibration
def test_groups_that_changed_leave_the_others_uncalled() -> None:
    """Family-wise control over the groups of a task whose global test is sure of a change."""
    kept = np.r_[0.0, 0.0, 0.3, np.ones(LATENTS - 3)]
    size, count = Size(n=150, d=64, k=36), 30
    made = [draw(GAUSSIAN, size, 900 + seed, kept=kept) for seed in range(count)]
    table = together([examine(each, seed=i, flips=FLIPS) for i, each in enumerate(made)])
    touched = table["factor"] < 2
    assert (table["p_task"] <= 0.05).mean() > 0.9
    assert (table.loc[touched, "group_verdict"] == "lost").mean() > 0.8
    assert alarms(table[table["factor"] > 2])["groups"] <= binom.ppf(0.95, count, 0.05)
