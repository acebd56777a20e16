"""Embeddings of many volumes: batched, compiled once, never more in memory than a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from tqdm import tqdm

from encoders.encoder import Encoder
from encoders.settings import INPUT_SHAPE

Volumes = Float[np.ndarray | Array, "n ..."] | Iterable[Float[np.ndarray | Array, "..."]]
Masks = Bool[np.ndarray | Array, "n ..."] | Iterable[Bool[np.ndarray | Array, "..."]]


def embed(
    encoder: Encoder,
    volumes: Volumes,
    *,
    masks: Masks | None = None,
    stages: Sequence[int] | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> Float[np.ndarray, "n f"]:
    """Embeddings of volumes, in batches.

    Args:
        encoder: the encoder; a 2D one reads slice by slice, and the embeddings are averaged; over a
            region, its feature maps.
        volumes: ``(N, D, H, W, C)``, or an iterable of ``(D, H, W, C)``, read batch by batch.
        masks: ``(N, D, H, W)``, or an iterable of ``(D, H, W)``: average over this region only.
        stages: which stages, from 1, side by side in the result; the last one if not given. The
            last stage passes the final LayerNorm, as in the paper, the others are plain means.
        batch_size: volumes per pass; the last batch is filled up so that one shape is compiled.
        progress: show a progress bar.

    Returns:
        Embeddings ``(N, f)``, float32; NaN where a mask is empty.

    Raises:
        ValueError: there is no volume, shapes or numbers differ, or there is no such stage.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it counts volumes and is at least 1")
    chosen = _check_stages(encoder, stages)
    total = len(volumes) if hasattr(volumes, "__len__") else None  # type: ignore[arg-type]
    if total is not None:
        batch_size = min(batch_size, max(total, 1))
    members = ((v, None) for v in volumes) if masks is None else zip(volumes, masks, strict=True)
    embeddings = []
    with tqdm(total=total, desc="embed", unit="volume", disable=not progress) as bar:
        while batch := list(islice(members, batch_size)):
            x = _filled([volume for volume, _ in batch], batch_size, np.float32)
            roi = None if masks is None else _filled([m for _, m in batch], batch_size, bool)
            embeddings.append(_embed_batch(encoder, chosen, x, roi)[: len(batch)])
            bar.update(len(batch))
    if not embeddings:
        raise ValueError("there is no volume to embed")
    return np.concatenate(embeddings)


