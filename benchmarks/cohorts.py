"""Planted cohorts whose truth is known, with what makes real radiomics hard.

Radiomic features are made from latent factors with noise; embeddings are linear mixes of the
factors with noise. A *family* says what is unusual: skewed or outlying features, heavy-tailed or
dead channels, several studies of a patient, a shift between sites, missing values. The mixing and
the basis of the noise are the same before and after fine-tuning, so that two sides with equal
factors are exchangeable: neither holds more information.

`draw` makes a cohort of a family, `draw_clusters` one whose features have near copies,
`draw_losses` one whose features lose parts of a size that is known, `harmless_maps` changes of an
embedding that take nothing away. `benchmarks.judged_cohorts` has the lens judge them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

LATENTS = 12
"""Latent factors of a cohort."""

NOISE = 2.0
"""Deviation of an embedding's noise; a factor adds one unit to every channel."""


Numbers = Sequence[float] | np.ndarray


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
        mixing: what a unit of each factor adds to the embedding before, channel scale included
            (`LATENTS`, d).
        noise: deviation of each channel's noise there, channel scale included (d,).
    """

    pre: np.ndarray
    ft: np.ndarray
    r: np.ndarray
    groups: np.ndarray
    factor: np.ndarray
    true_r2: np.ndarray
    mixing: np.ndarray
    noise: np.ndarray


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
        loud: share of the patients who are six to eight times as far out as others, in all of their
            features and in their embeddings alike. (One factor for both: with a factor each, the
            embeddings say next to nothing of the features, and no test can be wrong.)
    """

    name: str
    features: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda r, rng: r
    embeddings: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda x, rng: x
    noise: Callable[[np.random.Generator, tuple[int, int]], np.ndarray] = lambda rng, shape: (
        rng.normal(size=shape)
    )
    studies: Callable[[np.random.Generator, int], np.ndarray] = lambda rng, n: np.ones(n, int)
    site: bool = False
    missing: float = 0.0
    loud: float = 0.0


