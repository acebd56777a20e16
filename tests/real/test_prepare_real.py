"""Real archives through the job: 240 patients' labels, and a real DICOM study."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lens.cohort import read_case, read_manifest, write_phantoms_on
from lens.cohort.dicom_tree import prepare_dicom
from lens.cohort.picai import prepare_picai
from lens.cohort.prepared import write_manifest
from lens.errors import CaseError


def test_the_labels_of_240_patients(real_data: Path, tmp_path: Path) -> None:
    labels = real_data / "picai_labels"
    write_manifest(prepare_picai(None, labels), tmp_path / "masks.csv")
    cohort = read_manifest(tmp_path / "masks.csv", images=False)
    assert len(cohort.cases) == 240
    assert cohort.set_aside == ()
    assert all(case.zones is not None for case in cohort.cases)
    raw = pd.read_csv(labels / "marksheet.csv", dtype=str, keep_default_na=False)
    for case, (_, row) in zip(
        cohort.cases, raw.sort_values(["patient_id", "study_id"]).iterrows(), strict=True
    ):
        assert (case.patient_id, case.study_id) == (row["patient_id"], row["study_id"])
        grades = [int(g) for g in row["lesion_PIRADS"].split(",") if g.isdigit()]
        assert case.labels.get("pirads") == max(grades, default=None)
        assert case.labels["pirads_lesions"] == row["lesion_PIRADS"]
        assert case.labels["isup"] == float(row["case_ISUP"])
        assert case.labels["site"] == row["center"]
        assert ("psa" in case.labels) == (row["psa"] != "")


@pytest.fixture
def tree(real_data: Path, tmp_path: Path) -> Path:
    """The real study under folder names that tell nothing."""
    root = tmp_path / "dicom"
    for number, name in enumerate(("adc", "hbv", "t2w")):
        shutil.copytree(real_data / "prostatex" / "dicom" / name, root / "study 1" / str(number))
    return root


def test_a_real_dicom_tree(real_data: Path, tree: Path) -> None:
    masks = {roi: f"{{patient}}_{roi}.nii.gz" for roi in ("gland", "zones", "lesion")}
    prepared = prepare_dicom(tree, masks, mask_root=real_data / "prostatex", progress=False)
    write_manifest(prepared, tree.parent / "cohort.csv")
    (case,) = read_manifest(tree.parent / "cohort.csv").cases
    assert case.patient_id == "ProstateX-0000"
    assert case.labels == {"study_date": "2011-07-07"}
    folders = {name: path.name for name, path in case.images.items()}
    assert folders == {"adc": "0", "dwi": "1", "t2": "2"}
    assert set(read_case(case).images) == {"t2", "dwi", "adc"}


def test_a_slice_missing_in_the_real_tree(real_data: Path, tree: Path) -> None:
    (tree / "study 1" / "2" / "1-07.dcm").unlink()
    masks = {"gland": "{patient}_gland.nii.gz"}
    prepared = prepare_dicom(tree, masks, mask_root=real_data / "prostatex", progress=False)
    write_manifest(prepared, tree.parent / "cohort.csv")
    (case,) = read_manifest(tree.parent / "cohort.csv").cases
    with pytest.raises(CaseError, match=r"6.00 mm between slices 12 and 13, 3.00 mm"):
        read_case(case)


def test_a_slice_delivered_twice_in_the_real_tree(real_data: Path, tree: Path) -> None:
    shutil.copy(tree / "study 1" / "0" / "1-07.dcm", tree / "study 1" / "0" / "1-07 (1).dcm")
    masks = {"gland": "{patient}_gland.nii.gz"}
    prepared = prepare_dicom(tree, masks, mask_root=real_data / "prostatex", progress=False)
    write_manifest(prepared, tree.parent / "cohort.csv")
    with pytest.raises(CaseError, match="several slices at the same position"):
        read_case(read_manifest(tree.parent / "cohort.csv").cases[0])


PATIENTS = ("10040", "10085", "10181")
"""A lesion on a usual grid, one partly outside the gland on 1024 x 1024, and no lesion."""


def test_phantoms_on_real_anatomy(real_data: Path, tmp_path: Path) -> None:
    write_manifest(prepare_picai(None, real_data / "picai_labels"), tmp_path / "masks.csv")
    cohort = read_manifest(tmp_path / "masks.csv", images=False)
    cases = tuple(case for case in cohort.cases if case.patient_id in PATIENTS)
    cohort = replace(cohort, cases=cases)
    manifest, errors = write_phantoms_on(
        cohort, tmp_path / "phantoms", 0, spacing_mm=1.0, progress=False
    )
    assert errors == ()
    made = read_manifest(manifest).cases
    assert [case.labels for case in made] == [case.labels for case in cases]
    for source, files in zip(cases, made, strict=True):
        case = read_case(files, spacing_mm=(1.0, 1.0, 1.5))
        stored = sitk.ReadImage(str(source.masks["gland"]))
        volume = np.count_nonzero(sitk.GetArrayViewFromImage(stored)) * np.prod(stored.GetSpacing())
        gland = sitk.GetArrayFromImage(case.masks["gland"]) > 0
        # Two samplings of an edge that lies between the voxels.
        assert gland.sum() * 1.5 == pytest.approx(volume, rel=0.02)
        adc = sitk.GetArrayFromImage(case.images["adc"])
        assert 1000 < np.median(adc[gland]) < 1800
        assert ("lesion" in case.masks) == (source.patient_id != "10181")
        if "lesion" in case.masks:
            lesion = sitk.GetArrayFromImage(case.masks["lesion"]) > 0
            assert adc[lesion].mean() < 0.85 * adc[gland & ~lesion].mean()