def embed_windows(
    encoder: Encoder,
    volume: Float[np.ndarray | Array, "d h w c"],
    *,
    window: tuple[int, int, int] = INPUT_SHAPE,
    mask: Bool[np.ndarray, "d h w"] | None = None,
    stages: Sequence[int] | None = None,
) -> Float[np.ndarray, " f"]:
    """Embedding of one volume of any size, by windows that overlap by half.

    The feature maps of the windows are averaged where they overlap, then pooled as `embed` does.
    For a volume of the window's size the result is that of `embed`.

    Args:
        encoder: a 3D encoder.
        volume: at least as large as the window along each axis.
        window: (D, H, W) in voxels, multiples of the total stride.
        mask: average over this region only.
        stages: as in `embed`.

    Returns:
        The embedding; NaN where the mask is empty.
    """
    if encoder.config.dims == 2:
        raise ValueError("a 2D encoder reads slices; windows need a 3D encoder")
    chosen = _check_stages(encoder, stages)
    volume = np.asarray(volume, np.float32)
    strides = encoder.config.total_strides
    if any(size % strides[-1] for size in window):
        raise ValueError(f"window {window}; each side must be a multiple of {strides[-1]} voxels")
    # Whole strides, so that every window lies on the grids of all stages.
    shape = tuple(
        max(side, -(-size // strides[-1]) * strides[-1])
        for size, side in zip(volume.shape[:3], window, strict=True)
    )
    padded = _pad_to(volume, shape)
    region = _pad_to(np.ones(volume.shape[:3], bool) if mask is None else mask, shape)
    grids = [tuple(size // strides[stage - 1] for size in shape) for stage in chosen]
    widths = [encoder.config.widths[stage - 1] for stage in chosen]
    sums = [np.zeros((*grid, c), np.float32) for grid, c in zip(grids, widths, strict=True)]
    counts = [np.zeros((*grid, 1), np.float32) for grid in grids]
    axes = zip(shape, window, strict=True)
    for origin in product(*(_starts(size, side, strides[-1]) for size, side in axes)):
        part = padded[tuple(slice(c, c + side) for c, side in zip(origin, window, strict=True))]
        maps = encoder.stages(part[None])
        for stage, total, count in zip(chosen, sums, counts, strict=True):
            stride = strides[stage - 1]
            at = tuple(
                slice(c // stride, c // stride + side // stride)
                for c, side in zip(origin, window, strict=True)
            )
            total[at] += np.asarray(maps[stage - 1][0], np.float32)
            count[at] += 1
    means = tuple(jnp.asarray(s / c)[None] for s, c in zip(sums, counts, strict=True))
    return _pool(encoder, chosen, means, region[None])[0]


def roi_mean(
    features: Float[Array, "n *grid c"], mask: Bool[Array, "n ..."]
) -> Float[Array, "n c"]:
    """Mean of a feature map over a region given in voxels.

    Each position weighs as much as the share of its voxels that lies in the region, so that a
    lesion smaller than a position still counts. NaN where the region is empty.
    """
    grid = features.shape[1:-1]
    steps = [size // cells for size, cells in zip(mask.shape[1:], grid, strict=True)]
    mask = mask[:, *(slice(s * g) for s, g in zip(steps, grid, strict=True))]
    split = [part for pair in zip(grid, steps, strict=True) for part in pair]
    inner = tuple(range(2, 2 * len(grid) + 1, 2))
    weight = mask.astype(jnp.float32).reshape(mask.shape[0], *split).mean(axis=inner)[..., None]
    space = tuple(range(1, features.ndim - 1))
    return (features.astype(jnp.float32) * weight).sum(axis=space) / weight.sum(axis=space)


def _embed_batch(
    encoder: Encoder, stages: tuple[int, ...], x: np.ndarray, mask: np.ndarray | None
) -> np.ndarray:
    slices = encoder.config.dims == 2 and x.ndim == 5
    maps = encoder.stages(x.reshape(-1, *x.shape[2:]) if slices else x)
    chosen = tuple(maps[stage - 1] for stage in stages)
    if slices and mask is not None:
        # A region is averaged over all slices at once, each weighed by what it shows of it.
        chosen = tuple(each.reshape(*x.shape[:2], *each.shape[1:]) for each in chosen)
        return _pool(encoder, stages, chosen, mask)
    pooled = _pool(encoder, stages, chosen, mask)
    return pooled.reshape(*x.shape[:2], -1).mean(axis=1) if slices else pooled


def _pool(
    encoder: Encoder,
    stages: tuple[int, ...],
    maps: tuple[Array, ...],
    mask: Array | np.ndarray | None,
) -> np.ndarray:
    """The pooled stages side by side."""
    parts = []
    for stage, features in zip(stages, maps, strict=True):
        mean = _mean(features, mask)
        last = stage == len(encoder.config.widths)
        parts.append(encoder.normalise(mean) if last else mean)
    return np.concatenate(jax.device_get(parts), axis=-1)


@jax.jit
def _mean(features: Float[Array, "n *grid c"], mask: Array | None) -> Float[Array, "n c"]:
    space = tuple(range(1, features.ndim - 1))
    if mask is None:
        return features.astype(jnp.float32).mean(axis=space)
    return roi_mean(features, mask)


def _check_stages(encoder: Encoder, stages: Sequence[int] | None) -> tuple[int, ...]:
    count = len(encoder.config.widths)
    chosen = tuple(stages or (count,))
    if not set(chosen) <= set(range(1, count + 1)):
        raise ValueError(f"stages {chosen}; the encoder has stages 1 to {count}")
    return chosen


def _filled(members: list, size: int, dtype: type) -> np.ndarray:
    """The members stacked and filled up with zeros to `size` of them."""
    batch = np.zeros((size, *members[0].shape), dtype)
    for row, member in enumerate(members):
        if member.shape != batch.shape[1:]:
            raise ValueError(f"a volume of shape {member.shape} among {batch.shape[1:]}")
        batch[row] = member
    return batch


def _pad_to(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros behind each spatial axis up to `shape`."""
    margins = [(0, size - extent) for size, extent in zip(shape, array.shape, strict=False)]
    return np.pad(array, [*margins, *[(0, 0)] * (array.ndim - len(shape))])


def _starts(size: int, side: int, stride: int) -> Iterator[int]:
    """Starts of windows that cover `size`, half overlapping, on whole strides."""
    step = max(stride, side // 2 // stride * stride)
    yield from range(0, size - side, step)
    yield size - side
