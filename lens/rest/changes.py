"""The change of an embedding in one fold, in a frame that needs no channels in common.

Two encoders may have other widths, and channels that are turned, mixed or scaled. So the change is
what a linear reader of one embedding cannot tell of the other:

- **new**: the embedding after fine-tuning less its prediction from the one before;
- **gone**: the embedding before less its prediction from the one after;
- **difference**: channel by channel after less before, where the channels are the same, after the
  scale factor that makes it smallest.

Of new and gone, the features are treated alike: what is left of a feature after its prediction from
the same embedding. A feature that was read in part before and wholly after is all of the change in
it; the feature as it is would be told apart from it by the part that had been there.

**Floor.** With more channels than patients no reader predicts an embedding perfectly even from
itself. The floor is what the same reader leaves of the *same* embedding, its principal components
given the variances of the other's: of one that holds nothing else. Where the channels were turned
or scaled alike, new and gone are exactly the floor.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lens.rest.fits import Tally, fit_rows
from lens.verdicts.folds import Fold

RANK = 1e-6
"""Singular values below this share of the largest are rounding: embeddings come in float32."""

FAR = 3.0
"""Distances of the row in the middle from which a row is brought back."""

SIZES = ["target", "floor"]


class Turned(NamedTuple):
    """A centred embedding along its principal axes over all rows: ``u s``; its channels ``u s v``.

    Which axes are taken sees no held-out row's features; it decides which parts have a penalty
    of their own.
    """

    u: Float[np.ndarray, "n r"]
    s: Float[np.ndarray, " r"]
    v: Float[np.ndarray, "r d"]

    @property
    def rows(self) -> Float[np.ndarray, "n r"]:
        """The centred embedding, turned."""
        return self.u * self.s


class Change(NamedTuple):
    """A change in one fold, all by fits without the row's patient.

    Attributes:
        target: what changed, by row; zero in rows that have no part in the fold.
        features: what may tell it, in standard deviations of the features.
        again: the same change in encoders that were fine-tuned from other seeds.
        spent: degrees of freedom that the fits took from the target.
    """

    target: Float[np.ndarray, "n q"]
    features: Float[np.ndarray, "n k"]
    again: tuple[Float[np.ndarray, "n _"], ...]
    spent: float = 0.0


def pulled_in(x: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n d"], int]:
    """An embedding whose far rows are brought back towards its middle, and how many these are.

    A row further from the median of the channels than `FAR` times the row in the middle comes back
    to that distance, in its own direction: its square counts as `FAR` squared rows, and not as
    hundreds. Neither a rotation nor one scale factor makes much of a difference to who is far.
    """
    x = x.astype(np.float64)
    centred = x - np.median(x, axis=0)
    length = np.linalg.norm(centred, axis=1)
    most = FAR * np.median(length)
    far = (length > most) & (most > 0)
    factor = np.where(far, most / np.where(length > 0, length, 1.0), 1.0)
    return x - centred * (1.0 - factor)[:, None], int(far.sum())


def turned(x: Float[np.ndarray, "n d"]) -> Turned:
    """Principal axes, without those whose variance is rounding."""
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    noise = np.finfo(np.float32).eps * np.abs(x).max(initial=0.0) * np.sqrt(max(x.shape))
    kept = s > max(RANK * s.max(initial=0.0), noise)
    return Turned(u[:, kept], s[kept], v[kept])


def unpredicted(
    source: Turned,
    target: Turned,
    again: Sequence[Turned],
    features: Float[np.ndarray, "n k"],
    groups: np.ndarray,
    fold: Fold,
    sizes: Tally,
) -> Change:
    """What one embedding does not tell of another, and of the features.

    Args:
        source: embedding that predicts.
        target: embedding that is predicted.
        again: other embeddings that are, too.
        features: of the fold, without missing values.
        groups: patient of each row.
        fold: whose fitted rows are fitted.
        sizes: of `SIZES`; gets the errors of the target and of its floor.
    """
    parts = [target.rows, _floor(source, target), features, *(each.rows for each in again)]
    fit = fit_rows(source.rows, np.concatenate(parts, axis=1), fold)
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    own = [fit.of(slice(a, b)) for a, b in itertools.pairwise(ends)]
    for name, part, each in zip(SIZES, parts, own, strict=False):
        total = np.square(part - each.mean).sum(axis=1)
        sizes.add(name, each, part, total, groups, fold)
    left = [
        each.residuals(part, groups, fold)
        for at, (part, each) in enumerate(zip(parts, own, strict=True))
        if at != 1
    ]
    return Change(left[0], left[1], tuple(left[2:]), own[0].spent())


def differences(
    before: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
    again: Sequence[Float[np.ndarray, "n d"]],
    features: Float[np.ndarray, "n k"],
    fold: Fold,
) -> Change:
    """Channel by channel, after less before at the scale that makes it smallest.

    The scale and the means are those of the fitted rows.
    """

    def less(x: np.ndarray) -> np.ndarray:
        one, other = (each - each[fold.fitted].mean(axis=0) for each in (before, x))
        a, b = one[fold.fitted], other[fold.fitted]
        power = np.square(a).sum()
        return other - (np.sum(a * b) / power if power > 0 else 0.0) * one

    return Change(less(after), features, tuple(less(x) for x in again))


def same_channels(before: Float[np.ndarray, "n d"], after: Float[np.ndarray, "n e"]) -> bool:
    """Whether channels with the same number go along, as those of one encoder do.

    The mean correlation of a channel with its namesake is at least `NAMESAKES`, and further above
    that with the next channels than chance would put it.
    """
    if before.shape != after.shape:
        return False
    one, other = (_standard(x.astype(np.float64)) for x in (before, after))
    n, d = one.shape
    own = float(np.einsum("nd,nd->d", one, other).mean() / n)
    others = [
        float(np.einsum("nd,nd->d", one, np.roll(other, k, axis=1)).mean() / n)
        for k in range(1, min(d, 20))
    ]
    return own >= max(NAMESAKES, max(others, default=-1.0) + float(n * d) ** -0.5)


NAMESAKES = 0.1
"""Least mean correlation of channels with the same number, of embeddings that share channels."""


def _standard(x: np.ndarray) -> np.ndarray:
    deviation = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def _floor(source: Turned, target: Turned) -> Float[np.ndarray, "n r"]:
    """The source's own components with the target's variances, the largest with the largest."""
    count = min(len(source.s), len(target.s))
    return source.u[:, :count] * target.s[:count]
