"""The task's head after erasing: ridge regression in closed form, of many erasures at once.

In whitened components the embedding after an erasure is ``w (I - u u') diag(scale)``, whose second
moments are a diagonal less a matrix of the rank of `u`. Each penalty then costs what that rank
costs (Sherman, Morrison, Woodbury), not what the embedding's width does.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

PENALTIES = tuple(np.geomspace(1e-5, 1e2, 11).tolist())
"""Penalties on the mean squared error, in units of the largest component's variance."""


def fit_heads(
    scale: Float[np.ndarray, " r"],
    u: Float[np.ndarray, "b r q"],
    covariance: Float[np.ndarray, " r"],
    variance: float,
    n: int,
) -> Float[np.ndarray, "b r"]:
    """Coefficients of ridge regression on whitened rows after each erasure.

    The prediction is ``mean + w @ coefficients``. The penalty is chosen for each erasure by
    generalised cross-validation (Golub, Heath and Wahba 1979) on the fitted rows alone.

    Args:
        scale: standard deviations of the components.
        u: orthonormal whitened directions to erase; none (q = 0) erases nothing.
        covariance: of the whitened rows with the label, over `n`.
        variance: of the label, over `n`.
        n: fitted rows.
    """
    power = np.square(scale)
    b_rank = u * scale[:, None]
    moment = scale * (covariance - np.einsum("brq,bq->br", u, covariance @ u))
    penalties = np.multiply(PENALTIES, power.max())
    rss, trace = _errors(power, b_rank, moment, penalties)
    # The constant takes one degree of freedom.
    free = np.maximum(1.0 - (1.0 + len(scale) - penalties * trace) / n, 1e-9)
    errors = np.maximum(variance - rss, 0.0) / np.square(free)
    # Of equal errors the larger penalty's.
    best = len(penalties) - 1 - errors[:, ::-1].argmin(axis=1)
    inverse = 1.0 / (power + penalties[best][:, None])
    first = inverse * moment
    inner = np.eye(u.shape[2]) - np.einsum("brq,br,brp->bqp", b_rank, inverse, b_rank)
    pulled = np.linalg.solve(inner, np.einsum("brq,br->bq", b_rank, first)[:, :, None])[:, :, 0]
    scaled = (first + inverse * np.einsum("brq,bq->br", b_rank, pulled)) * scale
    return scaled - np.einsum("brq,bq->br", u, np.einsum("brq,br->bq", u, scaled))


def _errors(
    power: Float[np.ndarray, " r"],
    b_rank: Float[np.ndarray, "b r q"],
    moment: Float[np.ndarray, "b r"],
    penalties: Float[np.ndarray, " p"],
) -> tuple[Float[np.ndarray, "b p"], Float[np.ndarray, "b p"]]:
    """What each ridge regression explains of the label, and the trace of its inverse.

    With ``D = 1 / (power + penalty)`` all that a penalty needs of the width are sums over it of
    products of `b_rank` and `moment`, weighted by `D` and its square: two matrix products for all
    penalties.
    """
    inverse = 1.0 / (power[:, None] + penalties)
    weights = np.concatenate([inverse, np.square(inverse)], axis=1)
    columns = np.concatenate([b_rank, moment[:, :, None]], axis=2)
    q = b_rank.shape[2]
    over, under = np.triu_indices(q + 1)
    sums = np.moveaxis(columns, 1, 2)
    sums = np.ascontiguousarray(sums[:, over] * sums[:, under]) @ weights
    full = np.empty((len(b_rank), weights.shape[1], q + 1, q + 1))
    full[:, :, over, under] = full[:, :, under, over] = np.moveaxis(sums, 1, 2)
    first, second = full[:, : len(penalties)], full[:, len(penalties) :]
    inner = np.eye(q) - first[:, :, :q, :q]
    right = np.concatenate([first[:, :, :q, q:], second[:, :, :q, :q]], axis=3)
    solved = np.linalg.solve(inner, right)
    pulled, more = solved[..., 0], solved[..., 1:]
    explained = first[:, :, q, q] + np.einsum("bpq,bpq->bp", first[:, :, :q, q], pulled)
    squared = (
        second[:, :, q, q]
        + 2.0 * np.einsum("bpq,bpq->bp", second[:, :, :q, q], pulled)
        + np.einsum("bpq,bpqs,bps->bp", pulled, second[:, :, :q, :q], pulled)
    )
    trace = inverse.sum(axis=0) + np.trace(more, axis1=2, axis2=3)
    return explained + penalties * squared, trace
