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
    best = np.full(len(u), np.inf)
    chosen = np.zeros((len(u), len(scale)))
    for penalty in np.multiply(PENALTIES, power.max()):
        beta, trace = _solve(power + penalty, b_rank, moment)
        rss = variance - np.einsum("br,br->b", moment + penalty * beta, beta)
        # The constant takes one degree of freedom.
        free = np.maximum(1.0 - (1.0 + len(scale) - penalty * trace) / n, 1e-9)
        error = np.maximum(rss, 0.0) / np.square(free)
        better = error <= best
        best = np.where(better, error, best)
        chosen[better] = beta[better]
    scaled = chosen * scale
    return scaled - np.einsum("brq,bq->br", u, np.einsum("brq,br->bq", u, scaled))


def _solve(
    diagonal: Float[np.ndarray, " r"],
    b_rank: Float[np.ndarray, "b r q"],
    right: Float[np.ndarray, "b r"],
) -> tuple[Float[np.ndarray, "b r"], Float[np.ndarray, " b"]]:
    """``(diag - B B')^-1 right`` and the trace of the inverse, for each B."""
    over = b_rank / diagonal[:, None]
    first, trace = right / diagonal, (1.0 / diagonal).sum()
    transposed = np.swapaxes(over, 1, 2)
    inner = np.eye(b_rank.shape[2]) - transposed @ b_rank
    pulled = np.linalg.solve(inner, (transposed @ right[:, :, None]))
    more = np.linalg.solve(inner, transposed @ over)
    return (
        first + np.einsum("brq,bq->br", over, pulled[:, :, 0]),
        trace + np.trace(more, axis1=1, axis2=2),
    )
