"""Planted cohorts whose truth is known, with what makes real radiomics hard.

Radiomic features are made from latent factors with noise; embeddings are linear mixes of the
factors with noise. A *family* says what is unusual: skewed or outlying features, heavy-tailed or
dead channels, several studies of a patient, a shift between sites, missing values. The mixing and
the basis of the noise are the same before and after fine-tuning, so that two sides with equal
factors are exchangeable: neither holds more information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

LATENTS = 12
"""Latent factors of a cohort."""

NOISE = 2.0
"""Deviation of an embedding's noise; a factor adds one unit to every channel."""


@dataclass(frozen=True)
class Size:
    """Size of a cohort and of its cross-validation."""

    n: int = 200
    """Patients."""
    d: int = 128
    """Width of the embedding."""
    k: int = 80
    """Radiomic features."""
    folds: int = 5
    """Parts of the K-fold."""
    repeats: int = 1
    """Repeats of the K-fold."""


@dataclass(frozen=True)
class Cohort:
    """A planted cohort.

    Attributes:
        pre, ft: embeddings before and after (n, d).
        r: radiomic features (n, k), NaN where missing.
        groups: patient of each row.
        factor: latent factor of each feature.
        true_r2: of each feature given its factor, before any distortion.
    """

    pre: np.ndarray
    ft: np.ndarray
    r: np.ndarray
    groups: np.ndarray
    factor: np.ndarray
    true_r2: np.ndarray


@dataclass(frozen=True)
class Family:
    """What is unusual about a cohort.

    Attributes:
        name: for tables.
        features: distorts the features (n, k), column by column, with a random generator.
        embeddings: distorts both embeddings alike, side by side (2, n, d): rows and channels are
            those of either side, noise is already in.
        noise: draws an embedding's noise (n, d) of about unit variance.
        studies: draws the number of studies of each patient.
        site: features and embeddings of a second half of the patients are shifted.
        missing: share of the features' values that are missing.
    """

    name: str
    features: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda r, rng: r
    embeddings: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda x, rng: x
    noise: Callable[[np.random.Generator, tuple[int, int]], np.ndarray] = (
        lambda rng, shape: rng.normal(size=shape)
    )
    studies: Callable[[np.random.Generator, int], np.ndarray] = lambda rng, n: np.ones(n, int)
    site: bool = False
    missing: float = 0.0


def draw(
    family: Family,
    size: Size,
    seed: int,
    *,
    kept: np.ndarray | None = None,
    true_r2: np.ndarray | None = None,
) -> Cohort:
    """A cohort before and after fine-tuning.

    Args:
        family: what is unusual.
        size: of the cohort.
        seed: of everything but the mixing.
        kept: share of each latent factor that is left after fine-tuning; None leaves all, so that
            the sides are exchangeable.
        true_r2: of each feature given its factor; None spreads it from 0.2 to 0.9.
    """
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(10_000).normal(size=(LATENTS, size.d))
    studies = family.studies(rng, size.n)
    groups = np.repeat(np.arange(size.n), studies)
    # Studies of a patient are alike: most of what differs, differs between patients.
    own = rng.normal(size=(size.n, LATENTS))[groups]
    several = studies.max() > 1
    latent = np.sqrt(0.8) * own + np.sqrt(0.2) * rng.normal(size=own.shape) if several else own
    factor = np.arange(size.k) % LATENTS
    true_r2 = np.linspace(0.2, 0.9, size.k) if true_r2 is None else true_r2
    noise = rng.normal(size=(size.n, size.k))[groups]
    if several:
        noise = np.sqrt(0.8) * noise + np.sqrt(0.2) * rng.normal(size=noise.shape)
    r = latent[:, factor] * np.sqrt(true_r2) + noise * np.sqrt(1 - true_r2)
    left = np.ones(LATENTS) if kept is None else np.asarray(kept)
    sides = np.stack(
        [
            factors @ mixing + NOISE * family.noise(rng, (len(groups), size.d))
            for factors in (latent, latent * left)
        ]
    )
    if family.site:
        second = (groups >= size.n // 2)[:, None]
        r = r + second * rng.normal(size=size.k)
        sides = sides + second * 2 * rng.normal(size=size.d)
    # Channels of unequal size, as embeddings have them.
    sides = family.embeddings(sides * np.exp(0.5 * rng.normal(size=size.d)), rng)
    r = family.features(r, rng)
    if family.missing:
        r = np.where(rng.uniform(size=r.shape) < family.missing, np.nan, r)
    pre, ft = sides.astype(np.float32)
    return Cohort(pre, ft, r, groups, factor, true_r2)


def _t(df: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Features as quantiles of Student's t: monotone, with its tails."""
    from scipy import stats

    return lambda r, rng: stats.t.ppf(stats.norm.cdf(r), df)


def _outlying_patients(r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In 3% of the patients every feature is six to eight times as large."""
    out = np.flatnonzero(rng.uniform(size=len(r)) < 0.03)
    factor = np.ones(len(r))
    factor[out] = rng.uniform(6, 8, size=len(out))
    return r * factor[:, None]


def _outlying_sides(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In 3% of the patients the embedding is six to eight times as far out, on both sides."""
    out = np.flatnonzero(rng.uniform(size=x.shape[1]) < 0.03)
    factor = np.ones(x.shape[1])
    factor[out] = rng.uniform(6, 8, size=len(out))
    return x * factor[:, None]


def _collinear(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the channels are near copies of the other half."""
    half = x.shape[2] // 2
    copies = x[:, :, :half] * rng.uniform(0.5, 2, half)
    return np.concatenate([x[:, :, :half], copies + 1e-3 * x[:, :, half : 2 * half]], axis=2)


def _dead(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A third of the channels are constant."""
    return np.where(rng.uniform(size=x.shape[2]) < 1 / 3, 1.5, x)


GAUSSIAN = Family("Gaussian")
OUTLYING = Family("3% outlying patients", features=_outlying_patients, embeddings=_outlying_sides)
SKEWED = Family("exp(2.5 g) features", features=lambda r, rng: np.exp(2.5 * r))
FOUR_STUDIES = Family("4 studies a patient", studies=lambda rng, n: np.full(n, 4))

PLAIN = (
    GAUSSIAN,
    Family("heteroscedastic", features=lambda r, rng: r * np.exp(0.5 * rng.normal(size=(len(r), 1)))),
    Family("near-collinear channels", embeddings=_collinear),
    Family("dead channels", embeddings=_dead),
    Family("site shift in both tables", site=True),
    Family("15% missing", missing=0.15),
)
HARD = (
    Family("lognormal features", features=lambda r, rng: np.exp(r)),
    SKEWED,
    Family("features t with 2 df", features=_t(2)),
    Family("nearly binary features", features=lambda r, rng: (r > 1).astype(float) + 1e-3 * r),
    OUTLYING,
    Family("embedding noise t with 3 df", noise=lambda rng, s: rng.standard_t(3, s) / np.sqrt(3)),
)
CLUSTERED = (
    FOUR_STUDIES,
    Family("1 to 15 studies a patient", studies=lambda rng, n: rng.integers(1, 16, n)),
)
FAMILIES = (*PLAIN, *HARD, *CLUSTERED)

SMALL = (
    replace(GAUSSIAN, name="Gaussian, n = 60, d = 256"),
    replace(HARD[0], name="lognormal features, n = 60, d = 256"),
)
"""Families that are also drawn with few patients."""
