"""Phantoms of which every visible property is drawn independently of the others.

A gland with a lesion on one small grid, on T2, high-b DWI and ADC. What varies between patients is
a short list of factors (`FACTORS`): as no two of them are correlated, a change of what an encoder
holds of one factor says nothing of the others, and each feature can be told by the factor that it
measures. The anatomy is far simpler than that of `lens.cohort.phantom`, and a thousand patients
are drawn in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from jaxtyping import Bool, Float32, Int16, Shaped
from tqdm import tqdm

from lens.cache import read_record
from lens.cohort.factor_images import FACTORS, draw
from lens.cohort.intensities import box_about, encoder_voxels, kind_of
from lens.cohort.prostate import MODALITIES, REGIONS
from lens.errors import InputError
from lens.files import atomic, write_json, write_table
from lens.formulas import read_csv

GENERATOR = 2
"""Raised whenever the same seed would give other images, so that old folders are not reused."""

SHAPE = (24, 32, 32)
"""Depth, height and width in voxels."""

SPACING_MM = (2.0, 2.0, 2.0)
"""Voxel size x, y, z."""

GRADES = {
    "lesion_grade": "dwi_contrast",
    "texture_grade": "t2_texture",
    "nodule_grade": "adc_nodularity",
    "level_grade": "adc_level",
}
"""Label column -> the one factor that it depends on: 1, 2 or 3, a third of the patients each."""

CLASSES = 3
"""Grades of each label."""


@dataclass(frozen=True)
class FactorPhantom:
    """One simulated patient, all arrays (D, H, W).

    Attributes:
        patient_id: ``factors-00000`` and so on.
        images: t2, dwi and adc as int16; ADC in 1e-6 mm2/s.
        masks: gland and lesion, the lesion inside the gland.
        spacing_mm: (x, y, z).
        factors: a value per name of `FACTORS`.
        grades: a grade per name of `GRADES`.
        volume_ml: of the gland mask.
    """

    patient_id: str
    images: dict[str, Int16[np.ndarray, "d h w"]]
    masks: dict[str, Bool[np.ndarray, "d h w"]]
    spacing_mm: tuple[float, float, float]
    factors: dict[str, float]
    grades: dict[str, int]
    volume_ml: float

    def volume(self) -> Float32[np.ndarray, "d h w c"]:
        """What an encoder sees, without units; channels as `MODALITIES`.

        Needs no image library, so that phantoms can be drawn where there is none.
        """
        box = box_about(self.masks["gland"].shape, self.spacing_mm, self.masks.values())
        seen = [
            encoder_voxels(self.images[name], name, kind_of(name), lambda: box)
            for name in MODALITIES
        ]
        return np.stack(seen, axis=-1)

    def labels(self) -> dict[str, str | int | float]:
        """``patient_id``, the factors, the grades and ``volume_ml``."""
        return {
            "patient_id": self.patient_id,
            **{name: round(value, 6) for name, value in self.factors.items()},
            **self.grades,
            "volume_ml": round(self.volume_ml, 3),
        }


def factor_phantom(
    index: int,
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> FactorPhantom:
    """Simulates patient `index` of the cohort drawn from `seed`; equal arguments, equal voxels.

    Args:
        index: position in the cohort, from 0.
        seed: of the cohort.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).

    Raises:
        InputError: the grid does not hold the largest gland (`factor_images.EXTENT_MM`).
    """
    rng = np.random.default_rng([seed, index])
    shares = dict(zip(FACTORS, rng.random(len(FACTORS)).tolist(), strict=True))
    factors = {name: factor.at(shares[name]) for name, factor in FACTORS.items()}
    images, masks = draw(factors, shape, spacing_mm, rng)
    return FactorPhantom(
        patient_id=f"factors-{index:05d}",
        # No voxel is zero, which would stand for padding.
        images={
            name: np.rint(np.clip(images[name], 1, 32_000)).astype(np.int16) for name in MODALITIES
        },
        masks={roi: masks[roi] for roi in REGIONS},
        spacing_mm=spacing_mm,
        factors=factors,
        grades={name: 1 + int(CLASSES * shares[factor]) for name, factor in GRADES.items()},
        volume_ml=float(masks["gland"].sum() * np.prod(spacing_mm) / 1000),
    )


def draw_volumes(
    indices: Iterable[int],
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> Float32[np.ndarray, "n d h w c"]:
    """What an encoder sees of these patients, without units; channels as `MODALITIES`.

    Equals `write_cohort` followed by `encoders.volumes.cache_cohort` on the same grid.
    """
    patients = (factor_phantom(index, seed, shape, spacing_mm) for index in indices)
    return np.stack([patient.volume() for patient in patients])


def draw_masks(
    indices: Iterable[int],
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    *,
    roi: str = "gland",
) -> Bool[np.ndarray, "n d h w"]:
    """The masks of a region of these patients."""
    patients = (factor_phantom(index, seed, shape, spacing_mm) for index in indices)
    return np.stack([patient.masks[roi] for patient in patients])


def draw_labels(
    indices: Iterable[int],
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> pd.DataFrame:
    """A row per patient: ``patient_id``, the factors, the grades and ``volume_ml``."""
    patients = (factor_phantom(index, seed, shape, spacing_mm) for index in indices)
    return pd.DataFrame([patient.labels() for patient in patients])


def draw_all(
    indices: Sequence[int],
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> tuple[Float32[np.ndarray, "n d h w c"], Bool[np.ndarray, "n d h w"], pd.DataFrame]:
    """`draw_volumes`, `draw_masks` of the gland and `draw_labels`, each patient drawn once."""
    volumes = np.empty((len(indices), *shape, len(MODALITIES)), np.float32)
    glands = np.empty((len(indices), *shape), bool)
    rows = []
    for place, index in enumerate(indices):
        patient = factor_phantom(index, seed, shape, spacing_mm)
        volumes[place], glands[place] = patient.volume(), patient.masks["gland"]
        rows.append(patient.labels())
    return volumes, glands, pd.DataFrame(rows)


def write_cohort(
    folder: Path,
    n: int,
    seed: int,
    first: int = 0,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    progress: bool = True,
) -> Path:
    """Writes patients `first` to ``first + n - 1``: images, masks and the manifest ``cohort.csv``.

    The manifest has the columns ``patient_id,t2,dwi,adc,gland,lesion``, the factors, the grades and
    ``volume_ml``. A folder that already holds this very cohort, complete, is left as it is. The
    manifest is written last, so that it only ever describes files that exist.

    Args:
        folder: created where needed.
        n: number of patients.
        seed: of the cohort.
        first: index of the first patient.
        shape: (D, H, W) in voxels.
        spacing_mm: (x, y, z).
        progress: show a progress bar.

    Returns:
        The path of the manifest.

    Raises:
        InputError: `n` is not positive, the grid is too small, or the folder holds a manifest of
            another origin.
    """
    if n < 1:
        raise InputError(f"{n} phantoms: at least one is needed")
    manifest, record = folder / "cohort.csv", folder / "phantoms.json"
    if manifest.exists():
        if not record.exists():
            raise InputError(
                f"{manifest}: a manifest that was not written here. Choose another folder"
            )
        if is_written(folder, n, seed, first, shape=shape, spacing_mm=spacing_mm):
            return manifest
        manifest.unlink()
    rows = []
    indices = range(first, first + n)
    for index in tqdm(indices, desc="phantoms", unit="patient", disable=not progress):
        rows.append(_write(factor_phantom(index, seed, shape, spacing_mm), folder))
    write_json(record, _made_as(n, seed, first, shape, spacing_mm))
    write_table(pd.DataFrame(rows), manifest)
    return manifest


def is_written(
    folder: Path,
    n: int,
    seed: int,
    first: int = 0,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
) -> bool:
    """Whether a folder holds this very cohort, complete, as `write_cohort` leaves it."""
    manifest, record = folder / "cohort.csv", folder / "phantoms.json"
    if not manifest.exists() or read_record(record) != _made_as(n, seed, first, shape, spacing_mm):
        return False
    table = read_csv(manifest, dtype=str, keep_default_na=False)
    named = table[[*MODALITIES, *REGIONS]].to_numpy().ravel()
    return all((folder / name).is_file() for name in named)


def _made_as(
    n: int, seed: int, first: int, shape: Sequence[int], spacing_mm: Sequence[float]
) -> dict[str, str | int | list[int] | list[float]]:
    return {
        "generator": f"factors-{GENERATOR}",
        "n": n,
        "seed": seed,
        "first": first,
        "shape": [int(size) for size in shape],
        "spacing_mm": [float(mm) for mm in spacing_mm],
    }


def _write(patient: FactorPhantom, folder: Path) -> dict[str, str | int | float]:
    """Writes the files of one patient and gives the row of the manifest."""
    files = {name: f"{patient.patient_id}/{name}.mha" for name in (*MODALITIES, *REGIONS)}
    masks = {roi: mask.astype(np.uint8) for roi, mask in patient.masks.items()}
    for name, voxels in (patient.images | masks).items():
        with atomic(folder / files[name]) as temporary:
            # Compression only pays for masks; the noise of the images does not shrink.
            sitk.WriteImage(_image(voxels, patient.spacing_mm), str(temporary), name in masks)
    return {"patient_id": patient.patient_id, **files} | patient.labels()


def _image(
    voxels: Shaped[np.ndarray, "d h w"], spacing_mm: tuple[float, float, float]
) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing_mm)
    half = (np.array(image.GetSize()) - 1) * np.array(spacing_mm) / 2
    image.SetOrigin((-half).tolist())
    return image
