"""Perturbed versions: seeded, small, inside the documented amounts, and cached like cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from experiments.radiomics import Config, job
from lens.cohort import Case, read_manifest
from lens.errors import InputError
from lens.files import read_table
from lens.radiomics import perturb, perturb_part
from lens.radiomics.cohort_features import extract_cohort, extract_perturbed
from lens.radiomics.parameters import load_parameters
from lens.radiomics.perturb import perturbed, surroundings
from tests.radiomics.phantoms import case, ellipsoid, image, texture, write_cohort

QUICK = """setting: {binWidth: 50, normalize: true, normalizeScale: 500}
featureClass: {firstorder: }
"""


def array(volume: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(volume)


def versions(made: Case, count: int) -> list[Case]:
    return [perturbed(made, np.random.default_rng([7, index])) for index in range(count)]


def test_equal_seeds_give_equal_versions_and_others_differ():
    first, again = versions(case(), 1)[0], versions(case(), 1)[0]
    other = versions(case(), 2)[1]
    for name, volume in (first.images | first.masks).items():
        assert np.array_equal(array(volume), array((again.images | again.masks)[name]))
        assert not np.array_equal(array(volume), array((other.images | other.masks)[name]))
    assert list(first.images) == ["t2", "adc"]
    assert list(first.masks) == ["gland", "lesion"]
    assert first.images["t2"].GetPixelID() == sitk.sitkFloat32
    assert first.masks["gland"].GetPixelID() == sitk.sitkUInt8


def test_regions_move_and_change_by_about_the_documented_amounts():
    shape = (40, 60, 60)
    gland = image(ellipsoid((20, 30, 30), (10, 22, 20), shape))
    made = Case("p", None, {"t2": image(texture(0, shape=shape))}, {"gland": gland}, ())
    volumes, places = [], []
    for version in versions(made, 20):
        inside = np.argwhere(array(version.masks["gland"]))
        volumes.append(len(inside))
        places.append(inside.mean(axis=0) * [2, 1, 1])
    radius = np.cbrt(20 * 22 * 20)
    growth = radius * (np.cbrt(np.array(volumes) / np.array(array(gland).sum())) - 1)
    # A whole contour moves by 0.3 mm; the sd of 20 draws is within a factor of two.
    assert perturb.GROWTH_MM / 2 < growth.std() < 2 * perturb.GROWTH_MM
    assert abs(growth.mean()) < 0.3
    # Uniform within 1 mm either way has an sd of 0.58 mm.
    assert np.std(places, axis=0) == pytest.approx(np.full(3, 0.58), abs=0.3)
    assert np.ptp(places, axis=0).max() < 2 * (perturb.TRANSLATION_MM + 0.5)


def test_image_and_mask_move_together_and_noise_is_added(monkeypatch):
    """A bright ball on a dark ground fills its mask, and the ground shows the noise."""
    shape = (30, 40, 40)
    mask = ellipsoid((15, 20, 20), (5, 10, 10), shape)
    ball = np.where(mask > 0, 1000, 0).astype(np.float32) + texture(0, mean=0, sd=1, shape=shape)
    made = Case("p", None, {"t2": image(ball)}, {"gland": image(mask)}, ())
    for name in ("GROWTH_MM", "CONTOUR_MM"):
        monkeypatch.setattr(perturb, name, 0.0)
    for version in versions(made, 5):
        inside = array(version.masks["gland"]) > 0
        bright = array(version.images["t2"]) > 500
        # The cut goes through half-filled voxels of the surface.
        assert np.mean(bright[inside]) > 0.97
        assert 2 * np.sum(bright & inside) / (bright.sum() + inside.sum()) > 0.97
    monkeypatch.setattr(perturb, "NOISE_SD", 50.0)
    noisy = versions(made, 1)[0]
    values = array(noisy.images["t2"])[:, :5]
    assert values.std() == pytest.approx(50 * ball[mask > 0].std(), rel=0.1)


def test_a_small_region_does_not_vanish(monkeypatch):
    monkeypatch.setattr(perturb, "GROWTH_MM", 20.0)
    lesion = image(ellipsoid((10, 14, 14), (2, 3, 3)))
    made = Case("p", None, {"t2": image(texture(0))}, {"lesion": lesion}, ())
    for version in versions(made, 10):
        assert array(version.masks["lesion"]).sum() >= 5


def test_surroundings_keep_place_and_values():
    shape = (60, 60, 60)
    mask = ellipsoid((30, 30, 50), (3, 3, 3), shape)
    volume = image(texture(1, shape=shape))
    small = surroundings(Case("p", None, {"t2": volume}, {"gland": image(mask)}, ()))
    cut = small.images["t2"]
    assert cut.GetSize() == (60 - 47 + 14, 35, 21)
    centre = cut.TransformIndexToPhysicalPoint((5, 5, 5))
    assert cut[5, 5, 5] == volume[volume.TransformPhysicalPointToIndex(centre)]


@pytest.fixture
def parameters(tmp_path):
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    return load_parameters({"all": file})


def test_a_cohort_is_perturbed_once(tmp_path, parameters, monkeypatch):
    cohort = read_manifest(write_cohort(tmp_path, ["a", "b", "c"], lesions=("b",)))
    options = {"cache": tmp_path / "cache", "spacing_mm": (1.0, 1.0, 2.0), "progress": False}
    whole, _ = extract_cohort(cohort, parameters, workers=1, **options)
    table = extract_perturbed(cohort, parameters, repeats=3, workers=1, **options)
    assert table["patient_id"].tolist() == [p for p in "abc" for _ in range(3)]
    assert table["repeat"].tolist() == [0, 1, 2] * 3
    assert table.columns.drop("repeat").tolist() == whole.columns.tolist()
    means = table.groupby("patient_id")["t2.gland.original_firstorder_Mean"].mean()
    assert means.to_numpy() == pytest.approx(
        whole["t2.gland.original_firstorder_Mean"].to_numpy(), abs=50
    ), "normalised by the whole image, not by the part that was perturbed"
    monkeypatch.setattr(perturb_part, "perturbed", None)
    again = extract_perturbed(cohort, parameters, repeats=3, workers=1, **options)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    with pytest.raises(InputError, match="at least two"):
        extract_perturbed(cohort, parameters, repeats=1, workers=1, **options)


def test_the_command_writes_how_well_each_feature_repeats(tmp_path):
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    config = Config(
        cohort=write_cohort(tmp_path, ["a", "b", "c"]),
        out=tmp_path / "R.parquet",
        parameters=(str(file),),
        spacing=(1.0, 1.0, 2.0),
        workers=1,
        perturb=2,
    )
    assert job(config) == 0
    repeats = pd.read_csv(tmp_path / "R-repeatability.csv")
    assert repeats["column"].tolist() == read_table(config.out).columns[1:].tolist()
    assert (repeats["n"] == 3).all()
    assert (repeats["repeats"] == 2).all()
    assert repeats["icc"].max() <= 1
