"""Similarity of two embeddings of the same patients as a whole: context for the feature tables.

No statistic shows which information changed; each ignores other kinds of change (its invariances).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.linalg import subspace_angles

from lens.intervals import Z_VALUE
from lens.study.spectrum import spectrum

PARTS = 10
"""Parts of the delete-a-group jackknife."""


class Statistic(NamedTuple):
    """A statistic of two embeddings, as a report names it.

    Attributes:
        name: short name, a column value of ``similarity.csv``.
        invariances: the changes that it does not see.
        compute: from two embeddings ``(n, d)``.
    """

    name: str
    invariances: str
    compute: Callable[[np.ndarray, np.ndarray], float]


def similarity(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n d"],
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Every statistic, with intervals by a delete-a-group jackknife over patients.

    Args:
        x_pre, x_ft: embeddings of the same rows.
        groups: patient of each row; a patient's rows are left out together.
        seed: of the parts.

    Returns:
        A row per statistic: ``statistic, value, value_low, value_high, n, invariances``.
    """
    patients, patient = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(patients))
    part = (order % min(PARTS, len(patients)))[patient]
    rows = []
    for statistic in STATISTICS:
        value = statistic.compute(x_pre, x_ft)
        error = _jackknife_error(statistic, x_pre, x_ft, part)
        rows.append(
            {
                "statistic": statistic.name,
                "value": value,
                "value_low": value - Z_VALUE * error,
                "value_high": value + Z_VALUE * error,
                "n": len(x_pre),
                "invariances": statistic.invariances,
            }
        )
    return pd.DataFrame(rows)


def debiased_cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Debiased linear centred kernel alignment: 1 for the same geometry, about 0 for none.

    The U-statistic of HSIC (Song et al. 2012) in each of its three places, so that wide
    embeddings of few patients do not look alike by chance. Invariant to rotation, to one scale
    factor and to a shift; not to a scale per channel.
    """
    k, l = _gram(x), _gram(y)  # noqa: E741 - the kernels' usual names
    return float(_hsic(k, l) / np.sqrt(_hsic(k, k) * _hsic(l, l)))


def procrustes_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> float:
    """Squared distance left after the best rotation, of centred embeddings of unit norm: 0 to 2.

    Invariant to rotation, to one scale factor and to a shift.
    """
    x, y = _unit(x), _unit(y)
    # x and y have rank below n: the nuclear norm of x'y is that of the smaller n-by-n form.
    if len(x) < x.shape[1]:
        x, y = _reduced(x), _reduced(y)
    nuclear = np.linalg.svd(x.T @ y, compute_uv=False).sum()
    return float(2.0 - 2.0 * min(nuclear, 1.0))


def mean_principal_cosine(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Mean cosine of the principal angles between the leading components of the patients' scores.

    As many components as hold nine tenths of the variance in each, at most a quarter of the
    patients. Invariant to any invertible map within these subspaces.
    """
    a, b = _leading(x), _leading(y)
    return float(np.cos(subspace_angles(a, b)).mean())


def effective_rank(x: Float[np.ndarray, "n d"]) -> float:
    """Exponential of the entropy of the covariance's normalised eigenvalues: 1 to min(n - 1, d).

    Invariant to rotation, to one scale factor and to a shift (`lens.study.spectrum`).
    """
    return spectrum(x).effective_rank


ROTATION = "rotation, one scale factor, shift"

STATISTICS = (
    Statistic("debiased linear CKA", ROTATION, debiased_cka),
    Statistic("squared Procrustes distance", ROTATION, procrustes_distance),
    Statistic(
        "mean cosine of principal angles",
        "any invertible map within the leading subspace",
        mean_principal_cosine,
    ),
    Statistic("effective rank before", ROTATION, lambda x, y: effective_rank(x)),
    Statistic("effective rank after", ROTATION, lambda x, y: effective_rank(y)),
)


def _jackknife_error(
    statistic: Statistic, x_pre: np.ndarray, x_ft: np.ndarray, part: np.ndarray
) -> float:
    """Standard error from the values with each part of the patients left out."""
    values = np.array(
        [statistic.compute(x_pre[part != p], x_ft[part != p]) for p in np.unique(part)]
    )
    count = len(values)
    return np.sqrt((count - 1) / count * np.square(values - values.mean()).sum())


def _gram(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    kernel = x @ x.T
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Unbiased HSIC (Song et al. 2012) of kernels with zero diagonals."""
    n = len(k)
    trace = np.einsum("ij,ij->", k, l)
    sums = k.sum() * l.sum() / ((n - 1) * (n - 2))
    cross = 2.0 / (n - 2) * (k.sum(axis=0) @ l.sum(axis=0))
    return (trace + sums - cross) / (n * (n - 3))


def _unit(x: np.ndarray) -> np.ndarray:
    """Centred, of unit Frobenius norm."""
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    return x / np.linalg.norm(x)


def _reduced(x: np.ndarray) -> np.ndarray:
    """The same rows' inner products in min(n, d) dimensions."""
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return u * s


def _leading(x: np.ndarray) -> np.ndarray:
    """Orthonormal scores of the patients on the leading principal components."""
    u, s, _ = np.linalg.svd(
        x.astype(np.float64) - x.mean(axis=0, dtype=np.float64), full_matrices=False
    )
    explained = np.cumsum(np.square(s)) / np.square(s).sum()
    return u[:, : max(1, min(int(np.searchsorted(explained, 0.9)) + 1, len(x) // 4))]
