"""How many directions an embedding uses, and what to say where they are hardly more than one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

NEARLY_ALL = 0.95
"""Share of the variance from which one direction holds nearly all of it, as after an over-trained
head, or with a channel of another size than all others. A classifier of a few well-told classes has
0.8 to 0.9, and what it says beside them can be read."""

NARROW = 4
"""Directions that an embedding has at most (dimensions, or patients less one) below which a low
effective rank is its size and no collapse."""


class Spectrum(NamedTuple):
    """Directions of an embedding over the rows of a study.

    Attributes:
        effective_rank: exponential of the entropy of the covariance's normalised eigenvalues, from
            1 to ``min(n - 1, d)`` (Roy and Vetterli 2007); 0 for an embedding without variance.
        leading: share of the variance in the direction of the largest.
        dead: channels that are constant.
    """

    effective_rank: float
    leading: float
    dead: int


def is_collapsed(leading: float, effective_rank: float) -> bool:
    """Whether an embedding says hardly more than one thing, or nothing at all (`Spectrum`)."""
    return leading >= NEARLY_ALL or effective_rank == 0


def spectrum(x: Float[np.ndarray, "n d"]) -> Spectrum:
    """Spectrum of an embedding; invariant to rotation, to one scale factor and to a shift."""
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    dead = int((np.abs(x).max(axis=0) == 0).sum())
    variances = np.linalg.eigvalsh(x.T @ x if x.shape[1] < len(x) else x @ x.T)
    # Eigenvalues that are zero come out as rounding of either sign.
    variances = variances[variances > 1e-12 * max(variances[-1], np.finfo(np.float64).tiny)]
    if not variances.size:
        return Spectrum(0.0, 0.0, dead)
    shares = variances / variances.sum()
    return Spectrum(float(np.exp(-(shares * np.log(shares)).sum())), float(shares[-1]), dead)


def spectrum_rows(
    x_pre: Float[np.ndarray, "n d"], x_ft: Mapping[str, Float[np.ndarray, "n e"]]
) -> list[dict[str, Any]]:
    """Spectrum of each side, as ``run.json`` keeps it.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it.

    Returns:
        Rows with ``task``, an empty text before fine-tuning; ``width``, the dimensions;
        ``effective_rank, leading`` of `Spectrum`; and ``collapsed`` (`is_collapsed`), never so of
        an embedding that is narrow by its size (`NARROW`).
    """
    rows = []
    for task, x in {"": x_pre, **x_ft}.items():
        found, most = spectrum(x), min(x.shape[1], len(x) - 1)
        collapsed = is_collapsed(found.leading, found.effective_rank) and most >= NARROW
        rows.append(
            {
                "task": task,
                "width": int(x.shape[1]),
                "effective_rank": found.effective_rank,
                "leading": found.leading,
                "collapsed": bool(collapsed),
            }
        )
    return rows


def spectrum_notes(
    x_pre: Float[np.ndarray, "n d"], x_ft: Mapping[str, Float[np.ndarray, "n e"]]
) -> tuple[str, ...]:
    """A sentence about each embedding that has collapsed; none where all use several directions.

    Args:
        x_pre: embeddings before fine-tuning.
        x_ft: task -> embeddings after it.
    """
    return tuple(collapse_sentence(row) for row in spectrum_rows(x_pre, x_ft) if row["collapsed"])


def collapse_sentence(row: Mapping[str, Any]) -> str:
    """What a row of `spectrum_rows` says of a collapsed embedding, without a full stop."""
    side = f"after fine-tuning on {row['task']}" if row["task"] else "before fine-tuning"
    return (
        f"The embeddings {side} have collapsed: their effective rank is "
        f"{row['effective_rank']:.1f} of {row['width']} dimensions, and one direction holds "
        f"{row['leading']:.1%} of their variance. What a probe reads from the rest is little more "
        "than rounding where that share is nearly all; look at the training before the verdicts"
    )
