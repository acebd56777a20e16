"""Known changes to plant in an embedding or a table: what must give nothing, and what must show.

Of these, `rotate`, `rescale` and `gain` leave the information as it is; `shuffle` destroys all of
it, `add_noise` some of everything, and `remove` that of chosen features by dose. A randomly
re-initialised encoder needs no function: its embeddings are one more ``--ft``.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lens.probes.ridge import predict, ridge

_NEGLIGIBLE = 0.05
"""A direction of the predicted features with less than this share of the leading one's deviation is
rounding and noise of near copies."""


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
    """Takes the linear subspace that tells some features out of the embeddings.

    A linear map of `x` that shrinks, by `dose`, all that covaries with what the ridge probe
    predicts of the features; the rest stays. It is least-squares concept erasure (LEACE, Belrose et
    al. 2023) of the predicted features: those, not the features themselves, so that with more
    dimensions than patients it is still a map of the embedding.

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
    predicted = predict(ridge(x, r / np.where(deviation > 0, deviation, 1.0)), x)
    u, s, _ = np.linalg.svd(predicted - predicted.mean(axis=0), full_matrices=False)
    u = u[:, s > _NEGLIGIBLE * s[0]]
    centred = x - x.mean(axis=0, dtype=np.float64)
    return (x - dose * (u @ (u.T @ centred))).astype(x.dtype)
