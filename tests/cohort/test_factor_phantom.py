"""The phantoms of independent factors: reproducible, uncorrelated, and measured by radiomics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy.stats import rankdata

from encoders.volumes import cache_cohort
from lens.cohort import read_manifest
from lens.cohort.factor_images import FACTORS, Drawn, draw
from lens.cohort.factor_phantom import (
    GRADES,
    SHAPE,
    SPACING_MM,
    draw_all,
    draw_labels,
    draw_masks,
    draw_volumes,
    factor_phantom,
    is_written,
    write_cohort,
)
from lens.cohort.prostate import MODALITIES, REGIONS
from lens.errors import InputError

SEED = 3
COARSE = {"shape": (16, 24, 24), "spacing_mm": (3.0, 3.0, 3.0)}


def test_equal_seeds_give_equal_voxels() -> None:
    one, again = factor_phantom(7, SEED), factor_phantom(7, SEED)
    for name in one.images:
        np.testing.assert_array_equal(one.images[name], again.images[name])
    assert one.factors == again.factors
    for index, seed in ((8, SEED), (7, SEED + 1)):
        assert factor_phantom(index, seed).factors != one.factors


def test_labels_are_what_the_masks_and_factors_say() -> None:
    labels = draw_labels(range(30), SEED)
    glands = draw_masks(range(30), SEED)
    lesions = draw_masks(range(30), SEED, roi="lesion")
    assert np.all(glands[lesions])
    assert lesions.any(axis=(1, 2, 3)).all()
    volume_ml = glands.sum(axis=(1, 2, 3)) * np.prod(SPACING_MM) / 1000
    np.testing.assert_allclose(labels["volume_ml"], volume_ml, atol=1e-3)
    # The mask counts whole voxels of 8 mm3.
    np.testing.assert_allclose(labels["volume_ml"], labels["gland_volume"], rtol=0.03)
    for grade, factor in GRADES.items():
        share = labels[factor].map(FACTORS[factor].share)
        np.testing.assert_array_equal(labels[grade], 1 + np.floor(3 * share.to_numpy() - 1e-9))


def test_no_two_factors_go_together_and_all_grades_are_as_frequent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Factors and grades are drawn before any voxel, which 2,000 patients are spared here."""
    seen = draw_labels(range(3), SEED, **COARSE)

    def voxel(factors: dict[str, float], *_: object) -> Drawn:
        one = np.ones((1, 1, 1))
        images = dict.fromkeys(MODALITIES, one.astype(np.float32))
        return Drawn(images, dict.fromkeys(REGIONS, one > 0))

    monkeypatch.setattr("lens.cohort.factor_phantom.draw", voxel)
    table = draw_labels(range(2000), SEED, **COARSE)
    told = [*FACTORS, *GRADES]
    pd.testing.assert_frame_equal(table.loc[:2, told], seen[told])
    correlation = np.corrcoef(table[[*FACTORS]].to_numpy().T)
    np.fill_diagonal(correlation, 0)
    # Of 28 correlations of 2,000 independent pairs the largest is below 0.1 but once in 10,000.
    assert np.abs(correlation).max() < 0.1
    for grade in GRADES:
        share = table[grade].value_counts(normalize=True)
        assert share.min() > 0.29
        assert len(share) == 3


@pytest.mark.parametrize("grid", [{}, COARSE])
def test_arrays_equal_what_is_read_from_files(tmp_path: Path, grid: dict) -> None:
    manifest = write_cohort(tmp_path / "cohort", 3, SEED, first=5, progress=False, **grid)
    shape, spacing = grid.get("shape", SHAPE), grid.get("spacing_mm", SPACING_MM)
    cached, errors = cache_cohort(
        read_manifest(manifest), tmp_path / "cache", shape=shape, spacing_mm=spacing, progress=False
    )
    assert not errors
    indices = range(5, 8)
    volumes = draw_volumes(indices, SEED, **grid)
    np.testing.assert_array_equal(cached.volumes()[:], volumes)
    assert volumes.dtype == np.float32
    for roi in ("gland", "lesion"):
        drawn = draw_masks(indices, SEED, roi=roi, **grid)
        np.testing.assert_array_equal(cached.masks(roi)[:], drawn)
    together = draw_all(indices, SEED, shape, spacing)
    np.testing.assert_array_equal(together[0], volumes)
    np.testing.assert_array_equal(together[1], draw_masks(indices, SEED, **grid))
    pd.testing.assert_frame_equal(together[2], draw_labels(indices, SEED, **grid))
    stored = pd.read_csv(manifest)[together[2].columns]
    pd.testing.assert_frame_equal(stored, together[2])


