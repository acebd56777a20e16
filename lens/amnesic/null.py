"""Random subspaces of the same rank and the same variance: what any erasure of that size costs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lens.amnesic.eraser import variance_share

STEPS = 16
"""Halvings of the exponent's range."""

RANGE = 8.0
"""Largest exponent: with it the leading components are nearly all of a subspace."""


def matched_targets(
    scale: Float[np.ndarray, " r"],
    rank: int,
    share: float,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "b r q"]:
    """Random linear targets whose erasure takes a given share of the variance away.

    A draw is ``diag(scale^t) G`` with `G` (r, q) standard normal and the exponent `t` its own. The
    share of the variance that its span takes (`lens.amnesic.eraser.variance_share`) rises with `t`
    for any `G`, from that of the `q` smallest components to that of the `q` largest, so that
    halving finds the `t` of the share; `t = 0` is a direction without any preference.

    Args:
        scale: standard deviations of the components.
        rank: dimensions of a subspace, fewer than components.
        share: of the variance, in [0, 1]; the ends of what is possible where it is beyond them.
        draws: how many.
        rng: of the draws.

    Returns:
        Weights of the whitened components, whose span is the subspace.
    """
    normal = rng.standard_normal((draws, len(scale), rank))
    logs = np.log(scale / scale.max())
    # Exponents beyond which the smallest component would be lost in rounding help nobody.
    end = min(RANGE, 300.0 / max(-2.0 * logs.min(), 1e-9))
    low, high = np.full(draws, -end), np.full(draws, end)
    for _ in range(STEPS):
        middle = (low + high) / 2
        less = variance_share(scale, orthonormal(_weighted(normal, logs, middle))) < share
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return _weighted(normal, logs, (low + high) / 2)


def any_targets(
    components: int, rank: int, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "b r q"]:
    """Random linear targets of a rank, whitened directions without any preference."""
    return rng.standard_normal((draws, components, rank))


def orthonormal(targets: Float[np.ndarray, "b r q"]) -> Float[np.ndarray, "b r q"]:
    """Orthonormal bases of spans; columns of any length."""
    length = np.linalg.norm(targets, axis=1, keepdims=True)
    return np.linalg.qr(targets / np.where(length > 0, length, 1.0))[0]


def _weighted(
    normal: Float[np.ndarray, "b r q"],
    logs: Float[np.ndarray, " r"],
    exponent: Float[np.ndarray, " b"],
) -> Float[np.ndarray, "b r q"]:
    weights = exponent[:, None] * logs
    weights -= weights.max(axis=1, keepdims=True)
    return normal * np.exp(weights)[:, :, None]
