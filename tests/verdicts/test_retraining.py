"""The prediction interval under retraining, and the verdicts that need it to exclude zero."""

from __future__ import annotations

import numpy as np
import pytest

from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.retraining import retraining_band
from lens.verdicts.judge import judge
from tests.planted import plant

N = 200


@pytest.mark.parametrize("encoders", [2, 3, 6])
def test_the_next_encoder_lies_in_the_band_as_often_as_stated(encoders: int) -> None:
    """20,000 normal draws: the share inside 95% bands has a standard error of 0.0015."""
    rng = np.random.default_rng(encoders)
    drawn = rng.normal(-0.1, 0.05, size=(encoders + 1, 20_000))
    band = retraining_band(list(drawn[:-1]))
    inside = (band.low <= drawn[-1]) & (drawn[-1] <= band.high)
    assert abs(inside.mean() - 0.95) < 0.006
    assert band.encoders == encoders


def test_seeds_that_agree_leave_an_interval_of_no_width() -> None:
    band = retraining_band([np.array([-0.2, 0.0])] * 3)
    np.testing.assert_allclose(band.high - band.low, 0, atol=1e-15)
    np.testing.assert_allclose(band.mean, [-0.2, 0.0])


def test_one_encoder_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two"):
        retraining_band([np.zeros(3)])


def test_a_change_of_one_seed_alone_is_no_verdict() -> None:
    """Other seeds that change the same, and other seeds that change nothing."""
    planted = plant(n=N, d=40)
    r = planted.radiomics.iloc[:, 1:].to_numpy()
    groups, folds, rules = np.arange(N), make_folds(np.arange(N), 5, 1, 0), Rules(flips=999)
    clusters = cluster_features(r)

    def held_out(x: np.ndarray):
        return held_out_errors(planted.pre, {"t": x}, r, groups, folds, None)

    first = held_out(planted.ft)
    same = judge(first, "t", clusters, groups, rules, [first, first]).features
    alone = judge(first, "t", clusters, groups, rules).features
    assert (same["verdict"] == alone["verdict"]).all()
    assert (alone["verdict"] == "lost").any()
    np.testing.assert_allclose(same["delta_r2_retrained"], alone["delta_r2"], atol=1e-12)
    assert (same["retrained"] == 3).all()
    unlike = judge(
        first, "t", clusters, groups, rules, [held_out(planted.pre), held_out(planted.pre)]
    ).features
    assert not unlike["verdict"].isin(["lost", "gained"]).any()
    assert (unlike["p_maxt"] == alone["p_maxt"]).all(), "the test of this encoder stays as it is"
