"""What a probe is: something fitted to embeddings that predicts the radiomic features from them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

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

    def influence(
        self, x: Float[np.ndarray, "m d"], error: Float[np.ndarray, "m k"]
    ) -> Float[np.ndarray, "n k"]:
        """Influence of each fitted row on the sum of squared errors of held-out rows.

        Let ``w_i`` be the weight of fitted row i in the squared errors that the fit minimises (1
        in the fit at hand), ``f_ik`` its residual, and ``e_jk`` the error of held-out row j. The
        influence is the derivative in the weight, penalties and scaling held::

            d/dw_i sum_j e_jk^2  =  -2 sum_j e_jk a_jik f_ik,    a_jik = d predicted_jk / d r_ik

        The second form holds for every probe that minimises weighted squared errors plus a
        quadratic penalty: more weight on a row draws the predictions towards its residual, by its
        share ``a_jik`` in each of them. Negative for a row that makes held-out errors smaller.

        The derivative in a case's weight is Cook and Weisberg's local influence (*Residuals and
        Influence in Regression*, 1982), to a statistic the infinitesimal jackknife (Efron,
        *Estimation and Accuracy after Model Selection*, JASA 2014), and on the loss of other rows
        the influence function of Koh and Liang (*Understanding Black-box Predictions via Influence
        Functions*, ICML 2017). Added to the row's own held-out error it is all that a score owes to
        the row: a standard error from these sums covers another draw of the fitted patients too.

        Args:
            x: embeddings of m held-out rows.
            error: observed minus predicted there; zero leaves an entry out.
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
