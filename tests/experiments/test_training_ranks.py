"""Effective ranks of a job: of validation patients, and a collapse is told."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from flax import nnx

from encoders.collapse import stage_ranks
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import parameters
from encoders.volumes import CachedCohort
from experiments.common import training_ranks
from experiments.common.training_data import TrainingData
from experiments.common.training_ranks import effective_ranks
from lens.cohort import Cohort

VOLUMES = np.random.default_rng(0).normal(size=(80, 8, 8, 8, 1)).astype(np.float32)


class Watched:
    """Volumes that remember which rows were looked at."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __getitem__(self, row: int) -> np.ndarray:
        self.seen.add(int(row))
        return VOLUMES[row]

    def __len__(self) -> int:
        return len(VOLUMES)


def encoder(seed: int = 0) -> ConvNeXtV2:
    config = ConvNeXtV2Config(depths=(1, 1), widths=(8, 16), strides=(1,), in_channels=1)
    return ConvNeXtV2(config, rngs=nnx.Rngs(seed), stem_bias=0.3)


def data(**counts: int) -> TrainingData:
    split = np.repeat(list(counts), list(counts.values()))
    return TrainingData(CachedCohort((), (), Cohort.__new__(Cohort)), split, ())


def ranks(parts: TrainingData, volumes, after: ConvNeXtV2) -> dict:
    return effective_ranks(3, encoder(), after, volumes, parts, batch_size=8)


@pytest.mark.parametrize(
    ("counts", "part", "rows"),
    [
        ({"train": 30, "test": 10, "val": 40}, "val", set(range(40, 80))),
        ({"test": 40, "train": 40}, "train", set(range(40, 80))),
    ],
)
def test_whose_they_are(counts, part, rows, caplog):
    caplog.set_level(logging.INFO)
    volumes = Watched()
    found = ranks(data(**counts), volumes, encoder(1))
    assert volumes.seen == rows
    assert (found["patients"], found["n"]) == (part, 40)
    for key, seed in (("start", 0), ("end", 1)):
        assert found[key] == stage_ranks(encoder(seed), VOLUMES, np.arange(40, 80))
    (line,) = [record.getMessage() for record in caplog.records]
    listed = ", ".join(f"{rank:.1f}" for rank in found["end"])
    assert f"seed 3: effective rank of each stage over 40 {part} patients" in line
    assert line.endswith(f"{listed} after")


def test_at_most_so_many_patients(monkeypatch):
    monkeypatch.setattr(training_ranks, "MOST_PATIENTS", 10)
    volumes = Watched()
    assert ranks(data(test=40, val=40), volumes, encoder())["n"] == 10
    assert volumes.seen == set(range(40, 80, 4))


def test_a_collapse_is_told(caplog):
    after = encoder()
    scale = parameters(after)["norm.scale"]
    scale.set_value(0 * scale[...])
    found = ranks(data(train=40, val=40), VOLUMES, after)
    assert found["end"][-1] == 0 < found["start"][-1]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert line.startswith("seed 3: the embedding has collapsed: its effective rank is 0.0 of 16")
