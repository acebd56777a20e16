"""ADC maps: the unit is recognised by the gland, said, and never guessed for an odd map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort import read_case
from lens.cohort.units import adc_unit
from lens.errors import CaseError
from tests.cohort.builders import ball, case_files, image, noise


def adc(factor: float) -> sitk.Image:
    """About 1250 in 1e-6 mm2/s in the gland, urine-like spots, a fit that failed, and outside."""
    voxels = noise(seed=7) / 2 + 1000
    voxels[4:6, 8:10, 8:10] = 3200
    voxels[5, 11:15, 11:13] = 0
    voxels[ball() == 0] = 9
    return image((voxels * factor).astype(np.float32))


@pytest.mark.parametrize(
    ("factor", "unit", "back"),
    [(1, "1e-6 mm2/s", 1), (1e-3, "1e-3 mm2/s", 1e3), (1e-6, "mm2/s", 1e6), (0.1, None, 1)],
)
def test_the_unit_is_recognised(factor: float, unit: str | None, back: float) -> None:
    found = adc_unit(adc(factor), image(ball()))
    assert (found.unit, found.factor) == (unit, back)
    inside = sitk.GetArrayFromImage(adc(factor))[ball() > 0]
    assert found.median == pytest.approx(np.median(inside[inside > 0]))


def read(folder: Path, **images: sitk.Image):
    content = {"t2": image(noise()), "gland": image(ball())} | images
    return read_case(case_files(folder, **content), spacing_mm=(1.0, 1.0, 2.0))


@pytest.mark.parametrize(
    ("factor", "note"),
    [
        (1e-3, "adc: a median of 1.26 in the gland means 1e-3 mm2/s; multiplied by 1000 to"),
        (1e-6, "adc: a median of 0.00126 in the gland means mm2/s; multiplied by 1e+06 to"),
    ],
)
def test_the_map_is_scaled_and_said(tmp_path: Path, factor: float, note: str) -> None:
    plain = read(tmp_path / "a", adc=adc(1))
    assert plain.notes == ()
    case = read(tmp_path / "b", adc=adc(factor))
    assert [n.startswith(note) for n in case.notes] == [True]
    arrays = [sitk.GetArrayFromImage(c.images["adc"]) for c in (case, plain)]
    # Single precision, once when stored and once when scaled.
    np.testing.assert_allclose(*arrays, rtol=3e-7)


def test_an_odd_map_is_left_and_said(tmp_path: Path) -> None:
    case = read(tmp_path, adc=adc(0.1))
    assert case.notes == (
        "adc: a median of 126.5 in the gland fits no unit of ADC (300 to 3500 expected in "
        "1e-6 mm2/s); left as it is, so check the map",
    )
    dark = image(np.rint(noise(seed=5) / 20).astype(np.float32))
    assert "dwi" in read(tmp_path / "dark", adc=adc(0.1), dwi=dark).images


def test_swapped_columns_are_refused_where_it_shows(tmp_path: Path) -> None:
    dwi = image(np.rint(noise(seed=5) / 20).astype(np.float32))
    assert read(tmp_path / "right", adc=adc(1), dwi=dwi).notes == ()
    with pytest.raises(CaseError, match="adc and dwi look swapped") as caught:
        read(tmp_path / "wrong", adc=dwi, dwi=adc(1))
    assert caught.value.file == str(tmp_path / "wrong" / "adc.mha")
