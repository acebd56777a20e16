"""Least-squares concept erasure (LEACE) in closed form, for continuous targets.

The eraser is the affine map that changes an embedding least, in any norm that its covariance or a
quadratic form gives, among those after which no linear reader beats the mean on the fitted rows
(Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form", theorem 4.3). All in
float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lens.errors import InputError

TOLERANCE = 1e-10
"""Correlation below which a target has nothing in the embedding to erase."""


class Whitening(NamedTuple):
    """The leading principal components of rows, each brought to unit variance.

    ``(x - mean) / std @ axes / scale`` has the identity as its covariance over the fitted rows
    (divided by their number).

    Attributes:
        mean, std: of the channels; a constant one has 1 as its deviation here.
        axes: directions of the components, orthonormal.
        scale: their standard deviations, all above zero, the largest first.
    """

    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d r"]
    scale: Float[np.ndarray, " r"]

    def rows(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
        """Whitened rows."""
        return (np.asarray(x, np.float64) - self.mean) / self.std @ self.axes / self.scale


def fit_whitening(
    x: Float[np.ndarray, "m d"], *, most: int | None = None, per_channel: bool = False
) -> Whitening:
    """The whitening of rows, singular ones too: directions without variance are left out.

    Constant channels, copies of channels and fewer rows than channels leave fewer components than
    channels (those above ``numpy.linalg.matrix_rank``'s limit), and are no error.

    Args:
        x: rows to fit on.
        most: components to keep, the largest; None keeps all that have variance.
        per_channel: divide every channel by its own standard deviation first.

    Raises:
        ValueError: entries are not finite, or (an `InputError`) all rows are the same.
    """
    x = np.asarray(x, np.float64)
    if not np.isfinite(x).all():
        raise ValueError("the embedding has entries that are not finite")
    mean = x.mean(axis=0)
    centred = x - mean
    deviation = np.sqrt(np.square(centred).mean(axis=0))
    # A channel that is constant but for rounding must not be blown up to unit variance.
    constant = deviation <= 1e-9 * np.maximum(np.abs(mean), deviation.max(initial=0.0))
    std = np.where(constant | (not per_channel), 1.0, deviation)
    centred = np.where(constant, 0.0, centred) / std
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    limit = values.max(initial=0.0) * max(x.shape) * np.finfo(np.float64).eps
    rank = int((values > limit).sum())
    if rank == 0:
        raise InputError(
            "the embedding is the same in all fitted rows that have the label, so that nothing can "
            "be read from it; check the embeddings of these patients, or label more of them"
        )
    kept = rank if most is None else max(1, min(rank, most))
    return Whitening(mean, std, axes[:kept].T, values[:kept] / np.sqrt(len(x)))


def directions(
    rows: Float[np.ndarray, "m r"], z: Float[np.ndarray, "m k"]
) -> Float[np.ndarray, "r q"]:
    """Orthonormal directions of whitened rows along which they are correlated with targets.

    Args:
        rows: whitened by a `Whitening` that was fitted on them.
        z: targets, any units.

    Returns:
        As many directions as the targets are linearly independent and correlated with the rows.
    """
    z = np.asarray(z, np.float64)
    z = z - z.mean(axis=0)
    length = np.sqrt(np.square(z).mean(axis=0))
    varies = length > 0
    correlation = rows.T @ (z[:, varies] / length[varies]) / len(rows)
    u, s, _ = np.linalg.svd(correlation, full_matrices=False)
    return u[:, s > max(TOLERANCE, 1e-9 * s.max(initial=0.0))]


@dataclass(frozen=True)
class Eraser:
    """A fitted erasure: ``x - (whitened x) u u' diag(scale) axes'``, in the units of `x`.

    Attributes:
        whitening: of the fitted rows.
        u: orthonormal whitened directions that are erased.
    """

    whitening: Whitening
    u: Float[np.ndarray, "r q"]

    @property
    def rank(self) -> int:
        """Dimensions that are erased."""
        return self.u.shape[1]

    @property
    def variance_removed(self) -> float:
        """Share of the variance of the whitening's components that the erased part has."""
        return float(variance_share(self.whitening.scale, self.u[None])[0])

    def __call__(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Erased rows; the mean of the fitted ones stays where it was."""
        _, std, axes, scale = self.whitening
        erased = self.whitening.rows(x) @ self.u @ (self.u.T * scale) @ axes.T
        return np.asarray(x, np.float64) - erased * std


def fit_eraser(
    x: Float[np.ndarray, "m d"], z: Float[np.ndarray, "m k"], *, per_channel: bool = False
) -> Eraser:
    """The eraser of targets from rows.

    Equals ``concept_erasure.LeaceFitter`` with ``shrinkage=False, constrain_cov_trace=False``,
    but for its limit on singular values.

    Args:
        x: embedding of the fitted rows.
        z: targets of the same rows, continuous; any units, any linear dependence.
        per_channel: of the whitening; it decides how directions with rounding alone are told, and
            nothing else as long as none is left out.

    Raises:
        ValueError: rows differ in number, or entries are not finite.
    """
    if len(x) != len(z):
        raise ValueError(f"{len(x)} rows of the embedding and {len(z)} of the targets")
    if not np.isfinite(np.asarray(z, np.float64)).all():
        raise ValueError("the targets have entries that are not finite")
    whitening = fit_whitening(x, per_channel=per_channel)
    return Eraser(whitening, directions(whitening.rows(x), z))


def variance_share(
    scale: Float[np.ndarray, " r"], u: Float[np.ndarray, "b r q"]
) -> Float[np.ndarray, " b"]:
    """Share of the embedding's variance in what each of several erasures takes away.

    The erased part ``w u u' diag(scale)`` of whitened rows `w` has the variance
    ``sum_i scale_i^2 |u_i|^2``, of ``sum_i scale_i^2``.

    Args:
        scale: standard deviations of the components.
        u: orthonormal whitened directions.
    """
    power = np.square(scale)
    return np.einsum("brq,brq,r->b", u, u, power / power.sum(), optimize=True)