def draw(
    family: Family,
    size: Size,
    seed: int,
    *,
    kept: Numbers | None = None,
    true_r2: Numbers | None = None,
    noise: float = NOISE,
) -> Cohort:
    """A cohort before and after fine-tuning.

    Args:
        family: what is unusual.
        size: of the cohort.
        seed: of everything but the mixing.
        kept: share of each latent factor that is left after fine-tuning; None leaves all, so that
            the sides are exchangeable.
        true_r2: of each feature given its factor; None spreads it from 0.2 to 0.9.
        noise: deviation of the embeddings' noise.
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
    share = np.linspace(0.2, 0.9, size.k) if true_r2 is None else np.asarray(true_r2)
    rest = rng.normal(size=(size.n, size.k))[groups]
    if several:
        rest = np.sqrt(0.8) * rest + np.sqrt(0.2) * rng.normal(size=rest.shape)
    r = latent[:, factor] * np.sqrt(share) + rest * np.sqrt(1 - share)
    left = np.ones(LATENTS) if kept is None else np.asarray(kept)
    sides = np.stack(
        [
            factors @ mixing + noise * family.noise(rng, (len(groups), size.d))
            for factors in (latent, latent * left)
        ]
    )
    if family.site:
        second = (groups >= size.n // 2)[:, None]
        r = r + second * rng.normal(size=size.k)
        sides = sides + second * 2 * rng.normal(size=size.d)
    if family.loud:
        out = rng.uniform(size=size.n) < family.loud
        times = np.where(out, rng.uniform(6, 8, size=size.n), 1.0)[groups, None]
        r, sides = r * times, sides * times
    # Channels of unequal size, as embeddings have them.
    channel = np.exp(0.5 * rng.normal(size=size.d))
    sides = family.embeddings(sides * channel, rng)
    r = family.features(r, rng)
    if family.missing:
        r = np.where(rng.uniform(size=r.shape) < family.missing, np.nan, r)
    pre, ft = sides.astype(np.float32)
    return Cohort(pre, ft, r, groups, factor, share, mixing * channel, noise * channel)


@dataclass(frozen=True)
class ClusterCohort:
    """A cohort of near copies, some of which lose a part.

    Attributes:
        cohort: the cohort.
        cluster: of each feature.
        touched: features that hold a part of the erased factor: the first of each cluster, its
            medoid by design, and a monotone copy of it.
    """

    cohort: Cohort
    cluster: np.ndarray
    touched: np.ndarray


def draw_clusters(
    size: Size, seed: int, *, clusters: int = 10, own: float = 0.045
) -> ClusterCohort:
    """Clusters of near copies, the medoid of each with a part of a factor that is erased.

    Every cluster is about one factor of its own, and all of its members are that factor with a
    small own part, uncorrelated between members and, but for the medoid's, not in the embedding.
    The medoid's is the last factor, which is erased after fine-tuning. Monotone copies of the
    medoid (rising) and of another member (falling) are among them. Absolute rank correlations
    within a cluster are above 0.9.

    Args:
        size: of the cohort; its features are shared out among the clusters.
        seed: of everything but the mixing.
        clusters: fewer than `LATENTS`.
        own: share of the variance that is a medoid's own; the other members' is a third larger, so
            that the medoid is the closest to all.
    """
    kept = np.r_[np.ones(LATENTS - 1), 0.0]
    plain = draw(GAUSSIAN, replace(size, k=LATENTS), seed, kept=kept, true_r2=np.ones(LATENTS))
    rng = np.random.default_rng((seed, 1))
    members = size.k // clusters
    columns = []
    for common in plain.r.T[:clusters]:
        rest = rng.normal(size=(members - 2, size.n)) * np.sqrt(4 / 3 * own)
        rest[0] = plain.r[:, -1] * np.sqrt(own)
        parts = np.sqrt(1 - np.r_[own, np.full(members - 3, 4 / 3 * own)])[:, None] * common + rest
        columns += [*parts, np.exp(parts[0]), -np.exp(parts[1])]
    position = np.tile(np.arange(members), clusters)
    cluster = np.repeat(np.arange(clusters), members)
    cohort = replace(
        plain, r=np.stack(columns, axis=1), factor=cluster, true_r2=np.ones(len(columns))
    )
    return ClusterCohort(cohort, cluster, (position == 0) | (position == members - 2))


Way = Literal["erased", "fading"]


def draw_losses(size: Size, seed: int, way: Way, share: Numbers, left: Numbers) -> Cohort:
    """A cohort whose features are in `LATENTS` sorts by turns, each with a loss of its own.

    Args:
        size: of the cohort.
        seed: of everything but the mixing.
        way: ``erased``: every feature is made from two factors, the second of which is gone from
            the embedding after fine-tuning, so that more patients would not bring it back;
            ``fading``: all features of a sort are made from one factor, which grows weaker beside
            the noise of the embedding, so that more patients could read more of it.
        share: by sort, what factors explain of a feature.
        left: by sort, what is left: share of the feature's factors that is not gone, or size of the
            factor over what it was.
    """
    plain, sort = replace(size, k=LATENTS), np.arange(size.k) % LATENTS
    turn = np.arange(size.k) // LATENTS
    whole, explained = np.ones(LATENTS), np.asarray(share)[sort]
    gone = np.arange(LATENTS) >= LATENTS - 3
    kept = np.where(gone, 0.0, 1.0) if way == "erased" else np.asarray(left)
    cohort = draw(GAUSSIAN, plain, seed, kept=kept, true_r2=whole)
    if way == "erased":
        stays = np.asarray(left)[sort]
        made = cohort.r[:, turn % 9] * np.sqrt(stays)
        made += cohort.r[:, 9 + turn % 3] * np.sqrt(1 - stays)
    else:
        made = cohort.r[:, sort]
    rest = np.random.default_rng((seed, 3)).normal(size=made.shape)
    r = made * np.sqrt(explained) + rest * np.sqrt(1 - explained)
    return replace(cohort, r=r, factor=sort, true_r2=explained)


def harmless_maps(cohort: Cohort, seed: int) -> dict[str, np.ndarray]:
    """Linear maps (d, e) of the embedding before that take no information away.

    Each has rank d, so that a linear reader with enough patients reads exactly what it read before;
    `population_r2` confirms it. A direction is *signal-free* where no factor adds to it.
    """
    rng = np.random.default_rng((seed, 2))
    d = cohort.pre.shape[1]
    one = np.eye(d)
    gain = np.diag(np.exp(rng.normal(size=d)))
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    signal = np.linalg.qr(cohort.mixing.T)[0]
    direction = rng.normal(size=d)
    direction /= np.linalg.norm(direction)
    along = np.outer(direction, direction)
    copied = rng.permutation(d)[: d // 2]
    # The covariance of the population; that of a sample would know its patients.
    values, vectors = np.linalg.eigh(_covariance(cohort))
    whitening = vectors / np.sqrt(values)
    return {
        "rotation": rotation,
        "permutation of channels": one[rng.permutation(d)],
        "scale": 0.5 * one,
        "gain per channel": gain,
        "signal-free directions x 5": one + 4 * (one - signal @ signal.T),
        "one direction x 30": one + 29 * along,
        "one direction x 1000": one + 999 * along,
        "gain, then rotation": gain @ rotation,
        "random matrix": rng.normal(size=(d, d)),
        "whitening": whitening,
        "half of the channels 8 times": np.hstack([one, *[one[:, copied]] * 7]),
    }


def population_r2(cohort: Cohort, change: np.ndarray | None = None) -> np.ndarray:
    """R2 of every feature by ridge on the embedding before, with patients without end.

    With patients without end the best penalty is none, and R2 is ``c' S^+ c`` for the covariance
    ``S = A'A + N`` of the embedding, A the mixing and N the noise, and ``c`` that of a factor with
    it; times what the factor explains of the feature. Holds for families that do not distort
    embeddings.

    Args:
        cohort: a cohort.
        change: linear map of the embedding (d, e); None for the embedding itself.
    """
    # With S = L L' and the map T, c'T (T'ST)^+ T'c is the part of L^-1 c in the range of L'T.
    root = np.linalg.cholesky(_covariance(cohort))
    whitened = np.linalg.solve(root, cohort.mixing.T)
    if change is not None:
        mapped = root.T @ change
        values, vectors = np.linalg.eigh(mapped @ mapped.T)
        whitened = vectors[:, values > 1e-14 * values[-1]].T @ whitened
    return cohort.true_r2 * np.square(whitened).sum(axis=0)[cohort.factor]


def _covariance(cohort: Cohort) -> np.ndarray:
    """Of the embedding before, in the population (d, d)."""
    return cohort.mixing.T @ cohort.mixing + np.diag(np.square(cohort.noise))


def _t(df: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Features as quantiles of Student's t: monotone, with its tails."""
    from scipy import stats

    return lambda r, rng: stats.t.ppf(stats.norm.cdf(r), df)


def _collinear(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the channels are near copies of the other half."""
    half = x.shape[2] // 2
    copies = x[:, :, :half] * rng.uniform(0.5, 2, half)
    return np.concatenate([x[:, :, :half], copies + 1e-3 * x[:, :, half : 2 * half]], axis=2)


def _dead(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A third of the channels are constant."""
    return np.where(rng.uniform(size=x.shape[2]) < 1 / 3, 1.5, x)


GAUSSIAN = Family("Gaussian")
OUTLYING = Family("3% outlying patients", loud=0.03)
SKEWED = Family("exp(2.5 g) features", features=lambda r, rng: np.exp(2.5 * r))
FOUR_STUDIES = Family("4 studies a patient", studies=lambda rng, n: np.full(n, 4))

PLAIN = (
    GAUSSIAN,
    Family(
        "heteroscedastic", features=lambda r, rng: r * np.exp(0.5 * rng.normal(size=(len(r), 1)))
    ),
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
    Family("features of a few levels", features=lambda r, rng: np.round(r)),
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

BY_NAME = {family.name: family for family in (*FAMILIES, *SMALL)}
