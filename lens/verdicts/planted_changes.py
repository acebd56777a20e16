"""Changes of an embedding whose effect is known: some must give no verdict, others must give one.

`rotate`, `rescale` and `gain` leave the information as it is; `shuffle` destroys all of it,
`add_noise` a part of everything, and `remove` that of chosen features by dose. `unchanged_noise`
and `other_noise` list the changes that the doctor plants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from lens.probes.ridge import RidgeProbe

_NEGLIGIBLE = 0.05
"""A direction of the predicted features with less than this share of the leading one's deviation is
rounding and noise of near copies."""


Kind = Literal["harmless", "exchangeable", "erased", "damage"]
"""What the doctor makes of a change: see `lens.verdicts.doctor`."""


class PlantedChange(NamedTuple):
    """One change of an embedding.

    Attributes:
        kind, change, dose: what it is, for the table.
        target: cluster of features that is erased, -1 for none.
        make: gives the changed embeddings (n, d).
    """

    kind: Kind
    change: str
    dose: float
    target: int
    make: Callable[[], np.ndarray]


def unchanged_noise(x: Float[np.ndarray, "n d"], draws: int, seed: int) -> list[PlantedChange]:
    """Harmless changes and damage, with the same noise as `x` itself.

    Args:
        x: embeddings.
        draws: of every change that is random.
        seed: of the first draw, counted on from there.
    """
    seeds = range(seed, seed + draws)
    shares, factors = (0.5, 1.0), (0.5, 2.0)

    def harmless(change: str, dose: float, make: Callable[[], np.ndarray]) -> PlantedChange:
        return PlantedChange("harmless", change, dose, -1, make)

    def damage(change: str, dose: float, make: Callable[[], np.ndarray]) -> PlantedChange:
        return PlantedChange("damage", change, dose, -1, make)

    return [
        harmless("nothing", 0.0, lambda: x),
        *(harmless("scale", factor, partial(rescale, x, factor)) for factor in factors),
        *(harmless("rotation", 1.0, partial(rotate, x, each)) for each in seeds),
        *(harmless("gain per channel", 1.0, partial(gain, x, each)) for each in seeds),
        *(damage("noise", share, partial(add_noise, x, share, seed)) for share in shares),
        damage("rows of others", 1.0, partial(shuffle, x, seed)),
    ]


def other_noise(
    x: Float[np.ndarray, "n d"],
    erased: Mapping[int, Float[np.ndarray, "n _"]],
    doses: Sequence[float],
    noise: float,
    draws: int,
    seed: int,
) -> list[PlantedChange]:
    """Exchangeable changes and erasures, each with added noise of its own.

    They are to be compared with ``add_noise(x, noise, seed)``, so that neither side has less noise.

    Args:
        x: embeddings.
        erased: target of an erasure -> the features that are erased.
        doses: of every erasure.
        noise: deviation of the noise over that of the channel.
        draws: of noise without an erasure.
        seed: of the noise of the side before, from which the others are counted on.
    """
    changes = [PlantedChange("exchangeable", "other noise", noise, -1, lambda: x)] * draws
    changes += [
        PlantedChange("erased", "erased", dose, target, partial(remove, x, features, dose))
        for target, features in erased.items()
        for dose in doses
    ]

    def with_noise(make: Callable[[], np.ndarray], each: int) -> np.ndarray:
        return make() + (add_noise(x, noise, each) - x)

    return [
        change._replace(make=partial(with_noise, change.make, each))
        for each, change in enumerate(changes, seed + 1)
    ]


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
    noise = np.random.default_rng(seed).normal(size=x.shape)
    return (x + share * x.std(axis=0) * noise).astype(x.dtype)


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
