"""Kernel ridge regression with a penalty of its own for every target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import pdist

from lens.probes.checks import check_rows
from lens.probes.scaling import column_means, fit_channels, standardise
from lens.probes.spectral import Solution, Spectrum, decompose, decompose_kernel, solve

ALPHAS = tuple(np.geomspace(1e-6, 1e3, 28).tolist())
"""Penalties, in units of the number of patients; the trace of a kernel is that number at most."""

LANDMARKS = 2048
"""Rows that a kernel is spanned by. Its decomposition costs their number cubed: that of 6,800 rows
takes minutes."""

JITTER = 1e-10
"""On a landmark's kernel with itself, which is 1: near copies among them leave it singular."""


@dataclass(frozen=True)
class KernelRidgeProbe:
    """Kernel ridge regression with a Gaussian kernel of standardised embeddings.

    ``exp(-||x - x'||^2 / (2 w^2))``, every dimension in its own standard deviations and `w` the
    median distance of two fitted rows (the median heuristic: Garreau et al. 2017). It also reads
    what is curved in the embedding, which ridge does not. Kernel and targets are centred, for an
    intercept: equals ``sklearn.kernel_ridge.KernelRidge`` behind ``KernelCenterer`` at the same
    penalties. Each target has the one that GCV prefers.

    Of more fitted rows than `landmarks` so many, spread evenly along the first component, span the
    kernel (Nystroem approximation: Williams and Seeger 2001): equals ridge regression behind
    ``sklearn.kernel_approximation.Nystroem`` of these rows.

    Attributes:
        alphas: penalties to choose from, relative to the number of rows; ties go to the larger.
        share: only the leading principal components of the standardised rows are read, as many as
            this share of the number of rows; None reads all. Distances in very many dimensions are
            all about the same, which leaves a kernel little to tell rows apart by.
        landmarks: the most rows that span the kernel.
    """

    alphas: tuple[float, ...] = ALPHAS
    share: float | None = None
    landmarks: int = LANDMARKS

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
        landmarks = _spread(rows, self.landmarks)
        width = _median_distance(landmarks)
        means, scores, spectrum = _span(rows, landmarks, width)
        features = KernelFeatures(x_mean, x_std, axes, landmarks, width, means, scores)
        return DecomposedKernelRidge(features, spectrum, self.alphas)


@dataclass(frozen=True)
class KernelFeatures:
    """Rows of an embedding along the singular directions of the fitted rows' centred kernel.

    Attributes:
        x_mean, x_std: of the fitted rows.
        axes: leading components of the standardised rows; None takes these themselves.
        landmarks: rows that span the kernel, standardised, along the axes.
        width: of the kernel, in standard deviations.
        means: of the kernel with the landmarks over the fitted rows, which centre it.
        scores: from the centred kernel with the landmarks to the singular directions.
    """

    x_mean: Float[np.ndarray, " d"]
    x_std: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d c"] | None
    landmarks: Float[np.ndarray, "l c"]
    width: float
    means: Float[np.ndarray, " l"]
    scores: Float[np.ndarray, "l r"]

    def __call__(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m r"]:
        """Of other rows; ``u * s`` of the spectrum for the fitted ones."""
        rows = standardise(x, self.x_mean, self.x_std)
        rows = rows if self.axes is None else rows @ self.axes
        kernel = _gaussian(rows, self.landmarks, self.width)
        kernel -= self.means
        return kernel @ self.scores


@dataclass(frozen=True)
class DecomposedKernelRidge:
    """The part of a fit that is the same for all targets.

    Attributes:
        features: that are read.
        spectrum: of the fitted rows' centred kernel.
        alphas: penalties to choose from, as in the probe.
    """

    features: KernelFeatures
    spectrum: Spectrum
    alphas: tuple[float, ...]

    def fit(self, r: Float[np.ndarray, "m k"]) -> FittedKernelRidge:
        """See `lens.probes.probe.Decomposed`."""
        check_rows(x=self.spectrum.u, r=r)
        r = np.asarray(r, np.float64)
        intercept = column_means(r)
        solution = solve(self.spectrum, r - intercept, self.alphas)
        return FittedKernelRidge(self.features, intercept, solution)


@dataclass(frozen=True)
class FittedKernelRidge:
    """A fitted `KernelRidgeProbe`.

    Attributes:
        features: that are read.
        intercept: mean of the fitted targets.
        solution: penalties, fitted values and residuals.
    """

    features: KernelFeatures
    intercept: Float[np.ndarray, " k"]
    solution: Solution

    @property
    def alpha(self) -> Float[np.ndarray, " k"]:
        """Penalty of each target: fitted values are ``K (K + alpha)^-1 y`` of the centred ones."""
        return self.solution.alpha

    def predict(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """See `lens.probes.probe.FittedProbe`."""
        weights = self.solution.components / self.solution.spectrum.s[:, None]
        return self.features(x) @ weights + self.intercept

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
        return self.solution.influence(self.features(x).T @ error, error, groups)


def _leading(rows: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "d c"]:
    """Directions of the largest variance, at least one; of constant rows none."""
    (_, s), v = decompose(rows)
    return v[:, np.argsort(s)[::-1][: max(1, count)]]


def _spread(rows: Float[np.ndarray, "n c"], count: int) -> Float[np.ndarray, "l c"]:
    """So many rows, evenly spaced by their first coordinate; all if there are fewer."""
    if len(rows) <= count:
        return rows
    order = np.argsort(rows[:, 0], kind="stable")
    return rows[order[np.linspace(0, len(rows) - 1, count).round().astype(int)]]


def _median_distance(rows: Float[np.ndarray, "n d"]) -> float:
    """Median distance of two rows that differ; 1 where all are the same."""
    distances = pdist(rows)
    positive = distances[distances > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _span(
    rows: Float[np.ndarray, "n c"], landmarks: Float[np.ndarray, "l c"], width: float
) -> tuple[Float[np.ndarray, " l"], Float[np.ndarray, "l r"], Spectrum]:
    """Means and scores of `KernelFeatures`, and the spectrum of the rows in its directions."""
    kernel = _gaussian(rows, landmarks, width)
    means = kernel.mean(axis=0)
    if landmarks is rows:
        spectrum = decompose_kernel(_centre(kernel, means))
        return means, spectrum.u / spectrum.s, spectrum
    among = _gaussian(landmarks, landmarks, width)
    among[np.diag_indices_from(among)] += JITTER
    root = cholesky(among, lower=True, overwrite_a=True)
    kernel -= means
    spectrum, v = decompose(solve_triangular(root, kernel.T, lower=True).T)
    return means, solve_triangular(root, v, lower=True, trans=1), spectrum


def _gaussian(
    a: Float[np.ndarray, "m c"], b: Float[np.ndarray, "n c"], width: float
) -> Float[np.ndarray, "m n"]:
    """Squared distances by a product, which is many times as fast as one by one."""
    kernel = a @ (-2.0 * b.T)
    kernel += np.einsum("ij,ij->i", a, a)[:, None]
    kernel += np.einsum("ij,ij->i", b, b)
    np.maximum(kernel, 0.0, out=kernel)  # rounding
    kernel *= -0.5 / width**2
    return np.exp(kernel, out=kernel)


def _centre(
    kernel: Float[np.ndarray, "n n"], means: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n n"]:
    """Kernel of the features less their mean over the fitted rows (Schoelkopf et al. 1998).

    Overwrites the kernel: of many rows it is the largest array there is.
    """
    kernel -= means[:, None]
    kernel -= means
    kernel += means.mean()
    return kernel
