"""Estimated seconds: exact counts, measured unit costs on a clock that the test turns."""

from __future__ import annotations

import numpy as np
import pytest

from lens.settings import SweepConfig
from lens.verdicts import fitting_time, fold_mlp, held_out
from lens.verdicts.fitting_time import UnitCosts, Work, count_work, measure, seconds
from lens.verdicts.folds import make_folds
from tests.planted import plant

CONFIG = SweepConfig(hidden=4, l1=(0.0, 1e-6, 1e-5), l2=(0.0, 1e-5), epochs=9)


def test_work_of_the_default_grid() -> None:
    """24 pairs to epoch 7, then 8 to 22, 3 to 67 and 1 to 200; 5 folds, 2 encoders."""
    epochs = 24 * 7 + 8 * (22 - 7) + 3 * (67 - 22) + 1 * (200 - 67)
    assert count_work(5, 2, SweepConfig()) == Work(10, 10 * epochs, 10 * (24 + 8 + 3 + 1))
    assert count_work(4, 3, None) == Work(12, 0, 0)


def test_work_is_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(n=60, d=8)
    r, folds = planted.radiomics.iloc[:, 1:5].to_numpy(), make_folds(np.arange(60), 3, 1, 0)
    epochs, fits = [], []
    halve = fold_mlp.halve

    def counted(*args, **options):
        winner = halve(*args, **options)
        epochs.append(int(winner.table["epochs"].sum()))
        return winner

    monkeypatch.setattr(fold_mlp, "halve", counted)
    held_out.held_out_errors(
        planted.pre,
        {"t": planted.ft},
        r,
        np.arange(len(r)),
        folds,
        CONFIG,
        on_fit=lambda: fits.append(1),
    )
    work = count_work(3, 2, CONFIG)
    assert (len(fits), sum(epochs)) == (work.fits, work.epochs)


class Clock:
    """Seconds that pass only when a step is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(fitting_time, "perf_counter", made)
    return made


def test_unit_costs_are_the_seconds_of_each_step(clock: Clock) -> None:
    """Training takes two starts of 0.25 s and 0.5 s an epoch; the first call also compiles."""
    calls = []

    def train(epochs: int) -> None:
        clock.passes(2 * 0.25 + 0.5 * epochs + (0 if calls else 30.0))
        calls.append(epochs)

    costs = measure(lambda: clock.passes(3.0), train)
    np.testing.assert_allclose(costs, UnitCosts(fit=3.0, epoch=0.5, start=0.25))
    assert measure(lambda: clock.passes(2.0), None) == UnitCosts(2.0, 0.0, 0.0)


def test_the_estimate_is_the_sum_of_counts_times_costs(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probe takes 1 s to fit, a start 0.25 s and an epoch 0.5 s."""
    assert seconds(Work(2, 30, 4), UnitCosts(1.0, 0.1, 0.01)) == pytest.approx(2 + 3 + 0.04)
    planted = plant(n=60, d=8)
    r, folds = planted.radiomics.iloc[:, 1:5].to_numpy(), make_folds(np.arange(60), 3, 1, 0)
    probe = held_out.PROBES["per_channel"]

    class Slow:
        def fit(self, x: np.ndarray, r: np.ndarray):
            clock.passes(1.0)
            return probe.fit(x, r)

    def train_mlp(x, r, fold, sizes, config, *, seed):
        assert len(config.l1) == len(config.l2) == 1
        clock.passes(2 * 0.25 + 0.5 * config.epochs)

    monkeypatch.setattr(held_out, "PROBES", {"per_channel": Slow(), "one_scale": Slow()})
    monkeypatch.setattr(held_out, "train_mlp", train_mlp)
    work = count_work(3, 1 + 2, CONFIG)
    expected = 2.0 * work.fits + 0.5 * work.epochs + 0.25 * work.starts
    found = held_out.estimate_seconds(planted.pre, 2, r, folds, CONFIG)
    assert found == pytest.approx(expected)
    assert held_out.estimate_seconds(planted.pre, 2, r, folds, None) == pytest.approx(18.0)
