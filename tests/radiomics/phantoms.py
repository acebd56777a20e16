"""Small textured volumes with an ellipsoid inside, as cases and as files on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from lens.cohort import Case

SHAPE = (20, 28, 28)
"""Slices, rows, columns."""


def ellipsoid(centre=(10, 14, 14), radii=(4, 7, 6), shape=SHAPE) -> np.ndarray:
    grid = np.indices(shape)
    distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
    return (distance <= 1).astype(np.uint8)  # pyright: ignore[reportAttributeAccessIssue]


def texture(seed: int, *, mean=1200.0, sd=200.0, shape=SHAPE) -> np.ndarray:
    """Noise, correlated over a few voxels, in whole units."""
    noise = np.random.default_rng(seed).normal(size=shape)
    for axis in range(3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    return np.round(mean + sd * noise / noise.std()).astype(np.float32)


def image(array: np.ndarray, *, spacing=(1.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0)) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    return made


def case(seed: int = 0, *, lesion: bool = True, **geometry) -> Case:
    masks = {"gland": ellipsoid()}
    if lesion:
        masks["lesion"] = ellipsoid((10, 12, 12), (2, 3, 3))
    return Case(
        patient_id="phantom",
        study_id=None,
        images={
            "t2": image(texture(seed), **geometry),
            "adc": image(texture(seed + 1), **geometry),
        },
        masks={roi: image(mask, **geometry) for roi, mask in masks.items()},
        notes=(),
    )


def write_cohort(folder: Path, patients: list[str], *, lesions: tuple[str, ...] = ()) -> Path:
    """A manifest with T2, gland and, for `lesions`, a lesion; each patient with its own texture."""
    folder.mkdir(exist_ok=True)
    rows = []
    for seed, patient in enumerate(patients):
        files = {"t2": texture(10 + seed), "gland": ellipsoid()}
        if patient in lesions:
            files["lesion"] = ellipsoid((10, 12, 12), (2, 3, 3))
        row = {"patient_id": patient}
        for name, array in files.items():
            row[name] = f"{patient}_{name}.nii.gz"
            sitk.WriteImage(image(array), folder / row[name])
        rows.append(row)
    manifest = folder / "cohort.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return manifest


def direct(volume: sitk.Image, mask: sitk.Image, file: Path) -> dict[str, float]:
    """The features as PyRadiomics' documentation shows it: no crop, no tricks; one thread."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    from lens.radiomics.engine import one_thread

    # The mean of an image, and so its normalisation, depends on how threads share its sum.
    with one_thread():
        values = RadiomicsFeatureExtractor(str(file)).execute(volume, mask)
    return {n: float(v) for n, v in values.items() if not n.startswith("diagnostics_")}