def test_a_complete_cohort_is_kept_and_a_damaged_one_made_again(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path, 2, SEED, progress=False, **COARSE)
    made = manifest.stat().st_mtime_ns
    assert write_cohort(tmp_path, 2, SEED, progress=False, **COARSE) == manifest
    assert manifest.stat().st_mtime_ns == made
    assert is_written(tmp_path, 2, SEED, **COARSE)
    assert not is_written(tmp_path, 2, SEED, first=1, **COARSE)
    assert not is_written(tmp_path, 2, SEED)
    (tmp_path / "factors-00001/t2.mha").unlink()
    assert not is_written(tmp_path, 2, SEED, **COARSE)
    write_cohort(tmp_path, 2, SEED, progress=False, **COARSE)
    assert is_written(tmp_path, 2, SEED, **COARSE)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the largest gland needs"):
        factor_phantom(0, SEED, (16, 16, 16))
    with pytest.raises(InputError, match="at least one"):
        write_cohort(tmp_path, 0, SEED)
    (tmp_path / "cohort.csv").write_text("patient_id\n")
    with pytest.raises(InputError, match="was not written here"):
        write_cohort(tmp_path, 1, SEED)


MEASURED = {
    "t2_texture": ("t2", "gland", "glcm_Correlation", 1),
    "t2_contrast": ("t2", "gland", "firstorder_Variance", 1),
    "adc_level": ("adc", "gland", "firstorder_Median", 1),
    "adc_nodularity": ("adc", "gland", "firstorder_InterquartileRange", 1),
    "dwi_contrast": ("dwi", "gland", "firstorder_Kurtosis", 1),
    "dwi_noise": ("dwi", "gland", "firstorder_RobustMeanAbsoluteDeviation", 1),
    "gland_volume": ("t2", "gland", "shape_MeshVolume", 1),
    "lesion_size": ("t2", "lesion", "shape_Maximum3DDiameter", 1),
}
"""Factor -> modality, region and feature that it moves, and the sign."""


@pytest.mark.parametrize("factor", FACTORS)
def test_each_factor_moves_the_feature_that_it_should(factor: str) -> None:
    """All else equal, from the least to the most: rank correlation of factor and feature."""
    radiomics = pytest.importorskip("radiomics")
    modality, roi, feature, sign = MEASURED[factor]
    kind, name = feature.split("_")
    middle = {key: each.at(0.5) for key, each in FACTORS.items()}
    module = {"glcm": "glcm", "firstorder": "firstorder", "shape": "shape"}[kind]
    classes = {"glcm": "RadiomicsGLCM", "firstorder": "RadiomicsFirstOrder"}
    values, levels = [], np.linspace(0, 1, 8)
    __import__(f"radiomics.{module}")
    make = getattr(getattr(radiomics, module), classes.get(kind, "RadiomicsShape"))
    for number, share in enumerate(levels):
        factors = middle | {factor: FACTORS[factor].at(float(share))}
        drawn = draw(factors, SHAPE, SPACING_MM, np.random.default_rng([1, number]))
        image = sitk.GetImageFromArray(drawn.images[modality])
        mask = sitk.GetImageFromArray(drawn.masks[roi].astype(np.uint8))
        measured = make(image, mask, binCount=32)
        measured.enableFeatureByName(name)
        values.append(float(measured.execute()[name]))
    assert sign * np.corrcoef(rankdata(levels), rankdata(values))[0, 1] > 0.8
