"""The cohorts of the real studies, from the archives as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from benchmarks.real import cohorts
from benchmarks.real.duplicates import groups, similarity

KNOWN = ("benign-081", "benign-197", "malignant-118", "malignant-119", "benign-214", "benign-260")
"""Three pairs that anyone sees to be one lesion, one after another."""


def test_pictures_of_one_lesion_are_grouped_and_others_are_not(real_data: Path) -> None:
    from PIL import Image

    folder = real_data / "busi" / "images"
    alone = ("benign-001", "benign-010", "benign-101")
    pictures = [
        np.asarray(Image.open(folder / f"{name}.png").convert("L")) for name in (*KNOWN, *alone)
    ]
    found = groups(similarity(pictures))
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 5]


def test_hippocampus_volumes_are_those_of_the_masks(real_data: Path, tmp_path: Path) -> None:
    cohorts.hippocampus(real_data / "hippocampus", tmp_path / "cohort.csv")
    table = pd.read_csv(tmp_path / "cohort.csv")
    assert len(table) == 260
    assert set(table["split"]) == {"train", "val", "test"}
    aside = pd.read_csv(tmp_path / "failures.csv")["patient_id"]
    assert set(aside) == {"hippocampus_010", "hippocampus_118", "hippocampus_281"}
    first = table.iloc[0]
    mask = sitk.ReadImage(str(tmp_path / first["mask"]))
    voxels = int((sitk.GetArrayFromImage(mask) > 0).sum())
    assert first["volume_ml"] == voxels * np.prod(mask.GetSpacing()) / 1000
    # A human hippocampus has two to five millilitres.
    assert table["volume_ml"].between(2, 5).all()
