"""Ridge regression in the eigenvectors of the kernel: one decomposition for all targets.

Centred rows are ``X = U S V'``, their kernel ``X X' = U S^2 U'``. Ridge regression shrinks the
components ``U'y`` of a centred target by ``s^2 / (s^2 + alpha)``; penalty, fitted values, leverage
and influence all follow from them, whether rows or only a kernel is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lens.probes.gcv import gcv_errors

_RANK_CUTOFF = 1e-12
"""Eigenvalues below this share of the largest are rounding of the kernel."""


class Spectrum(NamedTuple):
    """Eigenvectors `u` of the kernel of n centred rows, and the roots `s` of their eigenvalues.

    As many as the numerical rank.
    """

    u: Float[np.ndarray, "n r"]
    s: Float[np.ndarray, " r"]


@dataclass(frozen=True)
class Solution:
    """Ridge regression of centred targets, each at its own penalty.

    Attributes:
        spectrum: of the centred rows.
        y: centred targets.
        alpha: penalty of each, as ``||y - Xb||^2 + alpha ||b||^2`` has it.
        components: of the fitted values along the eigenvectors.
    """

    spectrum: Spectrum
    y: Float[np.ndarray, "n k"]
    alpha: Float[np.ndarray, " k"]
    components: Float[np.ndarray, "r k"]

    @cached_property
    def residual(self) -> Float[np.ndarray, "n k"]:
        """Observed minus fitted."""
        fitted = self.spectrum.u @ self.components
        return np.subtract(self.y, fitted, out=fitted)

    def dual(self) -> Float[np.ndarray, "n k"]:
        """Weights of the fitted rows: ``K_new @ dual`` predicts centred targets from a kernel."""
        u, s = self.spectrum
        return u @ (self.components / np.square(s)[:, None])

    def leverage(self) -> Float[np.ndarray, "n k"]:
        """Diagonal of the hat matrix, as `lens.probes.probe.FittedProbe` has it."""
        u, s = self.spectrum
        kept = np.square(s)[:, None] / (np.square(s)[:, None] + self.alpha)
        return np.square(u) @ kept + 1.0 / len(u)

    def influence(
        self, pull: Float[np.ndarray, "r k"], error: Float[np.ndarray, "m k"]
    ) -> Float[np.ndarray, "n k"]:
        """Influence on held-out rows, as `lens.probes.probe.FittedProbe` has it.

        Args:
            pull: ``V' X_new' error``, the errors carried to the singular directions; from a kernel
                ``U' K_new' error / s``. Overwritten.
            error: observed minus predicted on the held-out rows.
        """
        u, s = self.spectrum
        pull *= s[:, None] / (np.square(s)[:, None] + self.alpha)
        return -2.0 * (u @ pull + error.sum(axis=0) / len(u)) * self.residual


def decompose(rows: Float[np.ndarray, "n d"]) -> tuple[Spectrum, Float[np.ndarray, "d r"]]:
    """Thin singular value decomposition ``U S V'`` of centred rows: its spectrum, and ``V``.

    From the smaller of the two products of the rows with themselves, without the directions whose
    eigenvalues are rounding.
    """
    n, d = rows.shape
    wide = d > n
    s, vectors = _eigenvectors(rows @ rows.T if wide else rows.T @ rows)
    other = (rows.T @ vectors if wide else rows @ vectors) / s
    u, v = (vectors, other) if wide else (other, vectors)
    return Spectrum(u, s), v


def decompose_kernel(kernel: Float[np.ndarray, "n n"]) -> Spectrum:
    """Spectrum of centred rows of which only the kernel, their inner products, is known."""
    s, u = _eigenvectors(kernel)
    return Spectrum(u, s)


def solve(spectrum: Spectrum, y: Float[np.ndarray, "n k"], alphas: Sequence[float]) -> Solution:
    """Ridge regression, each target with the penalty that generalised cross-validation prefers.

    Args:
        spectrum: of the centred rows.
        y: centred targets.
        alphas: penalties to choose from, in units of n; ties go to the larger.
    """
    u, s = spectrum
    n, squared = len(u), np.square(s)
    components = u.T @ y
    power = np.square(components)
    beyond = np.maximum(np.einsum("nk,nk->k", y, y) - power.sum(axis=0), 0.0)
    grid = n * np.sort(np.asarray(alphas, np.float64))[::-1]
    alpha = grid[gcv_errors(squared, power, beyond, n, grid).argmin(axis=0)]
    components *= squared[:, None] / (squared[:, None] + alpha)
    return Solution(spectrum, y, alpha, components)


def _eigenvectors(
    gram: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "n r"]]:
    """Roots of the eigenvalues that are not rounding, ascending, and their eigenvectors."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > _RANK_CUTOFF * max(values[-1], np.finfo(np.float64).tiny)
    return np.sqrt(values[kept]), vectors[:, kept]
