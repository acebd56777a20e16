"""Laws of the split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.errors import InputError
from lens.study.split import split_patients

rows = st.lists(st.integers(0, 40).map(str), min_size=8, max_size=60).filter(
    lambda ids: len(set(ids)) >= 4
)


@settings(max_examples=40, deadline=None)
@given(ids=rows, seed=st.integers(0, 2**31), order=st.integers(0, 2**31))
def test_a_patient_has_one_split_whatever_the_order_of_rows(ids, seed, order) -> None:
    split = split_patients(ids, seed=seed)
    of_patient = dict(zip(ids, split, strict=True))
    assert [of_patient[patient] for patient in ids] == list(split)
    shuffled = np.random.default_rng(order).permutation(ids).tolist()
    again = split_patients(shuffled, seed=seed)
    assert dict(zip(shuffled, again, strict=True)) == of_patient
    counts = Counter(of_patient.values())
    assert counts["train"] >= 1
    assert counts["val"] >= 1
    assert counts["test"] >= 2


@pytest.mark.parametrize(
    ("n", "expected"), [(100, (70, 10, 20)), (10, (7, 1, 2)), (4, (1, 1, 2)), (25, (18, 2, 5))]
)
def test_sizes_follow_the_ratio(n: int, expected: tuple[int, int, int]) -> None:
    split = split_patients([f"p{k}" for k in range(n)], seed=0)
    assert tuple(int(np.sum(split == name)) for name in ("train", "val", "test")) == expected


def test_seeds_differ_and_repeat() -> None:
    ids = [f"p{k}" for k in range(50)]
    first = split_patients(ids, seed=1)
    np.testing.assert_array_equal(first, split_patients(ids, seed=1))
    assert np.any(first != split_patients(ids, seed=2))


def test_every_patient_is_tested_under_some_seed() -> None:
    ids = [f"p{k}" for k in range(10)]
    tested = sum((split_patients(ids, seed=seed) == "test").astype(int) for seed in range(500))
    # Binomial(500, 0.2): mean 100, standard deviation 9; five of them either way.
    assert np.all(np.abs(tested - 100) < 45)


def test_too_few_patients_or_an_empty_part_is_refused() -> None:
    with pytest.raises(InputError, match=r"3 patient\(s\) cannot be split 7:1:2: at least 4"):
        split_patients(["a", "b", "c", "a"], seed=0)
    with pytest.raises(InputError, match="every part must be positive"):
        split_patients(list("abcdef"), seed=0, ratio=(7, 0, 2))
