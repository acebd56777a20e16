"""Seconds that the fits of all folds will take: counted steps times the measured cost of each."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from lens.probes.halving import rounds
from lens.settings import SweepConfig

PILOT = 10
"""Epochs trained to measure what one takes."""


class Work(NamedTuple):
    """How often each step is done.

    Attributes:
        fits: of every probe, once per fold and encoder.
        epochs: of one MLP, added up over penalty pairs, folds and encoders.
        starts: of the training of one MLP; a penalty pair that goes on to another round of
            `lens.probes.halving.halve` starts again.
    """

    fits: int
    epochs: int
    starts: int


class UnitCosts(NamedTuple):
    """Seconds of one step of each kind in `Work`."""

    fit: float
    epoch: float
    start: float


def count_work(folds: int, encoders: int, config: SweepConfig | None) -> Work:
    """Steps of `lens.verdicts.held_out.held_out_errors`.

    Args:
        folds: number of folds, all repeats together.
        encoders: number of encoders, the one before fine-tuning included.
        config: of the MLP; None leaves it out.
    """
    fits = folds * encoders
    if config is None:
        return Work(fits, 0, 0)
    schedule = rounds(len(config.l1_grid) * len(config.l2), config.epochs)
    reached = (0, *(goal for goal, _ in schedule))
    epochs = sum(
        pairs * (goal - last) for (goal, pairs), last in zip(schedule, reached, strict=False)
    )
    return Work(fits, fits * epochs, fits * sum(pairs for _, pairs in schedule))


def measure(fit_probes: Callable[[], object], train: Callable[[int], object] | None) -> UnitCosts:
    """Seconds of each step, from one fit of the probes and three short trainings of an MLP.

    Args:
        fit_probes: fits every probe once.
        train: trains one MLP for so many epochs, in two starts; None measures no training.
    """
    fit = _seconds(fit_probes)
    if train is None:
        return UnitCosts(fit, 0.0, 0.0)
    train(1)  # Compiles.
    short = _seconds(lambda: train(1))
    long = _seconds(lambda: train(1 + PILOT))
    epoch = max(long - short, 0.0) / PILOT
    return UnitCosts(fit, epoch, max(short - epoch, 0.0) / 2)


def seconds(work: Work, costs: UnitCosts) -> float:
    """Sum over the kinds of step of count times cost."""
    return sum(count * cost for count, cost in zip(work, costs, strict=True))


def _seconds(step: Callable[[], object]) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start
