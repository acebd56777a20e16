"""Least squares on a few hundred predictors for thousands of targets, on the host.

All that the predictors alone decide is done in float64, so that a condition number costs no digits
that matter. The one large product, with the targets, is in float32 behind an orthonormal basis,
where float32 loses no more than its own rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_blas_funcs, get_lapack_funcs

RANK_CUTOFF = float(np.finfo(np.float32).eps)
"""Singular values below this share of the largest are float32 rounding of z, not information."""

COLLINEAR = 1e8
"""Mean variance inflation from which Cholesky's rounding, which goes with the square of the
condition number, could reach 1e-5; a condition number up to 2e4 never gives as much."""

BENIGN = 10.0
"""Mean variance inflation up to which weights that are the product in float32 predict to 1e-5: the
error goes with its root, and a single pair of columns may hold all of it."""

_LARGE = 2**24
"""Multiplications and additions from which the large product is in float32; below, float64 takes
less than the overhead of a call."""

_BLOCK = 1280
"""Targets at a time: bounds the memory on top of inputs and results."""

_UNDERFLOW = 1e-28
"""Products below lose digits of their addends to float32's smallest numbers."""


_syrk, _trmm, _gemv = get_blas_funcs(("syrk", "trmm", "gemv"), dtype=np.float64)
_potrf, _trtri = get_lapack_funcs(("potrf", "trtri"), dtype=np.float64)


class Factor(NamedTuple):
    """``(z - mean) / scale = standard``, and the Cholesky factor of ``standard.T standard``.

    Attributes:
        mean: of the columns of `z`, zeros where no intercept is fitted.
        scale: norms of the centred columns.
        standard: ``standard @ inverse.T`` has orthonormal columns, to the rounding of float64 times
            the square of a condition number.
        inverse: of the lower Cholesky factor.
        inflation: mean variance inflation factor: how much larger the variance of the columns'
            weights is for the correlations between them.
    """

    mean: Float[np.ndarray, " h"]
    scale: Float[np.ndarray, " h"]
    standard: Float[np.ndarray, "n h"]
    inverse: Float[np.ndarray, "h h"]
    inflation: float


def solve(
    z: Float[np.ndarray, "n h"], r: Float[np.ndarray, "m k"], *, intercept: bool
) -> tuple[Float[np.ndarray, "k h"], Float[np.ndarray, " k"]] | None:
    """Weights and intercepts of least squares; none where `z` is too collinear (`factorise`).

    Predictions equal those of float64 LAPACK to 1e-5 of each target's deviation from its mean, and
    small problems to the rounding of float64.
    """
    factor = factorise(z, intercept=intercept)
    if factor is None:
        return None
    # Weights are r' standard inverse' inverse. Float32 must follow the first inverse unless all is
    # benign; then the product with r comes where it leaves the inverses the fewer rows.
    before = 1 if factor.inflation >= BENIGN else 2 * (len(z) < r.shape[1])
    left = factor.standard
    for transposed in (True, False)[:before]:
        left = times_inverse(left, factor, transposed=transposed)
    theta, mean = _products(left, r, centre=intercept)
    for transposed in (True, False)[before:]:
        theta = times_inverse(theta, factor, transposed=transposed)
    theta /= factor.scale
    return theta, mean - _gemv(1.0, theta.T, factor.mean, trans=1)


def factorise(z: Float[np.ndarray, "n h"], *, intercept: bool) -> Factor | None:
    """Cholesky's QR decomposition of the columns of `z`, centred if there is an intercept.

    None where `z` has, or could have, singular values below `RANK_CUTOFF` of the largest, or where
    its columns are collinear beyond `COLLINEAR`. The bound follows from the inverse that is needed
    anyhow: the inflation factors add up to the trace of the inverse of the correlations, which no
    eigenvalue's inverse exceeds.
    """
    h = z.shape[1]
    mean = z.mean(axis=0, dtype=np.float64) if intercept else np.zeros(h)
    standard = np.subtract(z, mean, dtype=np.float64)
    scale = np.sqrt(np.einsum("nh,nh->h", standard, standard))
    if not (scale > 0).all():
        return None
    standard /= scale
    # BLAS is column-major: the transpose of a row-major array is a view.
    lower, failed = _potrf(_syrk(1.0, standard.T, lower=1), lower=1, overwrite_a=1)
    if failed:
        return None
    inverse, _ = _trtri(lower, lower=1, overwrite_c=1)
    inflation = float(np.square(inverse).sum()) / h
    bound = h * np.sqrt(inflation) * scale.max() / scale.min()
    if not (inflation < COLLINEAR and bound < 1.0 / RANK_CUTOFF):
        return None
    return Factor(mean, scale, standard, inverse, inflation)


def times_inverse(
    rows: Float[np.ndarray, "m h"], factor: Factor, *, transposed: bool
) -> Float[np.ndarray, "m h"]:
    """``rows @ inverse`` or ``rows @ inverse.T``, in place."""
    return _trmm(1.0, factor.inverse, rows.T, lower=1, trans_a=not transposed, overwrite_b=1).T


def _products(
    left: Float[np.ndarray, "n h"], r: Float[np.ndarray, "n k"], *, centre: bool
) -> tuple[Float[np.ndarray, "k h"], Float[np.ndarray, " k"]]:
    """``(r - mean).T @ left`` and the mean of `r`, without a copy of `r`.

    The columns of `left` add up to zero where `r` is centred, so that any shift near the mean
    serves: the rest of the mean comes out of the same product, from a column of ``1 / n``.
    """
    (n, h), k = left.shape, r.shape[1]
    dtype = np.float32 if n * h * k > _LARGE else np.float64
    with_mean = np.full((n, h + centre), 1.0 / n, dtype)
    with_mean[:, :h] = left
    wide = np.result_type(r.dtype, dtype)
    (gemm,) = get_blas_funcs(("gemm",), dtype=dtype)
    theta, mean = np.empty((k, h)), np.zeros(k)
    for start in range(0, k, _BLOCK):
        columns = slice(start, start + _BLOCK)
        part = r[:, columns]
        shift = np.zeros(part.shape[1], wide)
        if centre:
            shift += part[::8].mean(axis=0, dtype=np.float64)
        with np.errstate(over="ignore"):
            deviation = np.subtract(part, shift, dtype=wide).astype(dtype, copy=False)
        product = gemm(1.0, with_mean.T, deviation.T, trans_b=1).T
        theta[columns] = product[:, :h]
        if centre:
            mean[columns] = shift + product[:, h]
        if dtype == np.float32:
            peak = np.abs(product).max(axis=1)
            lost = np.flatnonzero(~((peak > _UNDERFLOW) & (peak < np.inf)))
            if lost.size:
                exact = np.subtract(part[:, lost], shift[lost], dtype=np.float64)
                theta[start + lost] = exact.T @ left
                if centre:
                    mean[start + lost] = shift[lost] + exact.mean(axis=0)
    return theta, mean
