"""Learning curves: a rescaling that hides a signal from few patients is no loss."""

from __future__ import annotations

import numpy as np
import pytest

from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.estimates import Estimate
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.learning import needs_more

N, D, K = 240, 256, 30
GROUPS = np.arange(N)


@pytest.fixture(scope="module")
def tables():
    """Directions without signal made five times as loud, and a factor that is gone."""
    rng = np.random.default_rng(0)
    latent, mixing = rng.normal(size=(N, 6)), rng.normal(size=(6, D))
    r = latent[:, np.arange(K) % 6] + np.linspace(0.3, 1, K) * rng.normal(size=(N, K))
    pre = latent @ mixing + 2 * rng.normal(size=(N, D))
    basis = np.linalg.qr(mixing.T)[0]
    signal = pre @ basis @ basis.T
    sides = {
        "loud": signal + 5 * (pre - signal),
        "erased": latent * (np.arange(6) > 0) @ mixing + 2 * rng.normal(size=(N, D)),
    }
    folds, clusters = make_folds(GROUPS, 5, 1, 0), cluster_features(r)
    held_out = held_out_errors(pre, sides, r, GROUPS, folds, None)
    rules = Rules(flips=999)
    return {side: judge(held_out, side, clusters, GROUPS, rules).features for side in sides}


def test_a_rescaling_costs_patients_and_is_no_loss(tables) -> None:
    loud = tables["loud"]
    assert (loud["needs_more"] == -1).all()
    assert (loud["p_maxt"] <= 0.05).mean() > 0.3, "no view is fooled, nothing is tested"
    assert (loud["withheld"] == "learning curve").any()
    assert not loud["verdict"].isin(["lost", "gained"]).any()
    assert loud["delta_r2_extrapolated"].mean() > loud["delta_r2_leading"].mean() + 0.05


def test_a_factor_that_is_gone_is_lost(tables) -> None:
    erased = tables["erased"]
    gone = np.arange(K) % 6 == 0
    assert (erased["needs_more"] >= 0).all()
    assert (erased["verdict"][gone] == "lost").mean() > 0.7
    assert not erased["verdict"][~gone].isin(["lost", "gained"]).any()


@pytest.mark.parametrize(
    ("value", "p", "expected"), [(-0.1, 0.05, -1), (0.1, 0.01, 1), (-0.1, 0.051, 0)]
)
def test_which_encoder_needs_more(value: float, p: float, expected: int) -> None:
    one = np.array([value])
    cost = Estimate(one, one, one, np.zeros((5, 1)), 5)
    assert needs_more(cost, np.array([p]), 0.05) == expected
