"""Embeddings of many volumes: batched, compiled once, never more in memory than a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from tqdm import tqdm

from encoders.convnext import ConvNeXtV2


def embed(
    encoder: ConvNeXtV2,
    volumes: Float[np.ndarray | Array, "n ..."] | Iterable[Float[np.ndarray | Array, ...]],
    *,
    batch_size: int = 8,
    progress: bool = False,
) -> Float[np.ndarray, "n f"]:
    """Embeds volumes.

    Args:
        encoder: the encoder; a 2D one reads slice by slice, and the embeddings are averaged.
        volumes: ``(N, D, H, W, C)``, or an iterable of ``(D, H, W, C)``, read batch by batch.
        batch_size: volumes per pass; the last batch is filled up so that one shape is compiled.
        progress: show a progress bar.

    Returns:
        Embeddings ``(N, f)``, float32.

    Raises:
        ValueError: there is no volume, or their shapes differ.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it counts volumes and is at least 1")
    total = len(volumes) if hasattr(volumes, "__len__") else None  # type: ignore[arg-type]
    if total is not None:
        batch_size = min(batch_size, max(total, 1))
    graph, state = nnx.split(encoder)
    embeddings = []
    with tqdm(total=total, desc="embed", unit="volume", disable=not progress) as bar:
        for batch in batches(volumes, batch_size):
            filled = np.zeros((batch_size, *batch.shape[1:]), np.float32)
            filled[: len(batch)] = batch
            embeddings.append(np.asarray(_embed_batch(graph, state, filled))[: len(batch)])
            bar.update(len(batch))
    if not embeddings:
        raise ValueError("there is no volume to embed")
    return np.concatenate(embeddings)


def batches(
    volumes: Iterable[Float[np.ndarray | Array, ...]], size: int
) -> Iterator[Float[np.ndarray, "b ..."]]:
    """Stacks of `size` volumes, the last one smaller."""
    members = iter(volumes)
    while batch := list(islice(members, size)):
        yield np.stack([np.asarray(member, np.float32) for member in batch])


@partial(jax.jit, static_argnums=0)
def _embed_batch(graph: nnx.GraphDef, state: nnx.State, x: Array) -> Array:
    encoder = nnx.merge(graph, state)
    if encoder.config.dims == 2 and x.ndim == 5:
        slices = encoder(x.reshape(-1, *x.shape[2:]))
        return jnp.mean(slices.reshape(*x.shape[:2], -1), axis=1)
    return encoder(x)
