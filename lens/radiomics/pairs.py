"""Features of pairs of neighbours (GLCM) from few passes over the matrix.

PyRadiomics makes an array of all pairs of levels, in all directions, several times a feature. Here
a compiled loop a direction has all sums that go over pairs, and one all that go over the sums and
differences of their levels; each adds the terms that PyRadiomics adds, in its order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from lens.radiomics import kernels
from lens.radiomics.powers import power

EPS = np.spacing(1)
"""What PyRadiomics adds so that no logarithm is of zero."""


def pair_features(
    p: Float[np.ndarray, "d g g"], gray: Int[np.ndarray, " g"], spanned: int, *, second_first: bool
) -> dict[str, Float[np.ndarray, " 1"]]:
    """PyRadiomics' features of GLCM by its names: means over directions.

    Args:
        p: share of each pair of levels in each of several directions, symmetric; no NaN.
        gray: the levels, from 1, ascending.
        spanned: the highest level.
        second_first: PyRadiomics' array has the second level of a pair before the first in memory,
            which is NumPy's order of adding. It decides last bits of what the two have apart.
    """
    over, differences = _over_pairs(p, gray, spanned, second_first)
    features = _of_pairs(over) | differences
    means = np.nanmean(np.array(list(features.values())), 1)
    found = dict(zip(features, np.split(means, len(means)), strict=True))
    return found | {"MCC": np.nanmean(_correlation_at_most(p, over)[None], 1).real}


Sums = dict[str, np.ndarray]
"""Sums by name, each of which has a value a direction (or one a level, too)."""

OVER_PAIRS: tuple[str, ...] = (
    "Autocorrelation", "Contrast", "JointEnergy", "row", "column", "together",
    "ClusterTendency", "ClusterShade", "ClusterProminence", "HXY1", "HXY2",
)  # fmt: skip
"""What `kernels.pair_sums` gives, in its order."""

OVER_LEVELS: tuple[str, ...] = (
    "SumAverage", "SumEntropy", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance",
    "Id", "Idm", "Idn", "Idmn", "InverseVariance",
)  # fmt: skip
"""What `kernels.level_sums` gives, in its order."""


def _over_pairs(
    p: np.ndarray, gray: np.ndarray, spanned: int, second_first: bool
) -> tuple[Sums, Sums]:
    """Sums over pairs, and features of the sums and differences of their levels."""
    directions, levels = p.shape[:2]
    level = gray.astype(float)
    px, py = np.zeros((directions, levels)), np.zeros((directions, levels))
    added, apart = np.zeros((directions, 2 * spanned - 1)), np.zeros((directions, spanned))
    means = np.zeros((3, directions))
    kernels.margins(p, np.log2(p + EPS), gray, level, px, py, added, apart, means)
    first, second = (1, 0) if second_first else (0, 1)
    away = np.arange(2, 2 * spanned + 1, dtype=float) - means[first, :, None]
    away -= means[second, :, None]
    raised = np.array([away**2, _raised(away, 3), _raised(away, 4)])
    both = px[:, :, None] * py[:, None, :]
    logs = np.log2(both + EPS)
    sums = np.zeros((len(OVER_PAIRS), directions))
    kernels.pair_sums(p, both, logs, gray, level, means, raised, second_first, sums)
    over: Sums = dict(zip(OVER_PAIRS, sums, strict=True))
    over["SumSquares"] = over["column" if second_first else "row"]
    over |= {"JointAverage": means[first], "JointEntropy": -means[2], "px": px, "py": py}
    over["MaximumProbability"] = p.max((1, 2))
    found = np.zeros((len(OVER_LEVELS), directions))
    kernels.level_sums(added, np.log2(added + EPS), apart, np.log2(apart + EPS), found)
    differences: Sums = dict(zip(OVER_LEVELS, found, strict=True))
    for name in ("SumEntropy", "DifferenceEntropy"):
        differences[name] = -differences[name]
    return over, differences


def _raised(values: np.ndarray, exponent: Literal[3, 4]) -> np.ndarray:
    return power(values.ravel(), exponent).reshape(values.shape)


def _of_pairs(over: Sums) -> Sums:
    """Features of the sums over pairs."""
    features = {name: over[name] for name in over if name[0].isupper() and "HXY" not in name}
    spread = over["row"] ** 0.5 * over["column"] ** 0.5
    correlation = over["together"] / (spread + EPS)
    correlation[spread == 0] = 1
    most = np.fmax(_entropy(over["px"]), _entropy(over["py"]))
    hxy, hxy1, hxy2 = over["JointEntropy"], -over["HXY1"], -over["HXY2"]
    imc1 = hxy - hxy1
    imc1[most != 0] /= most[most != 0]
    imc1[most == 0] = 0
    imc2 = (1 - np.e ** (-2 * (hxy2 - hxy))) ** 0.5
    imc2[hxy2 == hxy] = 0
    return features | {"Correlation": correlation, "Imc1": imc1, "Imc2": imc2}


def _entropy(margin: Float[np.ndarray, "d g"]) -> Float[np.ndarray, " d"]:
    # By levels, then directions: NumPy adds rows one after another.
    p = np.ascontiguousarray(margin.T)
    return -np.sum(p * np.log2(p + EPS), 0)


def _correlation_at_most(p: np.ndarray, over: Sums) -> np.ndarray:
    """Maximal correlation, from the second eigenvalue of a matrix a direction; may be complex."""
    if p.shape[1] < 2:
        return np.ones(len(p))
    q = np.empty(p.shape)
    for direction, shares in enumerate(p):
        kernels.quotients(shares, over["px"][direction], over["py"][direction], EPS, q[direction])
    values = np.linalg.eigvals(q)
    values.sort()
    return np.sqrt(values[:, -2])
