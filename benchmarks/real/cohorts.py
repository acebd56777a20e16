"""Manifests of two real archives: breast ultrasound (BUSI) and hippocampus MR (Decathlon, task 4).

The split gives half of the patients to training, a tenth to the choice of the epoch, and the rest
to the test: a change must hold in patients whom fine-tuning did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from PIL import Image

from benchmarks.real.duplicates import ALIKE, groups, similarity
from benchmarks.real.jobs import job
from lens.files import write_json, write_table
from lens.study.split import split_patients

RATIO = (5, 1, 4)
"""Parts of train, val and test, in patients."""

REGIONS = ("anterior=1", "posterior=2")
"""Mask values of the hippocampus."""


def ultrasound(data: Path, out: Path, *, seed: int = 0) -> None:
    """Writes the manifest of the ultrasound study, and what its duplicates are.

    A row per lesion, ``study_id``. The archive names no patients: pictures that show the same
    (`benchmarks.real.duplicates`) are one ``patient_id``, so that they are in one part of the split
    and in one fold. ``area`` is the outlined area in thousand pixels.

    Args:
        data: folder with ``cases.csv``.
        out: manifest to write; ``duplicates.json`` lies beside it.
        seed: of the split.
    """
    cases = pd.read_csv(data / "cases.csv", dtype={"patient_id": str})
    pictures = [np.asarray(Image.open(data / name).convert("L")) for name in cases["image"]]
    group = groups(similarity(pictures))
    patients = [f"group-{number:03d}" for number in group]
    table = pd.DataFrame(
        {
            "patient_id": patients,
            "study_id": cases["patient_id"],
            "us": [str((data / name).resolve()) for name in cases["image"]],
            "lesion": [str((data / name).resolve()) for name in cases["mask"]],
            "diagnosis": cases["diagnosis"],
            "area": [outlined(data / name) / 1000 for name in cases["mask"]],
            "split": split_patients(patients, seed=seed, ratio=RATIO),
        }
    )
    write_table(table, out)
    write_json(out.with_name("duplicates.json"), duplicates(table))


def outlined(mask: Path) -> int:
    """Pixels of a lesion's outline."""
    return int(np.count_nonzero(np.asarray(Image.open(mask).convert("L"))))


def duplicates(table: pd.DataFrame) -> dict[str, float]:
    """Numbers of near duplicates in a manifest of lesions."""
    by_group = table.groupby("patient_id")
    size = by_group.size()
    return {
        "lesions": len(table),
        "groups": len(size),
        "threshold": ALIKE,
        "largest_group": int(size.max()),
        "lesions_with_a_duplicate": int(size[size > 1].sum()),
        "groups_of_both_diagnoses": int((by_group["diagnosis"].nunique() > 1).sum()),
    }


def hippocampus(data: Path, out: Path, *, seed: int = 0) -> None:
    """Writes the manifest of the hippocampus study with the volume of each hippocampus, in ml.

    Args:
        data: folder with ``images`` and ``labels``.
        out: manifest to write; ``failures.csv`` beside it names the files without a partner.
        seed: of the split.
    """
    found = ("--modalities", "mr", "--label", *REGIONS)
    listed = out.with_name("archive.csv")
    job("prepare", "decathlon", data, *found, "--out", listed)
    table = pd.read_csv(listed, dtype=str)
    # Paths in a manifest may be relative to its folder.
    table["volume_ml"] = [volume_ml(out.parent / path, (1, 2)) for path in table["mask"]]
    table["split"] = split_patients(table["patient_id"].tolist(), seed=seed, ratio=RATIO)
    write_table(table, out)


def volume_ml(mask: Path, values: Sequence[int]) -> float:
    """Volume in ml of the voxels of a mask file that hold one of these values."""
    image = sitk.ReadImage(str(mask))
    voxels = np.isin(sitk.GetArrayViewFromImage(image), list(values))
    return count_ml(voxels, image.GetSpacing())


def count_ml(region: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume in ml of the voxels of a region that are not zero.

    Args:
        region: any shape.
        spacing_mm: edges of a voxel.
    """
    return float(np.count_nonzero(region) * np.prod(spacing_mm) / 1000)


def subset(manifest: Path, out: Path, patients: int, *, seed: int = 0) -> None:
    """Writes a manifest of some patients, one study of each, drawn by seed.

    Args:
        manifest: of all.
        out: to write.
        patients: how many; all if there are fewer.
        seed: of the draw.
    """
    table = pd.read_csv(manifest, dtype={"patient_id": str, "study_id": str})
    first = table.drop_duplicates("patient_id")
    rows = np.random.default_rng(seed).permutation(len(first))[:patients]
    write_table(first.iloc[np.sort(rows)], out)
