"""Moderated variances: those of many features from few draws each, shrunk towards a common prior.

A variance from three draws is hardly known. Over many features it is known well how large variances
are, and how different: ``s_k^2 ~ s0^2 F(d, d0)`` if the true ones are scaled inverse chi-square
with d0 degrees of freedom about s0^2. Given the prior, the best guess of a feature's variance is
(Smyth, *Linear models and empirical Bayes methods*, Statistical Applications in Genetics and
Molecular Biology 3:3, 2004; limma's ``squeezeVar``)::

    s~_k^2 = (d0 s0^2 + d s_k^2) / (d0 + d),    with d0 + d degrees of freedom

Two things are more careful than there:

- **Correlation.** The draws of one seed move all features together, so that K features are not K
  pieces of knowledge about s0^2. With `overlap` the mean squared correlation of two features, the
  pooled variance has ``d K / (1 + (K - 1) overlap)`` degrees of freedom (Satterthwaite 1946), and
  d0 + d is no more than these.
- **Outliers.** A feature whose variance the prior does not explain keeps more of its own. Its d0 is
  multiplied by the chance that it is no outlier, after Phipson, Lee, Majewski, Alexander and Smyth
  (*Robust hyperparameter estimation protects against hypervariable genes*, Annals of Applied
  Statistics 10:946, 2016).

What follows from a prior holds on average over the features: an interval covers those that vary the
most somewhat less often than it says, and those that vary the least more often.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.optimize import root_scalar
from scipy.special import digamma, hyp2f1, polygamma

_FLOOR = 1e-5
"""Variances below this share of the median count as that much, as in limma: zero has no log."""

_ALMOST = 1 - 1e-9
"""Squared correlation from which on two features are copies."""


class Moderated(NamedTuple):
    """Variance of each feature, and how well it is known.

    Attributes:
        variance: moderated; NaN where the feature has no value.
        df: its degrees of freedom; those of the draws alone where the feature has no value.
    """

    variance: Float[np.ndarray, " k"]
    df: Float[np.ndarray, " k"]


class Prior(NamedTuple):
    """Scaled inverse chi-square distribution of the features' true variances.

    Attributes:
        df: how alike they are, 0 to infinity.
        variance: about which they lie.
    """

    df: float
    variance: float


def moderated_variance(draws: Float[np.ndarray, "s k"]) -> Moderated:
    """Variance of every feature from `s` draws, moderated over all features.

    A single feature, or features that are copies of each other, keep their own variance; where no
    feature varies all variances are zero.

    Args:
        draws: a row per draw; a feature with a value that is not finite is left out.

    Raises:
        ValueError: fewer than three draws: the overlap of features is not known from two.
    """
    count, width = draws.shape
    if count < 3:
        raise ValueError(f"{count} draws; a moderated variance needs at least 3")
    known = np.isfinite(draws).all(axis=0)
    values, df = draws[:, known], count - 1
    own = values.var(axis=0, ddof=1)
    variance, total = np.full(width, np.nan), np.full(width, float(df))
    variance[known] = own
    if (own > 0).any() and len(own) > 1:
        shared = overlap(values)
        prior = fit_prior(own, df, shared)
        pooled = df * len(own) / (1 + (len(own) - 1) * shared)
        # The prior is known no better than the pooled variance.
        prior = prior._replace(df=min(prior.df, pooled - df))
        variance[known], total[known] = shrink(own, df, prior, explained(own, df, prior))
    return Moderated(variance, total)


def fit_prior(variance: Float[np.ndarray, " k"], df: int, shared: float = 0.0) -> Prior:
    """Prior of the variances, by the moments of their logs (limma's ``fitFDist``).

    ``e = log s^2 - digamma(d/2) + log(d/2)`` has the variance ``trigamma(d0/2)`` plus that of the
    draws, ``trigamma(d/2)``, of which features that overlap show only a part.

    Args:
        variance: of at least two features from `df` + 1 draws, not all zero.
        df: degrees of freedom of each.
        shared: mean squared correlation of two features, as in `overlap`.
    """
    typical = np.median(variance) or np.median(variance[variance > 0])
    variance = np.maximum(variance, _FLOOR * typical)
    e = np.log(variance) - digamma(df / 2) + np.log(df / 2)
    spread = e.var(ddof=1) - float(polygamma(1, df / 2)) * (1.0 - shared)
    if spread <= 0:
        return Prior(np.inf, float(variance.mean()))
    half = trigamma_inverse(spread)
    return Prior(2 * half, float(np.exp(e.mean() + digamma(half) - np.log(half))))


def shrink(
    variance: Float[np.ndarray, " k"],
    df: int,
    prior: Prior,
    share: Float[np.ndarray, " k"] | float = 1.0,
) -> Moderated:
    """Moderated variances given the prior: one over the posterior mean of the precision.

    Args:
        variance: of each feature.
        df: degrees of freedom of each.
        prior: of `fit_prior`, its `df` finite.
        share: of the prior's degrees of freedom that a feature gets, as in `explained`.
    """
    weight = prior.df * np.broadcast_to(share, variance.shape)
    total = weight + df
    return Moderated((weight * prior.variance + df * variance) / total, total)


def explained(variance: Float[np.ndarray, " k"], df: int, prior: Prior) -> Float[np.ndarray, " k"]:
    """Chance that a feature with so large a variance comes from the prior.

    Features that the prior expects to be as large, over those that are: at most 1, and falling with
    the variance.

    Args:
        variance: of each feature.
        df: degrees of freedom of each.
        prior: of `fit_prior`, its `df` finite.
    """
    if prior.df <= 0:
        return np.ones(len(variance))
    tail = stats.f.sf(variance / prior.variance, df, prior.df)
    order = np.argsort(-variance, kind="stable")
    expected = tail[order] * len(variance)
    reached = np.arange(len(variance)) + 0.5
    chance = np.minimum.accumulate((expected / reached)[::-1])[::-1]
    found = np.empty(len(variance))
    found[order] = np.minimum(chance, 1.0)
    return found


def overlap(draws: Float[np.ndarray, "s k"]) -> float:
    """Mean squared correlation of two features, from the draws, between 0 and 1.

    The squared correlation that makes the squared sample correlation as large as it is on average
    over all pairs (`_sample_overlap`): right for pairs that are all alike, and not too small for
    others, since that function is convex.

    Args:
        draws: at least three draws; features that do not vary are left out.
    """
    centred = draws - draws.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    unit = centred[:, size > 0] / size[size > 0]
    count, free = unit.shape[1], len(draws) - 1
    if count < 2:
        return 0.0
    # The sum over all pairs of squared products is the squared norm of the small product.
    pairs = np.square(unit @ unit.T).sum() - count
    mean = float(pairs / (count * (count - 1)))
    if mean <= _sample_overlap(0.0, free):
        return 0.0
    if mean >= _sample_overlap(_ALMOST, free):
        return 1.0
    found = root_scalar(lambda r: _sample_overlap(r, free) - mean, bracket=(0.0, _ALMOST))
    return float(found.root)


def _sample_overlap(squared: float, free: int) -> float:
    """Expected squared sample correlation of two normal variables.

    ``1 - (d - 1)/d (1 - rho^2) F(1, 1; d/2 + 1; rho^2)`` for d + 1 draws, with F Gauss's
    hypergeometric function (Stuart and Ord, *Kendall's Advanced Theory of Statistics*, chapter 16):
    1/d for independent ones, 1 for copies.

    Args:
        squared: rho^2, below 1.
        free: d, at least 2.
    """
    return float(1 - (1 - 1 / free) * (1 - squared) * hyp2f1(1, 1, free / 2 + 1, squared))


def trigamma_inverse(y: float) -> float:
    """``x > 0`` with ``trigamma(x) = y``, by Newton's method on ``1 / trigamma`` (Smyth 2004).

    That function is convex and nearly straight, so that the steps from ``1/2 + 1/y`` come from one
    side and few are needed.

    Args:
        y: above zero.
    """
    x = 0.5 + 1 / y
    # Below, the start is the answer, to the square of y.
    for _ in range(100 if y > 1e-6 else 0):
        value = float(polygamma(1, x))
        step = value * (1 - value / y) / float(polygamma(2, x))
        x += step
        if abs(step) <= 1e-12 * x:
            break
    return x
