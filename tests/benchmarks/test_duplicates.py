"""Near duplicates: planted copies are found, pictures that only share their layout are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from benchmarks.real.duplicates import groups, similarity

SIZE = (180, 240)


def picture(seed: int) -> np.ndarray:
    """Speckle of its own below a bright line and above a dark border that all pictures share."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.normal(size=SIZE), 3)
    layout = 120 - 0.5 * np.arange(SIZE[0])[:, None] + 0 * texture
    layout[10:14] += 90
    layout[-30:] = 5
    return np.clip(layout + 25 * texture / texture.std(), 0, 255).astype(np.uint8)


def noisy(one: np.ndarray, seed: int, sd: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(one + rng.normal(0, sd, one.shape), 0, 255).astype(np.uint8)


def test_planted_copies_are_one_group_and_others_are_alone() -> None:
    originals = [picture(seed) for seed in range(8)]
    first, second = originals[1], originals[4]
    brighter = np.clip(1.2 * first.astype(float) + 10, 0, 255).astype(np.uint8)
    copies = [noisy(first, 1, 20.0), brighter, second[6:, 8:], second[:-5, 9:]]
    found = groups(similarity([*originals, *copies]))
    assert found[[8, 9]].tolist() == [found[1]] * 2
    assert found[[10, 11]].tolist() == [found[4]] * 2
    assert len(np.unique(found)) == len(originals)
    # Counted in the order of the pictures.
    assert found[: len(originals)].tolist() == list(range(len(originals)))


def test_a_chain_of_pairs_is_one_group() -> None:
    alike = np.eye(4)
    alike[0, 2] = alike[2, 0] = alike[2, 3] = alike[3, 2] = 0.7
    assert groups(alike, 0.6).tolist() == [0, 1, 0, 0]
    assert groups(alike, 0.8).tolist() == [0, 1, 2, 3]


def test_a_picture_is_wholly_similar_to_itself_and_the_measure_is_mutual() -> None:
    found = similarity([picture(seed) for seed in range(4)])
    assert np.diag(found) == pytest.approx(1)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert found[~np.eye(4, dtype=bool)].max() < 0.5


def test_a_picture_of_one_value_is_like_none() -> None:
    found = similarity([np.full(SIZE, 7, np.uint8), picture(0)])
    assert abs(found[0, 1]) < 1e-6
