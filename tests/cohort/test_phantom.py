"""The phantoms: reproducible, true to their labels, and told apart by their images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import Phantom, read_case, read_manifest, write_phantoms
from lens.cohort.phantom import phantom
from lens.errors import InputError

SEED = 11


def array(of: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(of)


@pytest.fixture(scope="module")
def patients() -> list[Phantom]:
    return [phantom(index, SEED) for index in range(20)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("cohort"), 10, SEED, progress=False)


def test_equal_seeds_give_equal_voxels(patients: list[Phantom]) -> None:
    again, other = phantom(3, SEED), phantom(3, SEED + 1)
    for name, image in patients[3].images.items():
        np.testing.assert_array_equal(array(image), array(again.images[name]))
        assert image.GetOrigin() == again.images[name].GetOrigin()
        assert image.GetOrigin() != other.images[name].GetOrigin()


def test_every_ten_patients_have_the_same_grades(patients: list[Phantom]) -> None:
    for ten in (patients[:10], patients[10:]):
        assert Counter(p.pirads for p in ten) == {2: 4, 3: 2, 4: 2, 5: 2}
    assert [p.pirads for p in patients[:10]] != [p.pirads for p in patients[10:]]


def test_labels_are_what_the_masks_show(patients: list[Phantom]) -> None:
    for p in patients:
        gland = p.masks["gland"]
        volume_ml = array(gland).sum() * np.prod(gland.GetSpacing()) / 1000
        assert abs(p.volume_ml - volume_ml) < 1e-6
        assert ("lesion" in p.masks) == (p.pirads > 2)
        if "lesion" in p.masks:
            assert np.all(array(gland)[array(p.masks["lesion"]) > 0] == 1)
    volumes = [p.volume_ml for p in patients]
    assert 15 < min(volumes) < 35
    assert 65 < max(volumes) < 100


def test_the_gland_lies_inside_the_image(patients: list[Phantom]) -> None:
    for p in patients:
        gland = array(p.masks["gland"])
        shell = gland.copy()
        shell[1:-1, 1:-1, 1:-1] = 0
        assert shell.sum() == 0


def test_grids_exercise_the_resampling(patients: list[Phantom]) -> None:
    oblique = 0
    for p in patients:
        t2, dwi, adc = (p.images[name] for name in ("t2", "dwi", "adc"))
        assert dwi.GetSpacing() == adc.GetSpacing() == (2.0, 2.0, 3.0)
        assert t2.GetSpacing()[:2] == (1.0, 1.0)
        assert t2.GetOrigin() != dwi.GetOrigin()
        oblique += t2.GetDirection()[4] < 1
    assert 2 <= oblique <= 14


def test_the_cohort_reads_and_the_grade_shows(manifest: Path) -> None:
    cohort = read_manifest(manifest)
    assert cohort.set_aside == ()
    assert len(cohort.cases) == 10
    contrast: dict[float, list[tuple[float, float, float]]] = {}
    for files in cohort.cases:
        case = read_case(files, spacing_mm=(1.0, 1.0, 2.0))
        gland = array(case.masks["gland"]) > 0
        volume_ml = gland.sum() * 2 / 1000
        # The mask is sampled anew along z: the staircase of its caps costs up to a few percent.
        assert abs(volume_ml / float(files.labels["volume_ml"]) - 1) < 0.03
        adc = array(case.images["adc"])
        assert 1000 < np.median(adc[gland]) < 1800
        if "lesion" in case.masks:
            lesion = array(case.masks["lesion"]) > 0
            rest = gland & ~lesion
            ratio = [
                float(
                    array(case.images[name])[lesion].mean() / array(case.images[name])[rest].mean()
                )
                for name in ("t2", "dwi", "adc")
            ]
            contrast.setdefault(float(files.labels["pirads"]), []).append((*ratio,))
    means = [np.mean(contrast[grade], axis=0) for grade in (3.0, 4.0, 5.0)]
    assert np.all(means[2][[0, 2]] < means[0][[0, 2]] - 0.1), "darker on T2 and ADC with the grade"
    assert means[2][1] > means[0][1] > 1.2, "brighter at a high b-value"
    assert means[0][2] < 0.95


def test_texture_varies_between_patients(patients: list[Phantom]) -> None:
    def roughness(p: Phantom) -> float:
        t2, inside = array(p.images["t2"]).astype(float), array(p.masks["gland"]) > 0
        return float(np.std(np.diff(t2, axis=2)[inside[:, :, 1:]]) / t2[inside].mean())

    values = [roughness(p) for p in patients]
    assert max(values) > 1.5 * min(values)


def test_a_complete_cohort_is_left_as_it_is(manifest: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in manifest.parent.rglob("*")}
    assert write_phantoms(manifest.parent, 10, SEED, progress=False) == manifest
    assert before == {file: file.stat().st_mtime_ns for file in manifest.parent.rglob("*")}


def test_an_incomplete_or_other_cohort_is_written_again(tmp_path: Path) -> None:
    path = write_phantoms(tmp_path, 2, SEED, progress=False)
    lost = tmp_path / "phantom-0001" / "adc.mha"
    content = lost.read_bytes()
    lost.unlink()
    write_phantoms(tmp_path, 2, SEED, progress=False)
    assert lost.read_bytes() == content
    write_phantoms(tmp_path, 1, SEED + 1, progress=False)
    assert [case.patient_id for case in read_manifest(path).cases] == ["phantom-0000"]


def test_a_foreign_manifest_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("patient_id,t2,gland\n")
    with pytest.raises(InputError, match="a manifest that was not written here"):
        write_phantoms(tmp_path, 1, SEED, progress=False)
    assert (tmp_path / "cohort.csv").read_text() == "patient_id,t2,gland\n"
    with pytest.raises(InputError, match="at least one"):
        write_phantoms(tmp_path / "none", 0, SEED, progress=False)
