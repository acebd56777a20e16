"""The sign-flip test: closed forms, calibration and power on simulated differences."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats

from lens.verdicts.sign_flips import influence_test, sign_flip_test


def test_p_equals_full_enumeration_for_few_patients() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0.5, 1.0, size=(8, 3))
    flips = np.array(list(itertools.product((-1, 1), repeat=8)))
    null = np.array([np.abs(stats.ttest_1samp(d * s[:, None], 0).statistic) for s in flips])  # pyright: ignore[reportAttributeAccessIssue]
    observed = np.abs(stats.ttest_1samp(d, 0).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    exact = (null.max(axis=1)[:, None] >= observed - 1e-9).mean(axis=0)
    found = sign_flip_test(d, np.arange(8), flips=20_000, seed=1).p_maxt
    np.testing.assert_allclose(found, exact, atol=0.015)


def test_rows_of_a_patient_count_as_one() -> None:
    rng = np.random.default_rng(1)
    d = rng.normal(0.3, 1.0, size=(20, 4))
    once = sign_flip_test(d, np.arange(20), flips=400, seed=2)
    halves = sign_flip_test(
        np.repeat(d / 2, 2, axis=0), np.repeat(np.arange(20), 2), flips=400, seed=2
    )
    np.testing.assert_array_equal(once.p_maxt, halves.p_maxt)


def test_order_of_columns_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0.2, 1.0, size=(30, 5))
    plain = sign_flip_test(d, np.arange(30), flips=300, seed=3)
    other = sign_flip_test(d[:, ::-1] * [1, 10, 1e-3, 5, 2], np.arange(30), flips=300, seed=3)
    np.testing.assert_array_equal(other.p_maxt[::-1], plain.p_maxt)
    np.testing.assert_allclose(other.q_bh[::-1], plain.q_bh)


def test_no_difference_is_no_finding() -> None:
    result = sign_flip_test(np.zeros((10, 3)), np.arange(10), flips=99, seed=0)
    np.testing.assert_array_equal(result.p_maxt, 1)
    np.testing.assert_array_equal(result.q_bh, 1)
    assert result.p_any == 1


def test_family_wise_alarms_keep_their_level_with_correlated_skewed_features() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for run in range(200):
        common = rng.normal(size=(40, 1))
        d = np.square(common + rng.normal(size=(40, 25))) - np.square(
            common + rng.normal(size=(40, 25))
        )
        alarms += sign_flip_test(d, np.arange(40), flips=199, seed=run).p_maxt.min() <= 0.05
    # Binomial(200, 0.05): 19 or more has a chance of 0.5%.
    assert alarms < 19


def test_finds_a_real_difference_among_many_features() -> None:
    rng = np.random.default_rng(5)
    d = rng.normal(size=(60, 200))
    d[:, :10] += 1.0
    result = sign_flip_test(d, np.arange(60), flips=999, seed=6)
    assert (result.p_maxt[:10] < 0.05).all()
    assert (result.q_bh[:10] <= 0.001 * 200 / 10 + 1e-12).all()
    assert (result.p_maxt[10:] < 0.05).sum() <= 1


def test_influences_of_a_mean_give_students_test() -> None:
    rng = np.random.default_rng(7)
    d = rng.normal(0.4, 1.0, size=(40, 1))
    mean = d.mean(axis=0)
    options = {"flips": 20_000, "seed": 8}
    for alternative in ("two-sided", "greater"):
        found = influence_test(mean, (d - mean) / 40, 40, alternative=alternative, **options)
        exact = stats.ttest_1samp(d, 0, alternative=alternative).pvalue  # pyright: ignore[reportAttributeAccessIssue]
        # Monte Carlo error of 20,000 flips, and normal data for a test that does not ask for it.
        np.testing.assert_allclose(found.p_maxt, exact, atol=0.004)


def test_influences_keep_the_level_for_few_patients_and_many_features() -> None:
    rng = np.random.default_rng(9)
    alarms = 0
    for run in range(200):
        d = rng.normal(size=(24, 60)) + rng.normal(size=(24, 1))
        mean = d.mean(axis=0)
        found = influence_test(mean, (d - mean) / 24, 24, flips=199, seed=run)
        alarms += found.p_maxt.min() <= 0.05
    # Binomial(200, 0.05): 19 or more has a chance of 0.5%.
    assert alarms < 19


def test_a_value_without_any_spread_is_sure_and_no_value_is_none() -> None:
    found = influence_test(np.array([0.0, 1.0, np.nan]), np.zeros((9, 3)), 9, flips=99, seed=0)
    np.testing.assert_array_equal(found.p_maxt, [1.0, 0.01, 1.0])
    np.testing.assert_array_equal(found.p, [1.0, 0.01, 1.0])
    assert found.p_any == 0.01


def test_the_critical_value_is_where_p_falls_below_the_level() -> None:
    influence = np.random.default_rng(7).normal(size=(60, 12))
    influence -= influence.mean(axis=0)
    limit = influence_test(np.zeros(12), influence, 60, flips=2000, seed=0).limit(0.05)
    error = np.linalg.norm(influence, axis=0) * np.sqrt(60 / 59)
    for factor, below in ((1.02, True), (0.98, False)):
        value = np.zeros(12)
        value[3] = factor * limit * error[3]
        p = influence_test(value, influence, 60, flips=2000, seed=0).p_maxt[3]
        assert (p <= 0.05) == below
    # Twelve independent features: near Student's t at the level of Sidak.
    np.testing.assert_allclose(limit, stats.t.ppf(1 - (1 - 0.95 ** (1 / 12)) / 2, 59), rtol=0.06)


def test_the_global_p_is_the_smaller_of_two_ranked_like_those_of_every_flip() -> None:
    """Plain loops over all flips of seven patients, the observed signs among them."""
    rng = np.random.default_rng(10)
    d = rng.normal(0.4, 1.0, size=(7, 4))
    unit = d / np.linalg.norm(d, axis=0)
    signs = np.array(list(itertools.product((1, -1), repeat=7)))
    sums = signs @ unit
    statistics = np.stack([np.abs(sums).max(axis=1), np.square(sums).sum(axis=1)], axis=1)
    ps = np.array([(statistics >= one - 1e-9).mean(axis=0).min() for one in statistics])
    exact = (ps <= ps[0] + 1e-12).mean()
    found = sign_flip_test(d, np.arange(7), flips=20_000, seed=1).p_any
    np.testing.assert_allclose(found, exact, atol=0.015)


def test_the_global_test_keeps_its_level() -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    for run in range(300):
        d = rng.normal(size=(30, 20)) + rng.normal(size=(30, 1))
        mean = d.mean(axis=0)
        alarms += influence_test(mean, (d - mean) / 30, 30, flips=199, seed=run).p_any <= 0.05
    # Binomial(300, 0.05): 26 or more has a chance of 0.5%.
    assert alarms < 26


def test_the_global_test_sees_a_weak_change_of_many_and_a_strong_one_of_one() -> None:
    rng = np.random.default_rng(12)
    found = {"weak": 0, "weak by features": 0, "strong": 0}
    for run in range(40):
        weak, strong = rng.normal(0.2, 1.0, size=(80, 60)), rng.normal(size=(80, 60))
        strong[:, 7] += 0.6
        for name, d in (("weak", weak), ("strong", strong)):
            mean = d.mean(axis=0)
            test = influence_test(mean, (d - mean) / 80, 80, flips=199, seed=run)
            found[name] += test.p_any <= 0.05
            if name == "weak":
                found["weak by features"] += test.p_maxt.min() <= 0.05
    assert found["weak"] > 36
    assert found["strong"] > 36
    assert found["weak by features"] < found["weak"]
