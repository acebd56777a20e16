"""Mask values select regions in training as in the other jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro

from experiments.common.training_data import read_data
from experiments.finetune import Config as FinetuneConfig
from experiments.pretrain import Config as PretrainConfig
from lens.errors import InputError
from tests.cohort.builders import ball, image, noise, write

SIZE = (12, 24, 24)
COMMON = ("--shape", "12", "24", "24", "--spacing", "1", "1", "2", "--label")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with one mask of two values, and a class."""
    folder = tmp_path_factory.mktemp("two")
    values = ball(SIZE, 10) + ball(SIZE, 6)
    rows = []
    for number in range(6):
        write(image(noise(SIZE, number)), folder / f"{number}.mha")
        write(image(values.astype(np.uint8)), folder / f"{number}-mask.mha")
        cells = {"t1w": f"{number}.mha", "mask": f"{number}-mask.mha", "grade": "ab"[number % 2]}
        rows.append({"patient_id": f"P{number}", **cells})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


def masks(config: PretrainConfig | FinetuneConfig, *regions: str) -> list[int]:
    """Voxels of the regions of the first patient that is trained on."""
    cached = read_data(config).cached
    assert cached.cohort.rois == regions
    return [int(np.asarray(cached.masks(roi)[np.array([0])]).sum()) for roi in regions]


def test_labels_make_the_regions_of_every_training_job(manifest: Path, tmp_path: Path) -> None:
    inner = int(ball(SIZE, 6).sum())
    rim = int(ball(SIZE, 10).sum()) - inner
    cache = ("--cache", str(tmp_path / "volumes"))
    here = ("--cohort", str(manifest), "--out", str(tmp_path), *cache, *COMMON)
    two = ("rim=1", "core=2")
    config = tyro.cli(PretrainConfig, args=[*here, *two])
    assert masks(config, "rim", "core") == [rim, inner]
    config = tyro.cli(PretrainConfig, args=[*here, "rim=2", "core=1"])
    assert masks(config, "rim", "core") == [inner, rim], "not those that the cache has"
    learnt = ["--task", "classification", "--mask-labels", *two]
    config = tyro.cli(FinetuneConfig, args=[*here, "grade", *learnt])
    assert (config.target, masks(config, "rim", "core")) == ("grade", [rim, inner])
    config = tyro.cli(FinetuneConfig, args=[*here, "core=2", "--task", "segmentation"])
    assert (config.target, masks(config, "core")) == ("core", [inner])
    learnt = ["--task", "segmentation", "--mask-labels", *two]
    config = tyro.cli(FinetuneConfig, args=[*here, "rim", *learnt])
    assert (config.target, masks(config, "rim", "core")) == ("rim", [rim, inner])
    config = tyro.cli(FinetuneConfig, args=[*here, "rim=1", *learnt])
    with pytest.raises(InputError, match="labels of rim are given twice"):
        read_data(config)
