"""Pictures of patients: where a voxel appears, how bright, and where its border is drawn."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from lens.cohort import Case, CaseFiles, read_case, read_manifest
from lens.report.album import Album, NoPictureError
from lens.report.pictures import (
    EDGE,
    SLICES,
    SOFT_TISSUE_HU,
    Picture,
    contour,
    eight_bit,
    picture,
    window,
)
from tests.cohort.builders import image, write

SHAPE = (12, 40, 48)
SPACING = (1.0, 1.0, 2.0)


def slices_of(found: Picture, modality: str) -> np.ndarray:
    """(slices, rows, columns) of a strip."""
    uri = found.uri(modality)
    assert uri.startswith("data:image/webp;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as strip:
        pixels = np.asarray(strip.convert("L")).astype(int)
    return np.stack(np.split(pixels, found.slices, axis=1))


def volume(folder: Path, name: str, array: np.ndarray, stored: str) -> Path:
    """Writes a (z, y, x) array in LPS order under axes stored as `stored`."""
    lps = image(array, SPACING)
    return write(sitk.DICOMOrient(lps, stored), folder / f"{name}.nii.gz")


@pytest.mark.parametrize("stored", ["LPS", "RAS", "PIR", "SAL"])
def test_a_marker_appears_where_it_lies_in_the_patient(tmp_path: Path, stored: str) -> None:
    """Bright at the patient's left, anterior and head: on the right, above, in a late slice."""
    inside = np.zeros(SHAPE, np.uint8)
    inside[2:10, 12:28, 16:32] = 1
    values = np.full(SHAPE, 100.0)
    values += np.random.default_rng(0).normal(0, 4, SHAPE)
    values[8, 13:16, 28:31] = 400.0
    files = CaseFiles(
        "P1", None, {"t2": volume(tmp_path, "t2", values, stored)},
        {"gland": volume(tmp_path, "gland", inside, stored)}, {}, None,
    )  # fmt: skip
    found = picture(read_case(files, spacing_mm=SPACING), ("gland",))
    cut = picture(read_case(files, spacing_mm=SPACING, about=("gland",)), ("gland",))
    assert cut == found, "less is read, and the same is seen"
    assert found.slices == 8, "from the feet, those of the region"
    pixels = slices_of(found, "t2")
    bright = np.argwhere(pixels > 230)
    # The box is the region and 10 mm about it.
    np.testing.assert_array_equal(bright.mean(axis=0).round(), (6, 14 - 2, 29 - 6))
    assert np.ptp(bright, axis=0).max() <= 4, "nothing else is as bright"
    assert found.size == (36, 36)
    assert found.size_mm == (36.0, 36.0)
    # The border runs around the region in every slice: a closed line of 16 by 16 voxels.
    lines = [line for line in found.contours["gland"] if line.slice == 6]
    assert sum(line.dx + line.dy for line in lines) == 64
    assert {(line.x, line.y) for line in lines} == {(10, 10), (10, 26), (26, 10)}
    assert found.path("gland").startswith("M10 10h16")


def case(values: np.ndarray, inside: np.ndarray, **kinds) -> Case:
    name = next(iter(kinds), "t2")
    return Case(
        "P1", None, {name: image(values.astype(np.float32), SPACING)},
        {"gland": image(inside.astype(np.uint8), SPACING)}, (), kinds=kinds,
    )  # fmt: skip


def test_windows_follow_the_kind_of_modality() -> None:
    rng = np.random.default_rng(0)
    inside = np.zeros(SHAPE, bool)
    inside[3:9, 10:30, 10:30] = True
    values = rng.normal(50, 10, SHAPE)

    def of(modality: str, kind, values: np.ndarray = values) -> tuple[float, float]:
        each = case(values, inside)
        return window(each.images["t2"], modality, kind, each.masks)

    assert of("us", "8-bit") == (0.0, 255.0)
    assert of("adc", "units") == (200.0, 2700.0), "the same for all patients, in 1e-6 mm2/s"
    assert of("ct", "ct") == SOFT_TISSUE_HU
    assert of("ct", "ct", values - 800) == (-1000.0, 1000.0), "a lung"
    low, high = of("t2", "mr")
    assert (low, high) == pytest.approx((30, 80), abs=1.5)
    assert of("t2", "mr", 7 * values) == pytest.approx((7 * low, 7 * high), rel=1e-4)
    assert of("t2", "mr", np.abs(values - 50))[0] == pytest.approx(0.0, abs=1e-2), "no darker"
    gray = eight_bit(np.array([[[low - 5, low, (low + high) / 2, high, high + 5]]]), low, high)
    assert gray.ravel().tolist() == [0, 0, 128, 255, 255]


