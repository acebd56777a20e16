"""What a probe is: something fitted to embeddings that predicts the radiomic features from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class FittedProbe(Protocol):
    """A probe after `Probe.fit` on n rows with k targets."""

    def predict(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m k"]:
        """Predicted targets, in their own units.

        Args:
            x: embeddings of any rows.
        """
        ...

    def leverage(self) -> Float[np.ndarray, "n k"]:
        """Leverage of each fitted row: the diagonal of the hat matrix at each target's penalty.

        ``h_ik = d fitted_ik / d r_ik``, with the ``1 / n`` that the intercept adds; between 1/n and
        1 (Hoaglin and Welsch 1978). ``f_ik / (1 - h_ik)``, with ``f_ik`` the residual, is the error
        of row i left out, penalties and scaling held.
        """
        ...

    def left_out(self, groups: np.ndarray | None = None) -> Float[np.ndarray, "n k"]:
        """Residual of each fitted row in the fit without its patient, penalties and scaling held.

        Args:
            groups: patient of each fitted row, all of whose rows are left out together; None for a
                patient per row, where it is ``f_ik / (1 - h_ik)``.
        """
        ...

    def influence(
        self,
        x: Float[np.ndarray, "m d"],
        error: Float[np.ndarray, "m k"],
        groups: np.ndarray | None = None,
    ) -> Float[np.ndarray, "n k"]:
        """Influence of each fitted row on the sum of squared errors of held-out rows.

        With ``e_jk`` the error of held-out row j, ``a_jik = d predicted_jk / d r_ik`` the weight of
        fitted row i in its prediction, and ``g_ik`` the residual of that row left out::

            -2 sum_j e_jk a_jik g_ik

        Negative for a row that makes held-out errors smaller. It is what the sum would rise by, to
        first order in the predictions, if the rows of a patient were taken out, with the sign
        turned: for a fit that minimises squared errors plus a quadratic penalty, the predictions
        of row j then fall by exactly ``sum_i a_jik g_ik``. With the residual of the fit at hand in
        place of ``g`` it would be the derivative in a row's weight, the infinitesimal jackknife
        (Efron, *Estimation and Accuracy after Model Selection*, JASA 2014): the same for a row
        like others, and next to nothing for a row that pulls the fit to itself, which is the row
        that matters (Cook and Weisberg, *Residuals and Influence in Regression*, 1982).

        Added to the row's own held-out error it is all that a score owes to the row: a standard
        error from these sums covers another draw of the fitted patients too.

        Args:
            x: embeddings of m held-out rows.
            error: observed minus predicted there; zero leaves an entry out.
            groups: patient of each fitted row; None for a patient per row.
        """
        ...


@runtime_checkable
class Probe(Protocol):
    """How to fit one. An implementation is a small frozen dataclass that holds its settings."""

    def fit(self, x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "m k"]) -> FittedProbe:
        """Fits the probe, with scaling and penalties of its own, to each target by itself.

        Args:
            x: embeddings.
            r: targets, same rows (m = n), any units.

        Raises:
            ValueError: rows differ in number, or an entry is not finite.
        """
        ...


@runtime_checkable
class Decomposed(Protocol):
    """What a fit owes to the embeddings alone: made once, it serves any number of targets."""

    def fit(self, r: Float[np.ndarray, "n k"]) -> FittedProbe:
        """Fits targets of the same rows; see `Probe.fit`."""
        ...


@runtime_checkable
class DecomposingProbe(Protocol):
    """A probe whose fit has a part that is the same for all targets."""

    def decompose(self, x: Float[np.ndarray, "n d"]) -> Decomposed:
        """That part of a fit. ``decompose(x).fit(r)`` equals ``fit(x, r)``."""
        ...


def fitter(
    probe: Probe, x: Float[np.ndarray, "n d"], keep: Callable[[Any], Any] = lambda made: made
) -> Callable[[Float[np.ndarray, "n k"]], FittedProbe]:
    """Fits the probe to the same embeddings for any targets, with the common part made once.

    Args:
        probe: to fit.
        x: embeddings.
        keep: puts the common part away.
    """
    if isinstance(probe, DecomposingProbe):
        return keep(probe.decompose(x)).fit
    return partial(probe.fit, x)
