"""Which columns hold images and which masks: declared, known, or recognised by their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import read_case, read_manifest
from lens.cohort.columns import Declared
from lens.errors import CaseError, InputError
from tests.cohort.builders import ball, image, noise, write


def manifest(folder: Path, columns: dict[str, str], rows: int = 2) -> Path:
    """Files by what they are: ``image``, ``mask``, ``labels`` or ``probability``."""
    labels = ball()
    labels[:, :, 10:] *= 2
    made = {
        "image": noise(), "mask": ball(), "labels": labels,
        "probability": ball() * np.float32(0.37),
    }  # fmt: skip
    lines = [",".join(["patient_id", *columns])]
    for row in range(rows):
        cells = []
        for name, what in columns.items():
            cells.append(f"{row}_{name}.mha" if what in made else what)
            if what in made:
                write(image(made[what]), folder / cells[-1])
        lines.append(",".join([f"P{row}", *cells]))
    path = folder / "cohort.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_images_and_masks_are_recognised_by_their_files(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"ct": "image", "tumour": "mask", "liver": "labels", "age": "61"})
    cohort = read_manifest(path)
    assert (cohort.modalities, cohort.rois) == (("ct",), ("tumour", "liver"))
    assert cohort.kinds == {"ct": "ct"}
    assert str(cohort.columns) == "images: ct (ct); regions: tumour, liver"
    assert cohort.cases[0].labels == {"age": 61.0}
    assert cohort.channels == ("ct",)


def test_what_is_declared_holds(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"ct": "image", "pet": "image", "tumour": "mask", "node": "mask"})
    declared = Declared(modalities=("pet", "ct"), rois=("node",), kinds={"pet": "units"})
    cohort = read_manifest(path, declared=declared)
    assert (cohort.modalities, cohort.rois) == (("pet", "ct"), ("node",))
    with pytest.raises(InputError, match=r"--rois, .*no column 'nodes'; did you mean node"):
        read_manifest(path, declared=Declared(rois=("nodes",)))


def test_a_kind_that_no_name_tells_is_asked_for(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"image": "image", "tumour": "mask"})
    with pytest.raises(InputError, match="--kind image=mr"):
        read_manifest(path)
    assert read_manifest(path, declared=Declared(kinds={"image": "mr"})).kinds == {"image": "mr"}


def test_a_column_of_both_is_refused_with_the_flag(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"ct": "image", "organ": "mask"})
    write(image(noise()), tmp_path / "1_organ.mha")
    with pytest.raises(InputError, match=r"column 'organ' holds paths.*--rois organ"):
        read_manifest(path)
    assert read_manifest(path, declared=Declared(rois=("organ",))).rois == ("organ",)


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """A cohort whose images, in the column that the test names, are all in colour."""
    red = np.zeros((20, 20, 3), np.uint8)
    red[:9, :9, 0] = 200
    sitk.WriteImage(sitk.GetImageFromArray(red, isVector=True), str(tmp_path / "red.png"))
    sitk.WriteImage(sitk.GetImageFromArray(ball()[5]), str(tmp_path / "mass.png"))
    return tmp_path / "cohort.csv"


def test_a_column_called_like_a_kind_of_image_holds_images(coloured: Path) -> None:
    coloured.write_text("patient_id,US,mass\nP,red.png,mass.png\n")
    cohort = read_manifest(coloured)
    assert (cohort.modalities, cohort.rois, cohort.flat) == (("US",), ("mass",), True)
    with pytest.raises(CaseError, match="a colour picture: 81"):
        read_case(cohort.cases[0])


def test_a_column_that_cannot_be_read_is_told_why(coloured: Path) -> None:
    coloured.write_text("patient_id,echo,mass\nP,red.png,mass.png\n")
    with pytest.raises(InputError, match=r"column 'echo'.*red\.png: a colour picture: 81") as told:
        read_manifest(coloured)
    assert "Save it as gray values" in str(told.value)
    coloured.write_text("patient_id,echo,mass\nP,gone.png,mass.png\n")
    with pytest.raises(InputError, match=r"column 'echo'.*gone\.png: no such file"):
        read_manifest(coloured)


def test_a_name_with_a_blank_is_refused_with_one_that_may_be(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"CT Venous": "image"})
    declared = Declared(modalities=("CT Venous",))
    with pytest.raises(InputError, match=r"'CT Venous'.*such as CT_Venous"):
        read_manifest(path, declared=declared)


def test_regions_are_labels_of_the_only_mask_column(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"t1": "image", "mask": "labels"})
    labels = {"anterior": (1,), "posterior": (2,)}
    cohort = read_manifest(path, declared=Declared(labels=labels))
    assert cohort.rois == ("anterior", "posterior")
    case = read_case(cohort.cases[0], spacing_mm=(1.0, 1.0, 2.0), labels=labels)
    voxels = {roi: np.count_nonzero(np.array(mask)) for roi, mask in case.masks.items()}
    assert list(voxels) == ["anterior", "posterior"]
    assert sum(voxels.values()) == np.count_nonzero(ball())
    path = manifest(tmp_path, {"t1": "image", "one": "mask", "two": "labels"})
    with pytest.raises(InputError, match="no region 'anterior'"):
        read_manifest(path, declared=Declared(labels=labels))


def test_a_cohort_without_masks_and_a_patient_without_a_region(tmp_path: Path) -> None:
    assert read_manifest(manifest(tmp_path, {"t2": "image"})).rois == ()
    path = manifest(tmp_path, {"ct": "image", "tumour": "mask"})
    path.write_text(path.read_text().replace("1_tumour.mha", ""))
    cohort = read_manifest(path)
    assert [list(files.masks) for files in cohort.cases] == [["tumour"], []]
    write(image(np.zeros_like(ball())), tmp_path / "0_tumour.mha")
    case = read_case(cohort.cases[0], spacing_mm=(1.0, 1.0, 2.0))
    assert case.masks == {}
    assert any("taken as no tumour" in note for note in case.notes)


def test_a_prostate_manifest_of_yesterday_reads_as_it_did(tmp_path: Path) -> None:
    columns = {"adc": "image", "t2": "image", "gland": "mask", "urethra": "mask"}
    cohort = read_manifest(manifest(tmp_path, columns))
    assert (cohort.modalities, cohort.rois) == (("t2", "adc"), ("gland",))
    assert cohort.channels == ("t2", "dwi", "adc")
