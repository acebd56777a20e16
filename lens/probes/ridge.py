"""Ridge regression with a penalty of its own for every target: the reference probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lens.probes.checks import check_rows
from lens.probes.scaling import column_means, fit_channels, standardise
from lens.probes.spectral import Solution, decompose, solve

ALPHAS = tuple(np.geomspace(1e-3, 1e5, 25).tolist())
"""Penalties in units of the variance of a standardised dimension times the number of patients; the
ends stand for no shrinkage that matters and for a constant prediction."""


@dataclass(frozen=True)
class RidgeProbe:
    """Ridge regression on standardised embeddings, each target with the penalty that GCV prefers.

    Minimises ``sum_i (r_i - x_i b - c)^2 + alpha n ||b||^2`` over n rows, in float64. Equals
    ``sklearn.linear_model.Ridge`` and ``himalaya.ridge.Ridge`` on standardised embeddings at the
    same penalties. A shift of the embeddings, and shift and scale of a target, never matter.

    Attributes:
        per_channel: divide every dimension by its own standard deviation, so that a gain per
            channel changes nothing; otherwise all by one, so that neither a rotation nor one scale
            factor does.
        alphas: penalties to choose from, relative to n (see `ALPHAS`); ties go to the larger.
    """

    per_channel: bool = True
    alphas: tuple[float, ...] = ALPHAS

    def fit(self, x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "m k"]) -> FittedRidge:
        """See `lens.probes.probe.Probe`."""
        check_rows(x=x, r=r)
        x, r = np.asarray(x, np.float64), np.asarray(r, np.float64)
        x_mean, x_std = fit_channels(x, per_channel=self.per_channel)
        spectrum, v = decompose(standardise(x, x_mean, x_std))
        intercept = column_means(r)
        solution = solve(spectrum, r - intercept, self.alphas)
        coef = v @ (solution.components / spectrum.s[:, None])
        return FittedRidge(x_mean, x_std, coef, intercept, v, solution)


@dataclass(frozen=True)
class FittedRidge:
    """A fitted `RidgeProbe`: ``r = (x - x_mean) / x_std @ coef + intercept``.

    Attributes:
        x_mean, x_std: of the fitted rows; `x_std` is one number repeated where the probe leaves
            the channels' relative scales as they are.
        coef: weights per standardised dimension, zero beyond the numerical rank.
        intercept: mean of the fitted targets.
        v: right singular vectors of the standardised rows.
        solution: penalties, fitted values and residuals.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    coef: Float[np.ndarray, "d k"]
    intercept: Float[np.ndarray, " k"]
    v: Float[np.ndarray, "d r"]
    solution: Solution

    @property
    def alpha(self) -> Float[np.ndarray, " k"]:
        """Penalty of each target, as ``||y - Xb||^2 + alpha ||b||^2`` has it."""
        return self.solution.alpha

    def predict(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """See `lens.probes.probe.FittedProbe`."""
        return standardise(x, self.x_mean, self.x_std) @ self.coef + self.intercept

    def leverage(self) -> Float[np.ndarray, "n k"]:
        """See `lens.probes.probe.FittedProbe`."""
        return self.solution.leverage()

    def influence(
        self, x: Float[np.ndarray, "m d"], error: Float[np.ndarray, "m k"]
    ) -> Float[np.ndarray, "n k"]:
        """See `lens.probes.probe.FittedProbe`."""
        rows = standardise(x, self.x_mean, self.x_std)
        return self.solution.influence(self.v.T @ (rows.T @ error), error)
