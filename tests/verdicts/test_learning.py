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
from lens.verdicts.learning import LASTING, lasting_share, needs_more

N, D, K = 240, 256, 30
GROUPS = np.arange(N)


@pytest.fixture(scope="module")
def tables():
    """What costs patients and no information, and a factor that is gone.

    ``loud``: directions without signal five times as loud. ``white``: all directions of an
    embedding of 64 channels with the same variance.
    """
    rng = np.random.default_rng(0)
    latent, mixing = rng.normal(size=(N, 6)), rng.normal(size=(6, D))
    r = latent[:, np.arange(K) % 6] + np.linspace(0.3, 1, K) * rng.normal(size=(N, K))
    pre = latent @ mixing + 2 * rng.normal(size=(N, D))
    basis = np.linalg.qr(mixing.T)[0]
    signal = pre @ basis @ basis.T
    few = pre[:, :64]
    left, _, _ = np.linalg.svd(few - few.mean(axis=0), full_matrices=False)
    sides = {
        "loud": signal + 5 * (pre - signal),
        "erased": latent * (np.arange(6) > 0) @ mixing + 2 * rng.normal(size=(N, D)),
    }
    folds, clusters = make_folds(GROUPS, 5, 1, 0), cluster_features(r)
    rules, found = Rules(flips=999), {}
    for before, after in ((pre, sides), (few, {"white": np.sqrt(N) * left})):
        held_out = held_out_errors(before, after, r, GROUPS, folds, None)
        for side in after:
            found[side] = judge(held_out, side, clusters, GROUPS, rules).features
    return found


@pytest.mark.parametrize("side", ["loud", "white"])
def test_a_rescaling_costs_patients_and_is_no_loss(tables, side: str) -> None:
    table = tables[side]
    assert (table["needs_more"] == -1).all()
    assert (table["p_maxt"] <= 0.05).mean() > 0.3, "no view is fooled, nothing is tested"
    assert (table["withheld"] == "learning curve").any()
    assert (table["lasting_share"] < LASTING).all()
    assert not table["verdict"].isin(["lost", "gained"]).any()
    assert table["delta_r2_extrapolated"].mean() > table["delta_r2_one_scale"].mean() + 0.05


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


def test_the_share_that_lasts_goes_by_the_large_changes() -> None:
    def estimate(values: list[float]) -> Estimate:
        zeros = np.zeros(len(values))
        return Estimate(np.array(values), zeros, zeros, np.zeros((2, len(values))), 2)

    change = estimate([-0.4, -0.1, 0.0, np.nan])
    assert lasting_share(change, estimate([-0.4, 0.0, 0.3, np.nan])) == pytest.approx(0.16 / 0.17)
    assert lasting_share(change, estimate([0.0, -0.1, 0.0, 0.0])) == pytest.approx(0.01 / 0.17)
    assert lasting_share(estimate([0.0, 0.0]), estimate([0.1, 0.1])) == 1.0
