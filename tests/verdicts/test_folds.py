"""Folds by patient: laws of the partition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.verdicts.folds import by_repeat, make_folds, single_fold, times_held_out


@settings(max_examples=40, deadline=None)
@given(
    patients=st.integers(12, 40),
    folds=st.integers(2, 6),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_patient_is_held_out_once_per_repeat_with_all_rows(
    patients: int, folds: int, repeats: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.r_[np.arange(patients), rng.integers(0, patients, 25)])
    made = make_folds(groups, folds, repeats, seed)
    assert len(made) == folds * repeats
    np.testing.assert_array_equal(times_held_out(made), repeats)
    for fold in made:
        np.testing.assert_array_equal(
            fold.train.astype(int) + fold.val + fold.test, np.ones(len(groups))
        )
        for mask in (fold.train, fold.val, fold.test):
            assert mask.any()
            assert not set(groups[mask]) & set(groups[~mask])
    for part in by_repeat(made):
        sizes = [len(set(groups[fold.test])) for fold in part]
        assert max(sizes) - min(sizes) <= 1


def test_the_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    groups = np.array([f"P{i // 2}" for i in range(40)])
    order = np.random.default_rng(0).permutation(40)
    plain, shuffled = make_folds(groups, 5, 2, 3), make_folds(groups[order], 5, 2, 3)
    for one, two in zip(plain, shuffled, strict=True):
        np.testing.assert_array_equal(one.test[order], two.test)
        np.testing.assert_array_equal(one.val[order], two.val)
    assert any(
        (one.test != two.test).any()
        for one, two in zip(plain, make_folds(groups, 5, 2, 4), strict=True)
    )


def test_the_single_split_is_one_fold() -> None:
    split = np.array(["train", "val", "test", "train"])
    (fold,) = single_fold(split)
    np.testing.assert_array_equal(fold.fitted, [True, True, False, True])
    np.testing.assert_array_equal(fold.test, [False, False, True, False])


@pytest.mark.parametrize(("patients", "folds", "repeats"), [(4, 5, 1), (30, 1, 1), (30, 5, 0)])
def test_refuses_what_cannot_be_dealt(patients: int, folds: int, repeats: int) -> None:
    with pytest.raises(ValueError, match=r"too few|are needed"):
        make_folds(np.arange(patients), folds, repeats, 0)
