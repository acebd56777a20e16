"""Ridge regression with a penalty of its own for every target: the reference probe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from lens.probes.checks import check_rows
from lens.probes.scaling import column_means, fit_channels, standardise
from lens.probes.spectral import Solution, Spectrum, decompose, solve

SHARE = 0.125
"""Share of the fitted rows' number that `LeadingRidgeProbe` takes of components. Each costs about
1/n of what is unexplained: an eighth costs about a seventh, on either side of a comparison."""


@dataclass(frozen=True)
class RidgeProbe:
    """Ridge regression on standardised embeddings, each target with the penalty that GCV prefers.

    Minimises ``sum_i (r_i - x_i b - c)^2 + alpha ||b||^2``, in float64. Equals
    ``sklearn.linear_model.Ridge`` and ``himalaya.ridge.Ridge`` on standardised embeddings at the
    same penalties. A shift of the embeddings, and shift and scale of a target, never matter.

    Attributes:
        per_channel: divide every dimension by its own standard deviation, so that a gain per
            channel changes nothing; otherwise all by one, so that neither a rotation nor one scale
            factor does.
        alphas: penalties to choose from, divided by the number of rows; ties go to the larger. None
            follows the spectrum (`lens.probes.spectral.relative_penalties`).
    """

    per_channel: bool = True
    alphas: tuple[float, ...] | None = None

    def fit(self, x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "m k"]) -> FittedRidge:
        """See `lens.probes.probe.Probe`."""
        return self.decompose(x).fit(r)

    def decompose(self, x: Float[np.ndarray, "n d"]) -> DecomposedRidge:
        """See `lens.probes.probe.DecomposingProbe`."""
        check_rows(x=x)
        x = np.asarray(x, np.float64)
        x_mean, x_std = fit_channels(x, per_channel=self.per_channel)
        spectrum, v = decompose(standardise(x, x_mean, x_std))
        return DecomposedRidge(x_mean, x_std, spectrum, v, self.alphas)


@dataclass(frozen=True)
class LeadingRidgeProbe:
    """Ridge regression on the leading principal components, each brought to unit variance.

    Their number is fixed by the number of fitted rows (`SHARE`), so that any two embeddings of the
    same patients are read with the same freedom. How much variance the signal has beside other
    directions, as long as it is among the leading ones, makes no difference: neither a rotation nor
    a scale factor changes anything, a rescaling of directions without signal next to nothing.

    Attributes:
        share: of the number of rows, at least one component.
        components: their number where it is given; of an embedding of lower rank, all it has.
        per_channel: components of the channels divided each by its own standard deviation, so that
            a gain per channel changes nothing, and a rotation does.
        alphas: as in `RidgeProbe`, relative to a component's variance.
    """

    share: float = SHARE
    components: int | None = None
    per_channel: bool = False
    alphas: tuple[float, ...] = tuple(np.geomspace(1e-3, 1e3, 19).tolist())

    def fit(self, x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "m k"]) -> FittedRidge:
        """See `lens.probes.probe.Probe`."""
        return self.decompose(x).fit(r)

    def decompose(self, x: Float[np.ndarray, "n d"]) -> DecomposedRidge:
        """See `lens.probes.probe.DecomposingProbe`."""
        check_rows(x=x)
        x = np.asarray(x, np.float64)
        x_mean, x_std = fit_channels(x, per_channel=self.per_channel)
        (u, s), v = decompose(standardise(x, x_mean, x_std))
        count = max(1, int(self.share * len(x))) if self.components is None else self.components
        leading = np.argsort(s)[::-1][:count]
        size = np.sqrt(len(x))
        spectrum = Spectrum(u[:, leading], np.full(len(leading), size))
        v = size * v[:, leading] / s[leading]
        return DecomposedRidge(x_mean, x_std, spectrum, v, self.alphas)


@dataclass(frozen=True)
class DecomposedRidge:
    """The part of a ridge fit that is the same for all targets.

    Attributes:
        x_mean, x_std: as in `FittedRidge`.
        spectrum: of the standardised rows, or of the components that are read.
        v: as in `FittedRidge`.
        alphas: penalties to choose from, as in the probe.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    spectrum: Spectrum
    v: Float[np.ndarray, "d r"]
    alphas: tuple[float, ...] | None

    def fit(self, r: Float[np.ndarray, "m k"]) -> FittedRidge:
        """See `lens.probes.probe.Decomposed`."""
        check_rows(x=self.spectrum.u, r=r)
        r = np.asarray(r, np.float64)
        intercept = column_means(r)
        solution = solve(self.spectrum, r - intercept, self.alphas)
        return FittedRidge(self.x_mean, self.x_std, intercept, self.v, solution)


@dataclass(frozen=True)
class FittedRidge:
    """A fitted ridge probe of this module: ``r = (x - x_mean) / x_std @ coef + intercept``.

    Attributes:
        x_mean, x_std: of the fitted rows; `x_std` is one number repeated where the probe leaves
            the channels' relative scales as they are.
        intercept: mean of the fitted targets.
        v: directions of the standardised embedding whose scores the solution's spectrum holds.
        solution: penalties, fitted values and residuals.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    intercept: Float[np.ndarray, " k"]
    v: Float[np.ndarray, "d r"]
    solution: Solution

    @cached_property
    def coef(self) -> Float[np.ndarray, "d k"]:
        """Weights per standardised dimension, zero beyond the numerical rank."""
        return self.v @ self._weights

    @property
    def _weights(self) -> Float[np.ndarray, "r k"]:
        """The same per score."""
        return self.solution.components / self.solution.spectrum.s[:, None]

    @property
    def alpha(self) -> Float[np.ndarray, " k"]:
        """Penalty of each target, as ``||y - Xb||^2 + alpha ||b||^2`` has it."""
        return self.solution.alpha

    def predict(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """See `lens.probes.probe.FittedProbe`."""
        rows = standardise(x, self.x_mean, self.x_std)
        if self._by_scores(len(x)):
            return (rows @ self.v) @ self._weights + self.intercept
        return rows @ self.coef + self.intercept

    def leverage(self) -> Float[np.ndarray, "n k"]:
        """See `lens.probes.probe.FittedProbe`."""
        return self.solution.leverage()

    def left_out(self, groups: np.ndarray | None = None) -> Float[np.ndarray, "n k"]:
        """See `lens.probes.probe.FittedProbe`."""
        return self.solution.left_out(groups)

    def influence(
        self,
        x: Float[np.ndarray, "m d"],
        error: Float[np.ndarray, "m k"],
        groups: np.ndarray | None = None,
    ) -> Float[np.ndarray, "n k"]:
        """See `lens.probes.probe.FittedProbe`."""
        rows = standardise(x, self.x_mean, self.x_std)
        by_scores = self._by_scores(len(x))
        pull = (rows @ self.v).T @ error if by_scores else self.v.T @ (rows.T @ error)
        return self.solution.influence(pull, error, groups)

    def _by_scores(self, rows: int) -> bool:
        """Whether scores of so many rows cost less than weights of all targets per dimension."""
        (d, r), k = self.v.shape, len(self.intercept)
        return rows * r * (d + k) < d * k * (rows + r)
