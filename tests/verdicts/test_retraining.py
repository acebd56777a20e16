"""The prediction interval under retraining, and the verdicts that need it to exclude zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.retraining import retraining_band
from tests.planted import plant

N = 200


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t of five degrees of freedom, with variance 1."""
    return rng.standard_t(5, size=shape) / np.sqrt(5 / 3)


def correlated(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A tenth of the variance is common to all features, two thirds to each of 20 clusters."""
    cluster, sign = rng.integers(0, 20, shape[1]), rng.choice((-1.0, 1.0), shape[1])
    common, of_cluster = rng.normal(size=(shape[0], 1)), rng.normal(size=(shape[0], 20))
    parts = (common, sign * of_cluster[:, cluster], rng.normal(size=shape))
    shares = np.sqrt([0.1, 0.66, 0.24])
    return np.sum(
        [share * part for share, part in zip(shares, np.broadcast_arrays(*parts), strict=True)],
        axis=0,
    )


def drawn_changes(seed: int, encoders: int, draw: Draw, mean: float, k: int = 240) -> np.ndarray:
    """Changes in some encoders: each feature has its own spread over seeds, mostly 0.03 to 0.08."""
    rng = np.random.default_rng(seed)
    return mean + 0.05 * np.sqrt(10 / rng.chisquare(10, k)) * draw(rng, (encoders, k))


@pytest.mark.parametrize("encoders", [3, 6])
def test_the_next_encoder_lies_in_the_band_as_often_as_stated(encoders: int) -> None:
    """20,000 normal draws: the share inside 95% bands has a standard error of 0.0015."""
    rng = np.random.default_rng(encoders)
    drawn = rng.normal(-0.1, 0.05, size=(encoders + 1, 20_000))
    band = retraining_band(list(drawn[:-1]))
    inside = (band.low <= drawn[-1]) & (drawn[-1] <= band.high)
    assert abs(inside.mean() - 0.95) < 0.006
    assert band.encoders == encoders


@pytest.mark.parametrize("encoders", [3, 5])
@pytest.mark.parametrize("draw", [normal, heavy, correlated])
def test_it_does_so_whatever_the_spread_of_each_feature(draw: Draw, encoders: int) -> None:
    """200 studies of 240 features; the error of the mean share is taken over the studies."""
    inside, outside_by_chance = [], []
    for seed in range(200):
        *changes, following = drawn_changes(seed, encoders + 1, draw, -0.1)
        band = retraining_band(changes)
        inside.append(((band.low <= following) & (following <= band.high)).mean())
        outside_by_chance.append((band.df > encoders - 1).mean())
    error = np.std(inside) / np.sqrt(len(inside))
    # Normal theory promises 0.95; heavy tails and features that move together cost up to a point.
    allowed = 0.0 if draw is normal else 0.01
    assert 0.95 - 2.5 * error - allowed < np.mean(inside) < 0.95 + 2.5 * error + allowed
    assert np.mean(outside_by_chance) == 1, "other features add degrees of freedom"


@pytest.mark.parametrize("draw", [normal, heavy, correlated])
def test_three_seeds_show_a_change_that_every_seed_makes(draw: Draw) -> None:
    """A change of 0.3 in a third of the features; with each feature's own spread alone 0.71."""
    power, alarms = [], []
    for seed in range(40):
        changes = drawn_changes(seed, 3, draw, 0.0)
        changes[:, ::3] -= 0.3
        band = retraining_band(list(changes))
        power.append((band.high < 0)[::3].mean())
        excluded = (band.high < 0) | (band.low > 0)
        alarms.append(np.delete(excluded, np.s_[::3]).mean())
    assert np.mean(power) > 0.9
    assert np.mean(alarms) < 0.05


def test_a_change_of_one_seed_alone_is_within_the_band() -> None:
    """In one feature or in a third of 240, beside features that all seeds leave as they are."""
    for changed in (1, 80):
        values = 0.01 * np.random.default_rng(changed).normal(size=(3, 240))
        values[0, :changed] -= 0.4
        assert (retraining_band(list(values)).high[:changed] > 0).all()


def test_seeds_that_agree_leave_an_interval_of_no_width() -> None:
    band = retraining_band([np.array([-0.2, 0.0])] * 3)
    np.testing.assert_allclose(band.high - band.low, 0, atol=1e-15)
    np.testing.assert_allclose(band.mean, [-0.2, 0.0])


def test_one_feature_has_the_interval_of_students_t() -> None:
    values = np.array([-0.2, -0.25, -0.1])
    band = retraining_band(list(values[:, None]))
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) * np.sqrt(1 + 1 / 3)
    np.testing.assert_allclose([band.low[0], band.high[0]], values.mean() + np.r_[-half, half])
    np.testing.assert_array_equal(band.df, 2)


def test_a_feature_without_a_value_has_no_band() -> None:
    values = list(np.random.default_rng(0).normal(size=(3, 5)))
    values[1][2] = np.nan
    band = retraining_band(values)
    for ends in (band.mean, band.low, band.high):
        assert np.flatnonzero(np.isnan(ends)).tolist() == [2]


@pytest.mark.parametrize("encoders", [1, 2])
def test_two_encoders_are_too_few(encoders: int) -> None:
    with pytest.raises(ValueError, match=f"{encoders} fine-tuned encoders are too few"):
        retraining_band([np.zeros(3)] * encoders)


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
