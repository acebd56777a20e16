"""Cases of the size that clinical prostate MRI has, as files in a folder of its own each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

IMAGES = ("t2", "dwi", "adc", "gland")

SIZES = {"t2": (384, 384, 24), "dwi": (84, 128, 24), "adc": (84, 128, 24)}
"""Voxels (x, y, z) of phantoms: at 0.5 x 0.5 x 3 mm, and 2 x 2 x 3 mm of DWI and ADC."""


def write_cases(folder: Path, count: int, study: dict[str, Path]) -> dict[str, str]:
    """Writes ``<case>/<name>.nii.gz``, and tells what they are.

    Args:
        folder: for the cases.
        count: how many.
        study: t2, dwi, adc and gland of a real study, which the cases repeat with noise of one
            unit; empty for phantoms that are widened to `SIZES`.
    """
    images: dict[str, sitk.Image] = {}
    for index in range(count):
        place = folder / f"case-{index:03d}"
        place.mkdir(parents=True)
        images = _copy(study, index) if study else _phantom(index)
        for name, image in images.items():
            sitk.WriteImage(image, place / f"{name}.nii.gz")
    size = {
        name: " x ".join(map(str, image.GetSize()))
        + " voxels of "
        + " x ".join(f"{edge:.3g}" for edge in image.GetSpacing())
        + " mm"
        for name, image in images.items()
    }
    gland_ml = sitk.GetArrayViewFromImage(images["gland"]).sum() * np.prod(
        images["gland"].GetSpacing()
    )
    source = "one real study, noise added" if study else "phantoms"
    return {"source": source, "gland_ml_of_last": f"{gland_ml / 1000:.1f}", **size}


def bytes_of(folder: Path, count: int) -> float:
    """Bytes of a case on disk, mean."""
    files = [path for path in folder.glob("case-*/*.nii.gz") if path.is_file()]
    return sum(path.stat().st_size for path in files) / count


def _copy(study: dict[str, Path], index: int) -> dict[str, sitk.Image]:
    rng = np.random.default_rng(index)
    made = {}
    for name, path in study.items():
        image = sitk.ReadImage(path)
        if name != "gland":
            values = sitk.GetArrayFromImage(image)
            noisy = sitk.GetImageFromArray(
                np.maximum(values + rng.integers(-1, 2, values.shape), 0).astype(values.dtype)
            )
            noisy.CopyInformation(image)
            image = noisy
        made[name] = image
    return made


def _phantom(index: int) -> dict[str, sitk.Image]:
    from lens.cohort.geometry import sample, sample_mask, target_grid
    from lens.cohort.phantom import phantom

    patient = phantom(index, 0)
    fine = target_grid(patient.images["t2"], (0.5, 0.5, 3.0))
    images = patient.images | {"t2": sample(patient.images["t2"], fine)}
    made = {
        name: sitk.Cast(sitk.MirrorPad(image, *_missing(image, SIZES[name])), sitk.sitkInt16)
        for name, image in images.items()
    }
    gland = sample_mask(patient.masks["gland"], fine)
    return made | {"gland": sitk.ConstantPad(gland, *_missing(gland, SIZES["t2"]), 0)}


def _missing(image: sitk.Image, size: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Voxels to add below and above."""
    missing = [max(0, n - k) for n, k in zip(size, image.GetSize(), strict=True)]
    low = [n // 2 for n in missing]
    return low, [n - k for n, k in zip(missing, low, strict=True)]
