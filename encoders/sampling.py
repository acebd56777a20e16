"""In which order samples are seen: a function of the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped


def plain_order(size: int, length: int, seed: int | Sequence[int]) -> Int[np.ndarray, " length"]:
    """`length` of `size` samples, shuffled; each is used before any is used again."""
    return _shuffled(np.arange(size), length, np.random.default_rng(seed))


def balanced_order(
    targets: Shaped[np.ndarray, " n"], length: int, seed: int | Sequence[int]
) -> Int[np.ndarray, " length"]:
    """`length` samples, shuffled: every class as often to within one, its members in turn."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(targets == c) for c in np.unique(targets)]
    share = -(-length // len(groups))
    drawn = [_shuffled(group, share, generator) for group in groups]
    # Taking one of each class in turn, then shuffling, keeps the remainder spread over classes.
    turns = generator.permuted(np.stack(drawn, axis=1), axis=1).reshape(-1)[:length]
    return generator.permutation(turns)


def _shuffled(
    group: Int[np.ndarray, " m"], length: int, generator: np.random.Generator
) -> Int[np.ndarray, " length"]:
    """`length` members of the group, each used before any is used again."""
    rounds = -(-length // len(group))
    return np.concatenate([generator.permutation(group) for _ in range(rounds)])[:length]
