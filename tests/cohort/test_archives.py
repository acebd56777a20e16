"""Every archive that the job knows gives its studies by the same call, and modalities by name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiments.prepare import ARCHIVES, Glob, PiCai, job
from lens.cohort.prostate import MODALITIES
from lens.errors import InputError
from tests.cohort.archives import picai, touch


def test_archives_have_a_place_to_write_and_find_their_studies() -> None:
    for archive in ARCHIVES.values():
        assert "out" in archive.__dataclass_fields__
        assert callable(archive.find)


def test_images_of_any_modality_are_found_by_a_pattern(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        for name in (*MODALITIES, "gland"):
            touch(tmp_path / f"{patient}_{name}.mha")
    patterns = tuple(f"{name}={{patient}}_{name}.mha" for name in MODALITIES)
    out, gland = tmp_path / "cohort.csv", "{patient}_gland.mha"
    assert job(Glob(gland=gland, out=out, root=tmp_path, image=patterns)) == 0
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["patient_id", *MODALITIES, "gland"]
    first = job(Glob(gland=gland, out=tmp_path / "other.csv", root=tmp_path, t2="{patient}_t2.mha",
                     image=patterns[1:]))  # fmt: skip
    assert first == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "other.csv"), table)


@pytest.mark.parametrize("image", ["t2", "t2=", "pet={patient}.mha"])
def test_another_image_is_refused(tmp_path: Path, image: str) -> None:
    config = Glob(gland="{patient}.mha", out=tmp_path / "cohort.csv", root=tmp_path, image=(image,))
    with pytest.raises(InputError, match=r"give MODALITY=PATTERN|modality 'pet': use t2, dwi, adc"):
        job(config)


def test_a_modality_that_the_archive_has_not_is_refused(tmp_path: Path) -> None:
    images, labels = picai(tmp_path)
    config = PiCai(labels=labels, out=tmp_path / "c.csv", images=images, modalities=("pet",))
    with pytest.raises(InputError, match="modality 'pet': use t2, dwi, adc"):
        job(config)
