"""Kernel ridge regression with a penalty of its own for every target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist, pdist

from lens.probes.checks import check_rows
from lens.probes.scaling import column_means, fit_channels, standardise
from lens.probes.spectral import Solution, Spectrum, decompose, decompose_kernel, solve

ALPHAS = tuple(np.geomspace(1e-6, 1e3, 28).tolist())
"""Penalties, in units of the number of patients; the trace of a kernel is that number at most."""


@dataclass(frozen=True)
class KernelRidgeProbe:
    """Kernel ridge regression with a Gaussian kernel of standardised embeddings.

    ``exp(-||x - x'||^2 / (2 w^2))``, every dimension in its own standard deviations and `w` the
    median distance of two fitted rows (the median heuristic: Garreau et al. 2017). It also reads
    what is curved in the embedding, which ridge does not. Kernel and targets are centred, for an
    intercept: equals ``sklearn.kernel_ridge.KernelRidge`` behind ``KernelCenterer`` at the same
    penalties. Each target has the one that GCV prefers.

    Attributes:
        alphas: penalties to choose from, relative to the number of rows; ties go to the larger.
        share: only the leading principal components of the standardised rows are read, as many as
            this share of the number of rows; None reads all. Distances in very many dimensions are
            all about the same, which leaves a kernel little to tell rows apart by.
    """

    alphas: tuple[float, ...] = ALPHAS
    share: float | None = None

    def fit(self, x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "m k"]) -> FittedKernelRidge:
        """See `lens.probes.probe.Probe`."""
        return self.decompose(x).fit(r)

    def decompose(self, x: Float[np.ndarray, "n d"]) -> DecomposedKernelRidge:
        """See `lens.probes.probe.DecomposingProbe`."""
        check_rows(x=x)
        x = np.asarray(x, np.float64)
        x_mean, x_std = fit_channels(x, per_channel=True)
        rows = standardise(x, x_mean, x_std)
        axes = None if self.share is None else _leading(rows, int(self.share * len(rows)))
        rows = rows if axes is None else rows @ axes
        width = _median_distance(rows)
        kernel = _gaussian(rows, rows, width)
        means = kernel.mean(axis=0)
        spectrum = decompose_kernel(_centre(kernel, means))
        return DecomposedKernelRidge(x_mean, x_std, axes, rows, width, means, spectrum, self.alphas)


@dataclass(frozen=True)
class DecomposedKernelRidge:
    """The part of a fit that is the same for all targets.

    Attributes:
        x_mean, x_std, axes, rows, width, kernel_means: as in `FittedKernelRidge`.
        spectrum: of the centred kernel.
        alphas: penalties to choose from, as in the probe.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d c"] | None
    rows: Float[np.ndarray, "n c"]
    width: float
    kernel_means: Float[np.ndarray, " n"]
    spectrum: Spectrum
    alphas: tuple[float, ...]

    def fit(self, r: Float[np.ndarray, "m k"]) -> FittedKernelRidge:
        """See `lens.probes.probe.Decomposed`."""
        check_rows(x=self.rows, r=r)
        r = np.asarray(r, np.float64)
        intercept = column_means(r)
        solution = solve(self.spectrum, r - intercept, self.alphas)
        return FittedKernelRidge(
            self.x_mean, self.x_std, self.axes, self.rows, self.width, self.kernel_means,
            intercept, solution,
        )  # fmt: skip


@dataclass(frozen=True)
class FittedKernelRidge:
    """A fitted `KernelRidgeProbe`.

    Attributes:
        x_mean, x_std: of the fitted rows.
        axes: leading components of the standardised rows; None takes these themselves.
        rows: the fitted rows, standardised, along the axes.
        width: of the kernel, in standard deviations.
        kernel_means: of the kernel's columns over the fitted rows, which centre it.
        intercept: mean of the fitted targets.
        solution: penalties, fitted values and residuals.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d c"] | None
    rows: Float[np.ndarray, "n c"]
    width: float
    kernel_means: Float[np.ndarray, " n"]
    intercept: Float[np.ndarray, " k"]
    solution: Solution

    @property
    def alpha(self) -> Float[np.ndarray, " k"]:
        """Penalty of each target: fitted values are ``K (K + alpha)^-1 y`` of the centred ones."""
        return self.solution.alpha

    def predict(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """See `lens.probes.probe.FittedProbe`."""
        return self._kernel(x) @ self.solution.dual() + self.intercept

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
        u, s = self.solution.spectrum
        pull = u.T @ (self._kernel(x).T @ error) / s[:, None]
        return self.solution.influence(pull, error, groups)

    def _kernel(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m n"]:
        """Centred kernel of other rows with the fitted ones."""
        rows = standardise(x, self.x_mean, self.x_std)
        rows = rows if self.axes is None else rows @ self.axes
        return _centre(_gaussian(rows, self.rows, self.width), self.kernel_means)


def _leading(rows: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "d c"]:
    """Directions of the largest variance, at least one; of constant rows none."""
    (_, s), v = decompose(rows)
    return v[:, np.argsort(s)[::-1][: max(1, count)]]


def _median_distance(rows: Float[np.ndarray, "n d"]) -> float:
    """Median distance of two rows that differ; 1 where all are the same."""
    distances = pdist(rows)
    positive = distances[distances > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _gaussian(
    a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"], width: float
) -> Float[np.ndarray, "m n"]:
    kernel = cdist(a, b, "sqeuclidean")
    kernel *= -0.5 / width**2
    return np.exp(kernel, out=kernel)


def _centre(
    kernel: Float[np.ndarray, "m n"], means: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "m n"]:
    """Kernel of the features less their mean over the fitted rows (Schoelkopf et al. 1998).

    Overwrites the kernel: of many rows it is the largest array there is.
    """
    kernel -= kernel.mean(axis=1, keepdims=True)
    kernel -= means
    kernel += means.mean()
    return kernel
