"""Laws of the planted changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from lens.settings import PlantedSettings
from lens.verdicts.doctor_plan import BATCH, comparisons, count_changes, plan
from lens.verdicts.planted_changes import (
    add_noise,
    amplify_small,
    dominate,
    gain,
    loudness,
    remove,
    replace,
    rescale,
    rotate,
    shuffle,
    skewed_noise,
)

X = np.random.default_rng(0).normal(size=(60, 12))
R = X[:, :2] @ [[1.0, 0.2], [0.0, 1.0]] + 0.1 * np.random.default_rng(1).normal(size=(60, 2))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_a_rotation_keeps_all_distances(seed: int) -> None:
    turned = rotate(X, seed)
    np.testing.assert_allclose(turned @ turned.T, X @ X.T, atol=1e-9)
    assert np.abs(turned - X).max() > 0.1


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_what_leaves_the_information_can_be_undone(seed: int) -> None:
    for changed in (
        rotate(X, seed),
        gain(X, seed),
        rescale(X, 0.3),
        dominate(X, seed),
        amplify_small(X),
    ):
        back = LinearRegression().fit(changed, X).predict(changed)
        np.testing.assert_allclose(back, X, atol=1e-8)


def test_a_shuffle_holds_the_same_rows() -> None:
    mixed = shuffle(X, 3)
    np.testing.assert_array_equal(np.sort(mixed, axis=0), np.sort(X, axis=0))
    assert (mixed != X).any(axis=1).mean() > 0.9


def test_noise_is_a_share_of_each_channel() -> None:
    x = np.random.default_rng(2).normal(size=(4000, 3)) * [1.0, 10.0, 0.1]
    noise = add_noise(x, 0.5, 1) - x
    # Standard error of a deviation at n = 4000 is 1.1%.
    np.testing.assert_allclose(noise.std(axis=0) / x.std(axis=0), 0.5, rtol=0.05)


def test_a_full_dose_leaves_no_covariance_with_the_features() -> None:
    # Hardly any penalty is chosen here, so that what ridge predicts is the least-squares fit.
    erased = remove(X, R, 1.0)
    before = np.abs((X - X.mean(0)).T @ R).max()
    assert np.abs((erased - erased.mean(0)).T @ R).max() < 0.01 * before
    np.testing.assert_array_equal(remove(X, R, 0.0), X)


def test_doses_are_steps_on_the_same_line_and_other_directions_stay() -> None:
    whole, half = remove(X, R, 1.0), remove(X, R, 0.5)
    np.testing.assert_allclose(X - half, (X - whole) / 2, atol=1e-12)
    assert np.linalg.matrix_rank(X - whole, tol=1e-8) == 2
    with pytest.raises(ValueError, match=r"dose is 1\.5"):
        remove(X, R, 1.5)


def test_erasure_follows_a_rotation_of_the_embedding() -> None:
    # With hardly any penalty the per-channel standardisation of the probe does not matter.
    turned = rotate(X, 5)
    change = np.linalg.norm(turned - remove(turned, R, 1.0), axis=1)
    np.testing.assert_allclose(change, np.linalg.norm(X - remove(X, R, 1.0), axis=1), rtol=0.02)


def test_one_direction_dominates_and_the_others_stay() -> None:
    before, after = (np.linalg.eigvalsh(np.cov(x.T)) for x in (X, dominate(X, 4)))
    # One eigenvalue moves to the top; of the others each lies between two of before (Cauchy).
    assert 100 < after[-1] / before[-1] < 900
    assert (after[:-1] >= before[:-1] - 1e-9).all()
    assert (after[:-1] <= before[1:] + 1e-9).all()


def test_small_directions_grow_and_the_leading_eighth_stays() -> None:
    before, after = (np.linalg.eigvalsh(np.cov(x.T))[::-1] for x in (X, amplify_small(X)))
    # Of 60 patients, 7 leading directions; the 5 others have 25 times the variance.
    np.testing.assert_allclose(np.sort(after), np.sort(np.r_[before[:7], 25 * before[7:]]))


def test_skewed_noise_is_as_large_as_the_channel_and_in_few_patients() -> None:
    x = X * np.linspace(0.1, 10, 12)
    noise = skewed_noise(x, 1)
    np.testing.assert_allclose(noise.std(axis=0), x.std(axis=0))
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=1e-12)
    share = np.sort(np.square(noise), axis=0)[::-1].cumsum(axis=0) / np.square(noise).sum(axis=0)
    assert (share[5] > 0.7).all()


def test_few_patients_are_loud_in_all_of_their_rows() -> None:
    groups = np.repeat(np.arange(200), 2)
    factor = loudness(groups, 1)
    loud = factor > 1
    assert len(np.unique(groups[loud])) == 6
    assert ((factor[loud] >= 6) & (factor[loud] <= 8)).all()
    np.testing.assert_array_equal(factor[::2], factor[1::2])
    assert (loudness(np.arange(5), 1) > 1).sum() == 1


SETTINGS = PlantedSettings(clusters=2, draws=3, maps=2)


def test_the_plan_has_twenty_draws_in_which_nothing_changed() -> None:
    changes = plan(X, {0: R}, np.arange(60), PlantedSettings(), 0)
    assert sum(change.kind == "exchangeable" for change in changes) >= 20


def test_sides_of_a_draw_differ_by_noise_alone_and_no_noise_is_drawn_twice() -> None:
    changes = plan(X, {0: R, 3: R}, np.arange(60), SETTINGS, 0)
    draws = [change for change in changes if change.kind == "exchangeable"]
    sides = [make() - X for change in draws for make in (change.before, change.after)]
    correlations = np.corrcoef([side.ravel() for side in sides]) - np.eye(len(sides))
    assert np.abs(correlations).max() < 0.35
    sizes = np.array([np.square(side).sum(axis=1) for side in sides])
    for number, change in enumerate(draws):
        if "loud" in change.change:
            before, after = sizes[2 * number], sizes[2 * number + 1]
            # Two of 60 patients, the same ones on both sides.
            assert set(np.argsort(before)[-2:]) == set(np.argsort(after)[-2:])
            assert np.sort(before)[-2] > 5 * np.median(before)


def test_an_erasure_has_other_noise_than_the_side_before() -> None:
    erased = [c for c in plan(X, {3: R}, np.arange(60), SETTINGS, 0) if c.kind == "erased"]
    assert [change.target for change in erased] == [3] * 4
    assert len({change.before for change in erased}) == 1
    noise = [erased[0].before() - X]
    noise += [c.after() - replace(X, R, c.dose, draw) for draw, c in enumerate(erased, 1)]
    correlations = np.corrcoef([each.ravel() for each in noise]) - np.eye(5)
    assert np.abs(correlations).max() < 0.2


def test_comparisons_share_the_side_before_and_are_counted() -> None:
    changes = plan(X, dict.fromkeys((0, 3), R), np.arange(60), SETTINGS, 0)
    batches = [*comparisons(changes)]
    assert [change for batch in batches for change in batch] == changes
    for batch in batches:
        assert len(batch) <= BATCH
        assert len({change.before for change in batch}) == 1
    assert count_changes(9, SETTINGS) == [len(batch) for batch in batches]
    assert sum(count_changes(1, SETTINGS)) == len(changes) - 4


def test_what_is_replaced_keeps_the_variance_and_loses_the_share_of_r2() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 6))
    r = x[:, :1] + 0.5 * rng.normal(size=(4000, 1))
    for dose in (0.0, 0.25, 1.0):
        changed = replace(x, r, dose, 1)
        # Of 4,000 patients a variance is known to 2%, an R2 to 0.02.
        np.testing.assert_allclose(changed.var(axis=0), x.var(axis=0), rtol=0.08)
        r2 = LinearRegression().fit(changed, r).score(changed, r)
        assert r2 == pytest.approx(0.8 * (1 - dose), abs=0.03)
    np.testing.assert_allclose(replace(x, r, 0.0, 1), x)
