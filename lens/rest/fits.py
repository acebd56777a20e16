"""Ridge regression of many targets in one fold, scored on its held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lens.probes.scaling import column_means, fit_channels, standardise
from lens.probes.spectral import Solution, Spectrum, decompose, decompose_kernel, solve
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import ProbeErrors, random_signs


@dataclass(frozen=True)
class Fit:
    """Ridge regression of the fitted rows of a fold, each target at the penalty of its own GCV.

    Attributes:
        solution: of the centred targets.
        held: held-out rows along the singular directions of the fitted ones.
        mean: of the fitted targets.
    """

    solution: Solution
    held: Float[np.ndarray, "m r"]
    mean: Float[np.ndarray, " k"]

    def predict(self) -> Float[np.ndarray, "m k"]:
        """Targets of the held-out rows."""
        solution = self.solution
        return self.held @ (solution.components / solution.spectrum.s[:, None]) + self.mean

    def of(self, columns: slice) -> Fit:
        """The fit of some of the targets."""
        s = self.solution
        kept = Solution(s.spectrum, s.y[:, columns], s.alpha[columns], s.components[:, columns])
        return Fit(kept, self.held, self.mean[columns])

    def spent(self) -> float:
        """Degrees of freedom of the fit, the mean over the targets by what is left of each."""
        squared = np.square(self.solution.spectrum.s)
        penalties, which = np.unique(self.solution.alpha, return_inverse=True)
        freedom = np.array([(squared / (squared + alpha)).sum() for alpha in penalties])[which]
        left = np.square(self.solution.residual).sum(axis=0)
        return float(freedom @ left / left.sum()) if left.sum() > 0 else 0.0

    def residuals(
        self, y: Float[np.ndarray, "n k"], groups: np.ndarray, fold: Fold
    ) -> Float[np.ndarray, "n k"]:
        """Observed less predicted, every row by a fit without its patient; zero in other rows.

        Held-out rows by this fit, fitted ones by the fit that leaves their patient out
        (`lens.probes.spectral.Solution.left_out`): what is fitted to these residuals sees in both
        the same kind of error.
        """
        rows = np.zeros(y.shape)
        rows[fold.fitted] = self.solution.left_out(groups[fold.fitted])
        rows[fold.test] = y[fold.test] - self.predict()
        return rows


def fit_rows(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], fold: Fold, spent: float = 0.0
) -> Fit:
    """From an embedding; neither a rotation of it nor one scale factor changes anything.

    Args:
        x: embedding, or other columns whose relative scales are meant.
        y: targets.
        fold: whose fitted rows are fitted.
        spent: as in `lens.probes.spectral.solve`.
    """
    if not x.shape[1]:
        x = np.zeros((len(x), 1))
    mean, deviation = fit_channels(x[fold.fitted], per_channel=False)
    spectrum, v = decompose(standardise(x[fold.fitted], mean, deviation))
    held = standardise(x[fold.test], mean, deviation) @ v
    return _solved(spectrum, held, y, fold, spent)


def fit_kernel(
    kernel: Float[np.ndarray, "n n"], y: Float[np.ndarray, "n k"], fold: Fold, spent: float = 0.0
) -> Fit:
    """From the inner products of rows that the fitted rows centre.

    Args:
        kernel: of all rows.
        y: targets.
        fold: whose fitted rows are fitted.
        spent: as in `lens.probes.spectral.solve`.
    """
    spectrum = decompose_kernel(kernel[np.ix_(fold.fitted, fold.fitted)])
    held = kernel[np.ix_(fold.test, fold.fitted)] @ spectrum.u / spectrum.s
    return _solved(spectrum, held, y, fold, spent)


def _solved(
    spectrum: Spectrum, held: np.ndarray, y: np.ndarray, fold: Fold, spent: float = 0.0
) -> Fit:
    mean = column_means(y[fold.fitted])
    return Fit(solve(spectrum, y[fold.fitted] - mean, spent=spent), held, mean)


class Tally:
    """Squared held-out errors and influences by row, a column for each of several predictions."""

    def __init__(self, n: int, names: list[str]) -> None:
        self.names = names
        shape = (n, len(names))
        self.errors = ProbeErrors(*(np.zeros(shape) for _ in range(3)))
        self.baseline = np.zeros(shape)

    def add(
        self,
        name: str,
        fit: Fit,
        y: Float[np.ndarray, "n k"],
        total: Float[np.ndarray, " n"],
        groups: np.ndarray,
        fold: Fold,
    ) -> None:
        """Adds a fold.

        Args:
            name: of the prediction.
            fit: of `y`.
            y: targets; their squared errors are added up.
            total: squared length of each row of the whole target about the mean of the fitted
                rows, of which `y` may be the leading components; the rest counts as unexplained.
            groups: patient of each row.
            fold: that the fit is of.
        """
        at, test, fitted = self.names.index(name), fold.test, fold.fitted
        observed = y[test] - fit.mean
        error = y[test] - fit.predict()
        left = np.maximum(total[test] - np.square(observed).sum(axis=1), 0.0)
        self.errors.error[test, at] += np.square(error).sum(axis=1) + left
        self.baseline[test, at] += total[test]
        for sums, weighted in (
            (self.errors.fitted_influence, error),
            (self.errors.flipped_influence, error * random_signs(groups)[test, None]),
        ):
            pull = fit.held.T @ weighted
            sums[fitted, at] += fit.solution.influence(pull, weighted, groups[fitted]).sum(axis=1)

    def errors_of(self, names: list[str]) -> ProbeErrors:
        """Of some predictions, in this order."""
        at = [self.names.index(name) for name in names]
        return ProbeErrors(*(values[:, at] for values in self.errors))

    def baseline_of(self, names: list[str]) -> Float[np.ndarray, "n p"]:
        """Squared errors of the fitted rows' mean."""
        return self.baseline[:, [self.names.index(name) for name in names]]
