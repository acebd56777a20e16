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
from encoders.settings import INPUT_SHAPE, Tokens
from encoders.slices import reads_slices

Volumes = Float[np.ndarray | Array, "n ..."] | Iterable[Float[np.ndarray | Array, "..."]]
Masks = Bool[np.ndarray | Array, "n ..."] | Iterable[Bool[np.ndarray | Array, "..."]]

SLICES = 16
"""Most slices that an encoder of images reads at once."""


def embed(
    encoder: Encoder,
    volumes: Volumes,
    *,
    masks: Masks | None = None,
    stages: Sequence[int] | None = None,
    tokens: Tokens | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> Float[np.ndarray, "n f"]:
    """Embeddings of volumes, in batches.

    Args:
        encoder: the encoder; a 2D one reads slice by slice, and the embeddings are averaged; over a
            region, its feature maps.
        volumes: ``(N, D, H, W, C)``, or an iterable of ``(D, H, W, C)``, read batch by batch.
        masks: ``(N, D, H, W)``, or an iterable of ``(D, H, W)``: average over this region only;
            of a 2D encoder over the region in all slices that it meets.
        stages: which stages, from 1, side by side in the result; the last one if not given. The
            last stage passes the final LayerNorm, as in the paper, the others are plain means.
        tokens: of a ViT, the ``class`` token or the mean of the ``patches``; as its configuration
            says if not given. With masks, ``class`` averages the tokens of the slices that the
            region meets, and the default is the patches in it.
        batch_size: volumes per pass; the last batch is filled up so that one shape is compiled.
        progress: show a progress bar.

    Returns:
        Embeddings ``(N, f)``, float32; NaN where a mask is empty.

    Raises:
        ValueError: there is no volume, shapes or numbers differ, or there is no such stage or no
            class token.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it counts volumes and is at least 1")
    chosen = _check_stages(encoder, stages)
    _check_tokens(encoder, stages, tokens)
    total = len(volumes) if hasattr(volumes, "__len__") else None  # type: ignore[arg-type]
    if total is not None:
        batch_size = min(batch_size, max(total, 1))
    if masks is not None and tokens == "patches":
        tokens = None  # the patches in the region are the default
    members = ((v, None) for v in volumes) if masks is None else zip(volumes, masks, strict=True)
    embeddings = []
    with tqdm(total=total, desc="embed", unit="volume", disable=not progress) as bar:
        while batch := list(islice(members, batch_size)):
            x = _filled([volume for volume, _ in batch], batch_size, np.float32)
            roi = None if masks is None else _filled([m for _, m in batch], batch_size, bool)
            embeddings.append(_embed_batch(encoder, chosen, x, roi, tokens)[: len(batch)])
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
    sums, weights = roi_sum(features, mask)
    return sums / weights[:, None]


def roi_sum(
    features: Float[Array, "n *grid c"], mask: Bool[Array, "n ..."]
) -> tuple[Float[Array, "n c"], Float[Array, " n"]]:
    """The weighted sum of `roi_mean`, and the sum of its weights."""
    grid = features.shape[1:-1]
    steps = [size // cells for size, cells in zip(mask.shape[1:], grid, strict=True)]
    mask = mask[:, *(slice(s * g) for s, g in zip(steps, grid, strict=True))]
    split = [part for pair in zip(grid, steps, strict=True) for part in pair]
    inner = tuple(range(2, 2 * len(grid) + 1, 2))
    weight = mask.astype(jnp.float32).reshape(mask.shape[0], *split).mean(axis=inner)
    space = tuple(range(1, features.ndim - 1))
    sums = (features.astype(jnp.float32) * weight[..., None]).sum(axis=space)
    return sums, weight.sum(axis=space)


def _embed_batch(
    encoder: Encoder,
    stages: tuple[int, ...],
    x: np.ndarray,
    mask: np.ndarray | None,
    tokens: Tokens | None,
) -> np.ndarray:
    if reads_slices(encoder, x):
        if mask is None or tokens == "class":
            return _mean_of_slices(encoder, stages, x, mask, tokens)
        return _region_of_slices(encoder, stages, x, mask)
    if mask is None or tokens == "class":
        return _whole(encoder, stages, x, tokens)
    maps = encoder.stages(x)
    return _pool(encoder, stages, tuple(maps[stage - 1] for stage in stages), mask)


def _whole(
    encoder: Encoder, stages: tuple[int, ...], x: np.ndarray, tokens: Tokens | None
) -> np.ndarray:
    """Embeddings of whole images or volumes."""
    if tokens is not None:
        return np.asarray(encoder.summary(x, tokens))  # type: ignore[attr-defined]
    if stages == (len(encoder.config.widths),):
        return np.asarray(encoder(x))
    maps = encoder.stages(x)
    return _pool(encoder, stages, tuple(maps[stage - 1] for stage in stages), None)


def _mean_of_slices(
    encoder: Encoder,
    stages: tuple[int, ...],
    x: np.ndarray,
    mask: np.ndarray | None,
    tokens: Tokens | None,
) -> np.ndarray:
    """Mean over the slices of each volume, or over those that its region meets."""
    met = np.ones(x.shape[:2], bool) if mask is None else _met(mask)
    parts = [
        _whole(encoder, stages, images, tokens)[: len(rows)] for rows, images in _chunks(x, met)
    ]
    return _by_volume(parts, met) / _count(met)


def _region_of_slices(
    encoder: Encoder, stages: tuple[int, ...], x: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Mean of the stages' maps over a region that reaches through slices."""
    met = _met(mask)
    regions = mask.reshape(-1, *mask.shape[2:])
    sums: list[list[np.ndarray]] = [[] for _ in stages]
    weights: list[list[np.ndarray]] = [[] for _ in stages]
    for rows, images in _chunks(x, met):
        region = np.zeros((len(images), *regions.shape[1:]), bool)
        region[: len(rows)] = regions[rows]
        maps = encoder.stages(images)
        for index, stage in enumerate(stages):
            total, weight = jax.device_get(_roi_sum(maps[stage - 1], region))
            sums[index].append(total[: len(rows)])
            weights[index].append(weight[: len(rows), None])
    parts = []
    for stage, total, weight in zip(stages, sums, weights, strict=True):
        # Zero weight: the region is empty, or lies in the remainder that is cut; NaN, as promised.
        divisor = _by_volume(weight, met)
        mean = _by_volume(total, met) / np.where(divisor > 0, divisor, np.nan)
        last = stage == len(encoder.config.widths)
        parts.append(np.asarray(encoder.normalise(jnp.asarray(mean))) if last else mean)
    return np.concatenate(parts, axis=-1)


def _met(mask: np.ndarray) -> np.ndarray:
    """Which slices of each volume its region meets, (n, D)."""
    return np.asarray(mask.any(axis=(2, 3)))


def _chunks(x: np.ndarray, met: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and images of the slices that are read, filled up so that one shape is compiled."""
    images, rows = x.reshape(-1, *x.shape[2:]), np.flatnonzero(met)
    size = min(SLICES, len(images))
    # An empty region still tells how wide an embedding is.
    for start in range(0, max(len(rows), 1), size):
        chosen = rows[start : start + size]
        batch = np.zeros((size, *images.shape[1:]), np.float32)
        batch[: len(chosen)] = images[chosen]
        yield chosen, batch


def _by_volume(parts: list[np.ndarray], met: np.ndarray) -> np.ndarray:
    """Sums over the slices of each volume."""
    rows = np.concatenate(parts)
    sums = np.zeros((len(met), rows.shape[1]), np.float32)
    np.add.at(sums, np.nonzero(met)[0], rows)
    return sums


def _count(met: np.ndarray) -> np.ndarray:
    """Slices of each volume, NaN for none."""
    counts = met.sum(axis=1, keepdims=True).astype(np.float32)
    return np.where(counts > 0, counts, np.float32(np.nan))


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


_roi_sum = jax.jit(roi_sum)


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


def _check_tokens(encoder: Encoder, stages: Sequence[int] | None, tokens: Tokens | None) -> None:
    if tokens is None:
        return
    if not hasattr(encoder, "summary"):
        raise ValueError(f"tokens {tokens}: {type(encoder).__name__} has no class token")
    if stages:
        raise ValueError(f"tokens {tokens}: stages are maps of patches; leave one of them out")


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
