"""What the doctor plants: changes that must raise no alarm, and others that must be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, groupby
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from lens.settings import PlantedSettings
from lens.verdicts.planted_changes import (
    add_noise,
    amplify_small,
    dominate,
    gain,
    loudness,
    normal_noise,
    replace,
    rescale,
    rotate,
    shuffle,
    skewed_noise,
)

BATCH = 6
"""Planted changes whose held-out errors are in memory at once."""

Kind = Literal["harmless", "exchangeable", "erased", "damage"]
"""What the doctor makes of a change: see `lens.verdicts.doctor`."""

Make = Callable[[], np.ndarray]
"""Makes the embeddings of one side (n, d)."""


class PlantedChange(NamedTuple):
    """Two sides whose difference is known.

    Attributes:
        kind, change, dose: what it is, for the table.
        target: cluster of features that is erased, -1 for none.
        before, after: make the embeddings of either side.
    """

    kind: Kind
    change: str
    dose: float
    target: int
    before: Make
    after: Make


def plan(
    x: Float[np.ndarray, "n d"],
    erased: Mapping[int, Float[np.ndarray, "n _"]],
    groups: np.ndarray,
    settings: PlantedSettings,
    seed: int,
) -> list[PlantedChange]:
    """All changes that the doctor plants.

    Args:
        x: embeddings before fine-tuning.
        erased: target of an erasure -> the features that are erased.
        groups: patient of each row.
        settings: how much is planted.
        seed: of all random changes.
    """
    return [
        *_harmless(x, settings.maps, seed),
        *_damage(x, seed),
        *_erasures(x, erased, settings.doses, settings.noise, seed),
        *_exchangeable(x, groups, settings.draws, settings.noise, seed),
    ]


def count_changes(clusters: int, settings: PlantedSettings) -> list[int]:
    """Numbers of changes that `comparisons` makes of a `plan`, for a progress bar.

    Args:
        clusters: number of clusters of near copies, of which some are erased.
        settings: how much is planted.
    """
    nothing = np.zeros((0, 0))
    erased = dict.fromkeys(range(min(settings.clusters, clusters)), nothing)
    changes = plan(nothing, erased, np.zeros(0), settings, 0)
    return [len(batch) for batch in comparisons(changes)]


def comparisons(changes: Sequence[PlantedChange]) -> Iterator[list[PlantedChange]]:
    """The changes in batches of at most `BATCH` that have the same side before."""
    for _, same in groupby(changes, key=lambda change: change.before):
        group = list(same)
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]


def _harmless(x: np.ndarray, maps: int, seed: int) -> list[PlantedChange]:
    """Maps of the embeddings that have an inverse, and nothing at all."""

    def same() -> np.ndarray:
        return x

    def harmless(change: str, dose: float, make: Make) -> PlantedChange:
        return PlantedChange("harmless", change, dose, -1, same, make)

    seeds = range(seed, seed + maps)
    return [
        harmless("nothing", 0.0, same),
        *(harmless("scale", factor, partial(rescale, x, factor)) for factor in (0.5, 2.0)),
        *(harmless("rotation", 1.0, partial(rotate, x, each)) for each in seeds),
        *(harmless("gain per channel", 1.0, partial(gain, x, each)) for each in seeds),
        *(harmless("one direction x 30", 30.0, partial(dominate, x, each)) for each in seeds),
        harmless("small directions x 5", 5.0, partial(amplify_small, x)),
    ]


def _damage(x: np.ndarray, seed: int) -> list[PlantedChange]:
    """Changes that take a part of everything, or all of it."""

    def same() -> np.ndarray:
        return x

    makes = [("noise", share, partial(add_noise, x, share, seed)) for share in (0.5, 1.0)]
    makes.append(("rows of others", 1.0, partial(shuffle, x, seed)))
    return [PlantedChange("damage", change, dose, -1, same, make) for change, dose, make in makes]


def _erasures(
    x: np.ndarray,
    erased: Mapping[int, np.ndarray],
    doses: Sequence[float],
    noise: float,
    seed: int,
) -> list[PlantedChange]:
    """Every erasure with each dose; each side has noise of its own, so that neither has less."""
    wanted = [(target, dose) for target in erased for dose in doses]

    def erase(target: int, dose: float, draw: int) -> np.ndarray:
        changed = replace(x, erased[target], dose, draw)
        return changed + (noise * normal_noise(x, draw)).astype(x.dtype)

    before = partial(add_noise, x, noise, seed)
    return [
        PlantedChange("erased", "erased", dose, target, before, partial(erase, target, dose, draw))
        for draw, (target, dose) in enumerate(wanted, seed + 1)
    ]


def _exchangeable(
    x: np.ndarray, groups: np.ndarray, draws: int, noise: float, seed: int
) -> list[PlantedChange]:
    """Two sides with noise of the same kind, each drawn by itself: the draws are independent.

    Loud patients are the same ones on both sides.
    """

    def side(each: int, *, loud: int | None, skewed: bool) -> np.ndarray:
        own = skewed_noise(x, each) if skewed else normal_noise(x, each)
        factor = 1.0 if loud is None else loudness(groups, loud)[:, None]
        return (x + noise * factor * own).astype(x.dtype)

    seeds = count(seed)

    def draw(change: str, *, skewed: bool = False, loud: bool = False) -> PlantedChange:
        patients = next(seeds) if loud else None
        before, after = (
            partial(side, next(seeds), loud=patients, skewed=skewed) for _ in ("before", "after")
        )
        return PlantedChange("exchangeable", change, noise, -1, before, after)

    return [
        *(draw("other noise") for _ in range(draws)),
        *(draw("other noise, loud in 3% of patients", loud=True) for _ in range(draws)),
        *(draw("other noise, skewed", skewed=True) for _ in range(draws)),
    ]
