"""Changes of an embedding whose effect is known: some must give no verdict, others must give one.

`rotate`, `rescale`, `gain`, `dominate` and `amplify_small` leave the information as it is;
`shuffle` destroys all of it, `add_noise` a part of everything, `remove` and `replace` that of
chosen features by dose. `normal_noise` and `skewed_noise` make two copies of an embedding that are
exchangeable: neither holds more. `lens.verdicts.doctor_plan` lists what the doctor plants.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lens.probes.ridge import SHARE, RidgeProbe

_NEGLIGIBLE = 0.05
"""A direction of the predicted features with less than this share of the leading one's deviation is
rounding and noise of near copies."""

LOUD = 0.03
"""Share of the patients whose noise `loudness` makes six to eight times as loud."""


def rotate(x: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n d"]:
    """The embeddings in another orthonormal basis, drawn uniformly."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(x.shape[1],) * 2))
    # QR has the signs of its own choosing; without them the draw is uniform.
    return (x @ (q * np.sign(np.diag(r)))).astype(x.dtype)


def rescale(x: Float[np.ndarray, "n d"], factor: float = 0.5) -> Float[np.ndarray, "n d"]:
    """The embeddings times one factor."""
    return (factor * x).astype(x.dtype)


def gain(x: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n d"]:
    """Every channel times a factor of its own, log-normal with a spread of e."""
    return (x * np.exp(np.random.default_rng(seed).normal(size=x.shape[1]))).astype(x.dtype)


def dominate(
    x: Float[np.ndarray, "n d"], seed: int, factor: float = 30.0
) -> Float[np.ndarray, "n d"]:
    """The embeddings with one direction, drawn uniformly, `factor` times as large."""
    direction = np.random.default_rng(seed).normal(size=x.shape[1])
    direction /= np.linalg.norm(direction)
    return (x + (factor - 1) * np.outer(x @ direction, direction)).astype(x.dtype)


def amplify_small(x: Float[np.ndarray, "n d"], factor: float = 5.0) -> Float[np.ndarray, "n d"]:
    """The embeddings with all but their leading principal directions `factor` times as large.

    The leading ones are as many as the third ridge view reads (`lens.probes.ridge.SHARE`). They are
    chosen without a look at the features: a choice by what ridge reads in these very patients would
    also take away what they correlate by chance, and be called a loss on that account.
    """
    centred = x - x.mean(axis=0, dtype=np.float64)
    _, _, vt = np.linalg.svd(centred, full_matrices=False)
    leading = vt[: max(1, int(SHARE * len(x)))]
    return (x + (factor - 1) * (centred - centred @ leading.T @ leading)).astype(x.dtype)


def shuffle(values: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n d"]:
    """The rows of other patients: a permuted table of embeddings or of radiomics."""
    return values[np.random.default_rng(seed).permutation(len(values))]


def add_noise(x: Float[np.ndarray, "n d"], share: float, seed: int) -> Float[np.ndarray, "n d"]:
    """Independent normal noise on every channel.

    Args:
        x: embeddings.
        share: deviation of the noise over that of the channel.
        seed: of the noise.
    """
    return (x + share * normal_noise(x, seed)).astype(x.dtype)


def normal_noise(x: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n d"]:
    """Independent normal noise with the deviation of each channel."""
    return x.std(axis=0) * np.random.default_rng(seed).normal(size=x.shape)


def skewed_noise(x: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n d"]:
    """Independent noise ``exp(2.5 z)``, z normal, with mean zero and the deviation of each channel.

    Most of a channel's noise is that of a few patients, who are other ones in every channel.
    """
    noise = np.exp(2.5 * np.random.default_rng(seed).normal(size=x.shape))
    return x.std(axis=0) * (noise - noise.mean(axis=0)) / noise.std(axis=0)


def loudness(groups: np.ndarray, seed: int) -> Float[np.ndarray, " n"]:
    """How loud the noise of each row is: 1, but 6 to 8 in a few patients (`LOUD`, at least one).

    Args:
        groups: patient of each row; all of a patient's rows are equally loud.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    patients, patient = np.unique(groups, return_inverse=True)
    factor = np.ones(len(patients))
    loud = rng.choice(len(patients), size=max(1, round(LOUD * len(patients))), replace=False)
    factor[loud] = rng.uniform(6, 8, size=len(loud))
    return factor[patient]


def remove(
    x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "n k"], dose: float = 1.0
) -> Float[np.ndarray, "n d"]:
    """Embeddings without the linear subspace from which some features are predicted, by dose.

    A linear map of `x` that shrinks, by `dose`, all that covaries with the ridge probe's
    predictions of the features; the rest stays. It is least-squares concept erasure (LEACE, Belrose
    et al. 2023) of the predicted features: of those, not of the features themselves, so that with
    more dimensions than patients it is still a map of the embedding.

    Args:
        x: embeddings.
        r: features to erase, such as the members of one cluster; finite.
        dose: 0 leaves `x` as it is, 1 leaves no covariance with the predicted features.

    Raises:
        ValueError: a dose outside 0 to 1.
    """
    if not 0 <= dose <= 1:
        raise ValueError(f"dose is {dose}, it must be between 0 and 1")
    deviation = r.std(axis=0)
    probe = RidgeProbe().fit(x, r / np.where(deviation > 0, deviation, 1.0))
    predicted = probe.predict(x)
    u, s, _ = np.linalg.svd(predicted - predicted.mean(axis=0), full_matrices=False)
    u = u[:, s > _NEGLIGIBLE * s[0]]
    centred = x - x.mean(axis=0, dtype=np.float64)
    return (x - dose * (u @ (u.T @ centred))).astype(x.dtype)


def replace(
    x: Float[np.ndarray, "n d"], r: Float[np.ndarray, "n k"], dose: float, seed: int
) -> Float[np.ndarray, "n d"]:
    """Embeddings in which what predicts some features is in part that of other patients.

    What `remove` takes out is put back in two parts, of which one has its rows shuffled, with
    variances ``1 - dose`` and ``dose``. Directions keep their variance, so that a reader needs no
    more patients than before: R2 falls by about the share `dose` because information is gone.

    Args:
        x: embeddings.
        r: features to erase; finite.
        dose: share of the R2 that goes, 0 to 1.
        seed: of the shuffle.
    """
    rest = remove(x, r, 1.0)
    part = x - rest
    return (rest + np.sqrt(1 - dose) * part + np.sqrt(dose) * shuffle(part, seed)).astype(x.dtype)