def test_a_contour_of_any_region_is_the_edges_of_its_voxels() -> None:
    inside = np.random.default_rng(1).random((3, 9, 7)) > 0.5
    drawn = set()
    for at, x, y, dx, dy in contour(inside):
        drawn |= {(at, x + step, y, "h") for step in range(dx)}
        drawn |= {(at, x, y + step, "v") for step in range(dy)}
    edges = set()
    for at in range(3):
        for y in range(10):
            for x in range(8):

                def on(row: int, column: int, at: int = at) -> bool:
                    return 0 <= row < 9 and 0 <= column < 7 and bool(inside[at, row, column])

                if x < 7 and on(y, x) != on(y - 1, x):
                    edges.add((at, x, y, "h"))
                if y < 9 and on(y, x) != on(y, x - 1):
                    edges.add((at, x, y, "v"))
    assert drawn == edges


def test_large_regions_become_small_pictures_of_true_shape() -> None:
    shape = (60, 300, 500)
    inside = np.zeros(shape, np.uint8)
    inside[5:55, 20:280, 20:480] = 1
    values = np.random.default_rng(0).normal(100, 10, shape)
    found = picture(case(values, inside), ("gland",))
    pixels = slices_of(found, "t2")
    assert found.slices == SLICES
    assert max(pixels.shape[1:]) == EDGE
    assert pixels.shape[2] / pixels.shape[1] == pytest.approx(
        found.size[0] / found.size[1], rel=0.02
    )
    assert found.middle == SLICES // 2
    assert found.bytes < 120_000


def test_single_slices_keep_the_axes_of_their_file(tmp_path: Path) -> None:
    values = np.full((50, 80), 90, np.uint8)
    values += np.random.default_rng(0).integers(0, 9, values.shape, np.uint8)
    values[10, 60] = 255
    mask = np.zeros((50, 80), np.uint8)
    mask[5:45, 10:70] = 255
    for name, array in (("us", values), ("mass", mask)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    (tmp_path / "cohort.csv").write_text("patient_id,us,mass\nP1,us.png,mass.png\n")
    album = Album("", read_manifest(tmp_path / "cohort.csv"), (1.0, 1.0, 1.0))
    found = album.picture("P1", "", ("mass",))
    assert found.flat
    assert found.slices == 1
    (pixels,) = slices_of(found, "us")
    assert np.unravel_index(pixels.argmax(), pixels.shape) == (10, 60)
    assert found.windows["us"] == (0.0, 255.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients, the first with two studies; the other's image is no image."""
    folder = tmp_path_factory.mktemp("album")
    inside = np.zeros(SHAPE, np.uint8)
    inside[2:10, 12:28, 16:32] = 1
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write(image(rng.normal(100, 10, SHAPE), SPACING), folder / f"{name}.nii.gz")
    write(image(inside, SPACING), folder / "gland.nii.gz")
    (folder / "c.nii.gz").write_bytes(b"no image")
    rows = ["P1,S1,a.nii.gz", "P1,S2,b.nii.gz", "P2,,c.nii.gz", "P3,,gone.nii.gz", "P4,,a.nii.gz"]
    lines = ["patient_id,study_id,t2,gland", *(f"{row},gland.nii.gz" for row in rows)]
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.csv"


def test_an_album_has_each_study_once_and_says_why_it_has_none(cohort: Path) -> None:
    album = Album("", read_manifest(cohort), SPACING)
    one, other = (album.picture("P1", study) for study in ("S1", "S2"))
    assert one.strips != other.strips
    assert album.picture("P1", "S1") is one
    assert album.picture("P4", "").slices == one.slices
    with pytest.raises(NoPictureError, match="does not name this study"):
        album.picture("P1", "")
    for patient in ("P2", "P3"):
        with pytest.raises(NoPictureError, match="no picture: ") as caught:
            album.picture(patient)
        assert str(cohort.parent) not in str(caught.value)
    with pytest.raises(NoPictureError, match="does not name"):
        album.picture("P9")


def test_an_album_keeps_to_its_budget(cohort: Path) -> None:
    size = Album("", read_manifest(cohort), SPACING).picture("P1", "S1").bytes
    small = Album("", read_manifest(cohort), SPACING, budget=int(1.5 * size))
    small.picture("P1", "S1")
    with pytest.raises(NoPictureError, match="MB of pictures already"):
        small.picture("P1", "S2")
    few = Album("", read_manifest(cohort), SPACING, most=1)
    few.picture("P1", "S1")
    with pytest.raises(NoPictureError, match="1 patients already"):
        few.picture("P1", "S2")
    assert few.picture("P1", "S1").bytes == size


def test_the_path_of_a_picture_lies_on_its_strip(cohort: Path) -> None:
    found = Album("", read_manifest(cohort), SPACING).picture("P1", "S1")
    starts = [int(x) for x in re.findall(r"M(\d+) ", found.path("gland"))]
    assert max(starts) == (found.slices - 1) * found.size[0] + 26
