"""Ridge regression in the eigenvectors of the kernel: one decomposition for all targets.

Centred rows are ``X = U S V'``, their kernel ``X X' = U S^2 U'``. Ridge regression shrinks the
components ``U'y`` of a centred target by ``s^2 / (s^2 + alpha)``; penalty, fitted values, leverage
and influence all follow from them, whether rows or only a kernel is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from lens.probes.gcv import gcv_errors

_RANK_CUTOFF = 1e-12
"""Eigenvalues below this share of the largest are rounding of the kernel."""

_LARGE = 2048
"""Rows from which a matrix of inner products is overwritten by its decomposition."""

_LEAST_FREE = 1e-9
"""Least `1 - h` that is divided by: a row that the fit passes through has a left-out residual of
zero over zero."""


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

    def left_out(self, groups: np.ndarray | None = None) -> Float[np.ndarray, "n k"]:
        """Residual of each fitted row in the fit without it, penalty and scaling held.

        ``e_i / (1 - h_ii)``, and for the rows I of a patient who has several, all left out
        together, ``(1 - H_II)^-1 e_I`` (Cook and Weisberg, *Residuals and Influence in
        Regression*, 1982), with H the hat matrix at the penalty of the target, its intercept
        included. The rows that pull a fit the most have the smallest residuals in it; left out
        they show what they did.

        Args:
            groups: patient of each row; None for a patient per row.
        """
        u, s = self.spectrum
        penalties, which = np.unique(self.alpha, return_inverse=True)
        kept = np.square(s)[:, None] / (np.square(s)[:, None] + penalties)
        free = 1.0 - np.square(u) @ kept - 1.0 / len(u)
        found = np.maximum(free, _LEAST_FREE)[:, which]
        np.divide(self.residual, found, out=found)
        for rows in rows_together(groups):
            for number, shares in enumerate(kept.T):
                targets = np.flatnonzero(which == number)
                found[rows[..., None], targets] = self._left_out_together(shares, rows, targets)
        return found

    def _left_out_together(
        self,
        kept: Float[np.ndarray, " r"],
        rows: Int[np.ndarray, "p m"],
        targets: Int[np.ndarray, " t"],
    ) -> Float[np.ndarray, "p m t"]:
        """The same of patients who have m rows each, for targets with one penalty.

        Args:
            kept: share of each component that the penalty leaves.
            rows: of `rows_together`.
            targets: to look at.
        """
        u = self.spectrum.u
        hat = np.einsum("pmr,r,plr->pml", u[rows], kept, u[rows]) + 1.0 / len(u)
        values, vectors = np.linalg.eigh(np.eye(rows.shape[1]) - hat)
        turned = vectors.swapaxes(1, 2) @ self.residual[rows[..., None], targets]
        return vectors @ (turned / np.maximum(values, _LEAST_FREE)[:, :, None])

    def influence(
        self,
        pull: Float[np.ndarray, "r k"],
        error: Float[np.ndarray, "m k"],
        groups: np.ndarray | None = None,
    ) -> Float[np.ndarray, "n k"]:
        """Influence on held-out rows, as `lens.probes.probe.FittedProbe` has it.

        Args:
            pull: ``V' X_new' error``, the errors carried to the singular directions; from a kernel
                ``U' K_new' error / s``. Overwritten.
            error: observed minus predicted on the held-out rows.
            groups: patient of each fitted row; None for a patient per row.
        """
        u, s = self.spectrum
        pull *= s[:, None] / (np.square(s)[:, None] + self.alpha)
        weight = u @ pull
        weight += error.sum(axis=0) / len(u)
        weight *= -2.0
        weight *= self._left_out(groups)
        return weight

    def _left_out(self, groups: np.ndarray | None) -> Float[np.ndarray, "n k"]:
        """`left_out`, once for the influences on one set of errors after another."""
        if not self._last or not np.array_equal(self._last[0], groups):  # type: ignore[arg-type]
            kept = None if groups is None else groups.copy()
            self._last[:] = [kept, self.left_out(groups)]
        return self._last[1]

    @cached_property
    def _last(self) -> list[Any]:
        """Groups that rows were left out by last, and what came of it."""
        return []


def rows_together(groups: np.ndarray | None) -> list[Int[np.ndarray, "_ _"]]:
    """Rows of the patients who have several: an array for each number of rows, a patient a row.

    Args:
        groups: patient of each row (n,); None for a patient per row.
    """
    if groups is None:
        return []
    order = np.argsort(groups, kind="stable")
    _, first, count = np.unique(groups[order], return_index=True, return_counts=True)
    return [
        order[first[count == size][:, None] + np.arange(size)]
        for size in np.unique(count[count > 1])
    ]


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
    """Spectrum of centred rows of which only the kernel, their inner products, is known.

    The kernel may be overwritten.
    """
    s, u = _eigenvectors(kernel)
    return Spectrum(u, s)


def solve(
    spectrum: Spectrum,
    y: Float[np.ndarray, "n k"],
    alphas: Sequence[float] | None = None,
    *,
    spent: float = 0.0,
) -> Solution:
    """Ridge regression, each target with the penalty that generalised cross-validation prefers.

    Args:
        spectrum: of the centred rows.
        y: centred targets.
        alphas: penalties to choose from, in units of n; ties go to the larger. None takes
            `relative_penalties`.
        spent: degrees of freedom that an earlier fit took from the targets, where these are its
            residuals: rows that are no evidence any more.
    """
    u, s = spectrum
    n, squared = len(u), np.square(s)
    components = u.T @ y
    power = np.square(components)
    beyond = np.maximum(np.einsum("nk,nk->k", y, y) - power.sum(axis=0), 0.0)
    grid = relative_penalties(spectrum) if alphas is None else n * np.asarray(alphas, np.float64)
    grid = np.sort(grid)[::-1]
    alpha = grid[gcv_errors(squared, power, beyond, n - spent, grid).argmin(axis=0)]
    components *= squared[:, None] / (squared[:, None] + alpha)
    return Solution(spectrum, y, alpha, components)


def relative_penalties(spectrum: Spectrum) -> Float[np.ndarray, " a"]:
    """Penalties from hardly any shrinkage to a constant prediction, for this spectrum.

    Three a decade, from a hundredth of the median eigenvalue to a hundred times the largest. The
    median stands for the bulk of the directions: one that dominates them all does not move it, as
    it would the mean, and hide all others behind too strong penalties. The smallest eigenvalue is
    no measure, since it nears zero where there are as many rows as dimensions: a fit with next to
    no penalty then predicts others far worse than their mean does, and generalised
    cross-validation, whose both terms go to zero, may not see it.
    """
    squared = np.square(spectrum.s)
    if not squared.size:
        return np.ones(1)
    low, high = 0.01 * np.median(squared), 100.0 * squared.max()
    return np.geomspace(low, high, 1 + round(3 * np.log10(high / low)))


def _eigenvectors(
    gram: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "n r"]]:
    """Roots of the eigenvalues that are not rounding, ascending, and their eigenvectors.

    Large matrices are overwritten: their eigenvectors then take twice the matrix's memory in all,
    not four times.
    """
    if len(gram) > _LARGE:
        values, vectors = eigh(gram.T, overwrite_a=True, check_finite=False, driver="evr")
    else:
        values, vectors = np.linalg.eigh(gram)
    first = np.searchsorted(
        values, _RANK_CUTOFF * max(values[-1], np.finfo(np.float64).tiny), side="right"
    )
    return np.sqrt(values[first:]), vectors[:, first:]
