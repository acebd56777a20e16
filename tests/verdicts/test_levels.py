"""Verdicts of groups of features and of a task, on planted changes and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.estimates import Estimate
from lens.verdicts.evidence import Estimates
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import RIDGE_VIEWS, held_out_errors
from lens.verdicts.judge import Judged, judge
from lens.verdicts.levels import task_p, with_levels

N, K = 200, 40
GROUPS = np.arange(N)
RULES = Rules(flips=499)


def mask(*columns: int) -> np.ndarray:
    return np.isin(np.arange(K), columns)


ROWS = {
    ("weak",): mask(*range(20)),
    ("rest",): mask(*range(20, 40)),
    ("noise",): mask(38, 39),
    ("empty",): mask(),
}


def cohort(seed: int, lost: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twenty features that all lose a little, eighteen that stay, two that nobody reads."""
    rng = np.random.default_rng(seed)
    latent, mixing = rng.normal(size=(N, 8)), np.random.default_rng(5).normal(size=(8, 40))
    r = np.empty((N, K))
    for k in range(K):
        r[:, k] = latent[:, k % 4 + 4 * (k >= 20)] + 0.6 * rng.normal(size=N)
    r[:, 38:] = rng.normal(size=(N, 2))
    # A share of the first four factors is replaced by what no feature holds.
    after = latent.copy()
    after[:, :4] = np.sqrt(1 - lost**2) * latent[:, :4] + lost * rng.normal(size=(N, 4))
    pre, ft = (x @ mixing + 1.5 * rng.normal(size=(N, 40)) for x in (latent, after))
    return pre, ft, r


def judged(seed: int, lost: float) -> Judged:
    pre, ft, r = cohort(seed, lost)
    held_out = held_out_errors(pre, {"t": ft}, r, GROUPS, make_folds(GROUPS, 5, 1, seed), None)
    return judge(held_out, "t", cluster_features(r), GROUPS, RULES, rows=ROWS, seed=seed)


@pytest.fixture(scope="module")
def weak() -> Judged:
    return judged(3, 0.4)


def test_a_row_has_the_mean_of_its_features(weak: Judged) -> None:
    change = weak.features["delta_r2"].to_numpy()
    expected = [change.mean(), change[:20].mean(), change[20:].mean(), change[38:].mean(), np.nan]
    np.testing.assert_allclose(weak.levels["delta_r2_cv"], expected, atol=1e-12)
    half = (weak.levels["delta_r2_cv_high"] - weak.levels["delta_r2_cv_low"]) / 2
    own = (weak.features["delta_r2_high"] - weak.features["delta_r2_low"]) / 2
    # Features share patients, and differ in noise: the mean is better known than each.
    assert half[1] < own[:20].mean()


def test_many_small_losses_make_a_loss_of_the_group(weak: Judged) -> None:
    levels = weak.levels["verdict"].tolist()
    assert levels == ["lost", "lost", "unchanged", "absent", ""]
    assert (weak.features["verdict"][:20] == "lost").mean() < 1
    assert weak.levels["p_group"][0] <= 0.05
    assert (weak.levels["p_group"] >= weak.levels["p_group"][0]).all()


@pytest.mark.calibration
def test_groups_and_task_keep_their_level_beside_a_group_that_changed() -> None:
    """Family-wise: untouched groups, next to a real change and in a cohort without any."""
    alarms = {"beside": 0, "rest": 0, "task": 0}
    for seed in range(100, 160):
        changed, nothing = judged(seed, 0.8).levels, judged(seed, 0.0).levels
        called = ["lost", "gained"]
        alarms["beside"] += changed["verdict"][2:].isin(called).any()
        alarms["rest"] += nothing["verdict"].isin(called).any()
        alarms["task"] += nothing["p_group"][0] <= 0.05
        assert changed["verdict"][1] == "lost"
    # Binomial(60, 0.05): 8 or more has a chance of 1.2%.
    assert max(alarms.values()) < 8, alarms


def test_the_task_is_asked_about_changes_beyond_the_margin() -> None:
    """Twenty features that all lose 0.015 of R2, known to 0.002: a change, and a trifle."""
    rng = np.random.default_rng(0)
    influence = rng.normal(size=(100, 20))
    influence = 0.002 * (influence - influence.mean(axis=0)) / np.linalg.norm(influence, axis=0)

    def p(loss: float, needs_more: int = 0, extrapolated: float = 0.0) -> float:
        value = np.full(20, -loss)
        change = Estimate(value, value, value, influence, 100)
        beyond = change._replace(value=np.full(20, -extrapolated))
        estimates = Estimates(
            change, change, dict.fromkeys(RIDGE_VIEWS, change), beyond, change, {},
            None, None, {}, 1, None,
        )  # fmt: skip
        return task_p(estimates, needs_more, Rules(margin=0.02, flips=199))

    assert p(0.015) == 1
    assert p(0.03) == 1 / 200
    # What more patients would bring back is no change of the task.
    assert p(0.03, -1, 0.0) == 1
    assert p(0.03, -1, -0.05) == 1
    assert p(0.03, -1, 0.03) == 1 / 200
    assert p(0.03, 1, 0.0) == 1 / 200


def test_no_group_is_called_where_the_task_is_not() -> None:
    rng = np.random.default_rng(0)
    for seed in range(200, 210):
        levels = judged(seed, rng.uniform(0, 0.2)).levels
        if levels["p_group"][0] > 0.05:
            assert not levels["verdict"].isin(["lost", "gained"]).any()


def test_the_columns_join_the_rows_of_a_change_alone() -> None:
    table = pd.DataFrame(
        {
            "roi": ["gland"] * 4,
            "group": ["glcm", "glcm", "wavelet", "wavelet"],
            "stage": ["pre", "delta", "pre", "delta"],
        }
    )
    levels = pd.DataFrame(
        {
            "level": ["task", "group", "modality"],
            "roi": ["", "gland", "gland"],
            "group": ["all", "glcm", "glcm"],
            "delta_r2_cv": [0.3, 0.1, 0.2],
            "p_group": [0.01, 0.02, 0.03],
            "verdict": ["lost", "gained", "lost"],
        }
    )
    found = with_levels(table, levels, "group", ["roi", "group"])
    assert found["delta_r2_cv"].fillna(-1).tolist() == [-1, 0.1, -1, -1]
    assert found["verdict"].fillna("-").tolist() == ["-", "gained", "-", "-"]
    assert found[["roi", "group", "stage"]].equals(table)
