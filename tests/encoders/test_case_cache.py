"""Finished cases are reused only if everything behind them is the same and the file is intact."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from flax import nnx

from encoders.case_cache import CaseCache
from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import parameters
from encoders.volumes import cache_cohort
from lens.cohort import Cohort, read_manifest
from lens.cohort.factor_phantom import write_cohort

SHAPE, SPACING = (16, 24, 24), (2.0, 2.0, 3.0)
SETTINGS = EmbeddingSettings(shape=SHAPE, spacing_mm=SPACING)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("phantoms"), 3, 0, progress=False).parent


@pytest.fixture
def cohort(original: Path, tmp_path: Path) -> Cohort:
    """A copy that a test may change."""
    shutil.copytree(original, tmp_path / "cohort")
    return read_manifest(tmp_path / "cohort" / "cohort.csv")


def encoder(seed: int = 0) -> ConvNeXtV2:
    config = ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
    return ConvNeXtV2(config, rngs=nnx.Rngs(seed))


def embeddings(cohort: Cohort, cache: Path | None) -> np.ndarray:
    # One case per batch: rounding must not depend on what is reused.
    result, errors = embed_cohort(cohort, encoder(), settings=SETTINGS, batch_size=1, cache=cache)
    assert errors == ()
    return result.embeddings


def volumes(cohort: Cohort, cache: Path) -> np.ndarray:
    cached, errors = cache_cohort(cohort, cache, shape=SHAPE, spacing_mm=SPACING, progress=False)
    assert errors == ()
    return np.asarray(cached.volumes()[:])


Make = Callable[[Cohort, Path], np.ndarray]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_case(path: Path) -> None:
    other = next(file for file in path.parent.glob("*.npz") if file != path)
    shutil.copyfile(other, path)


def entry(path: Path) -> Path:
    return path.with_name(f".{path.name}.done.json")


def of_another_key(path: Path) -> None:
    content = json.loads(entry(path).read_text())
    entry(path).write_text(json.dumps(content | {"key": "0" * 64}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "lost": Path.unlink,
    "of zero bytes": lambda path: path.write_bytes(b""),
    "truncated": truncate,
    "a byte changed": flip_a_byte,
    "foreign": lambda path: path.write_text("a file of someone else"),
    "of another case": of_another_case,
    "without a record": lambda path: entry(path).unlink(),
    "record truncated": lambda path: truncate(entry(path)),
    "record of another key": of_another_key,
    "record is another thing": lambda path: entry(path).write_text("[1, 2]"),
}


@pytest.mark.parametrize("make", [embeddings, volumes])
def test_notes_on_cases_are_told_as_radiomics_tells_them(make, cohort, tmp_path, caplog):
    for files in cohort.cases[:2]:
        mask = sitk.ReadImage(str(files.masks["gland"]))
        sitk.WriteImage(mask * 3, str(files.masks["gland"]), useCompression=True)
    caplog.set_level("INFO")

    def told() -> list[str]:
        caplog.clear()
        make(cohort, tmp_path / "cache")
        # JAX tells once what devices there are.
        return [line for line in caplog.messages if line.startswith("patient ")]

    first = told()
    patient, other = (files.patient_id for files in cohort.cases[:2])
    (line,) = [line for line in first if "every value above 0 is taken as gland" in line]
    assert line.startswith(f"patient {patient}: gland: mask values 3 (")
    assert line.endswith("taken as gland (likewise 1 more)")
    assert not any(other in line for line in first), "a line per kind, with the first patient"
    assert told() == first, "the cache keeps them"


@pytest.fixture(scope="module", params=[embeddings, volumes])
def filled(request, original: Path, tmp_path_factory) -> tuple[Make, Path, np.ndarray]:
    """How a cache is filled, one with all cases, to be left as it is, and what was put there."""
    folder = tmp_path_factory.mktemp("filled")
    return request.param, folder, request.param(read_manifest(original / "cohort.csv"), folder)


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_file_is_made_again(damage, filled, cohort, tmp_path):
    make, folder, fresh = filled
    cache = Path(shutil.copytree(folder, tmp_path / "cache"))
    file = sorted(cache.glob("*.npz"))[1]
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*.npz")}
    assert len(kept) == 3
    DAMAGES[damage](file)
    np.testing.assert_array_equal(make(cohort, cache), fresh)
    for path, time in kept.items():
        assert (path.stat().st_mtime_ns == time) == (path != file)
    np.testing.assert_array_equal(make(cohort, cache), fresh)


@pytest.mark.parametrize("make", [embeddings, volumes])
def test_an_image_rewritten_with_the_same_size_and_time_is_read_again(make, cohort, tmp_path):
    make(cohort, tmp_path / "cache")
    file = cohort.cases[0].images["t2"]
    image, before = sitk.ReadImage(str(file)), file.stat()
    values = sitk.GetArrayFromImage(image)[::-1].copy()
    changed = sitk.GetImageFromArray(values)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file), file.suffix == ".gz")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = make(cohort, tmp_path / "cache")
    np.testing.assert_array_equal(again, make(cohort, tmp_path / "fresh"))


@pytest.mark.parametrize("make", [embeddings, volumes])
def test_voxels_that_lie_beside_the_named_file_are_read_again(make, cohort, tmp_path):
    first, *rest = cohort.cases
    image = sitk.ReadImage(str(first.images["t2"]))
    named = tmp_path / "t2.mhd"
    sitk.WriteImage(image, str(named))
    beside = replace(first, images=first.images | {"t2": named})
    cohort = replace(cohort, cases=(beside, *rest))
    before = make(cohort, tmp_path / "cache")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.npz")}
    header = named.read_bytes()
    changed = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[:, ::-1].copy())
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(named))
    named.write_bytes(header)
    again = make(cohort, tmp_path / "cache")
    assert not np.array_equal(again[0], before[0])
    np.testing.assert_array_equal(again, make(cohort, tmp_path / "fresh"))
    for path, time in kept.items():
        assert path.stat().st_mtime_ns == time, "what did not change was made again"
    assert len(list((tmp_path / "cache").glob("*.npz"))) == len(kept) + 1


@pytest.mark.parametrize("make", [embeddings, volumes])
def test_files_that_two_patients_exchanged_stay_with_their_content(make, cohort, tmp_path):
    make(cohort, tmp_path / "cache")
    first, second, third = cohort.cases
    swapped = replace(
        cohort,
        cases=(
            replace(first, images=second.images, masks=second.masks),
            replace(second, images=first.images, masks=first.masks),
            third,
        ),
    )
    again = make(swapped, tmp_path / "cache")
    np.testing.assert_array_equal(again, make(swapped, tmp_path / "fresh"))


@pytest.mark.parametrize(
    "change",
    [
        {"study_id": "2"},
        {"nifti_form": "sform"},
        {"kinds": {"t2": "units"}},
        {"flat": True},
        {"pixel_mm": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_a_case_is_read_is_part_of_its_key(change, cohort, tmp_path):
    kept = CaseCache(tmp_path / "cache", ())
    files = cohort.cases[0]
    kept.keep(files, (), volume=np.zeros(1))
    assert kept.find(files)
    other = replace(files, **change)
    assert kept.find(other) is None


def test_another_parameter_setting_or_code_makes_another_embedding(cohort, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def run(model: ConvNeXtV2, settings: EmbeddingSettings = SETTINGS) -> np.ndarray:
        result, _ = embed_cohort(cohort, model, settings=settings, batch_size=1, cache=cache)
        return result.embeddings

    def entries() -> int:
        return len(list(cache.glob("*.npz")))

    first = run(encoder())
    assert entries() == 3
    changed = encoder()
    bias = parameters(changed)["norm.bias"]
    bias.set_value(bias[...] + 1)
    np.testing.assert_allclose(run(changed), first + 1, atol=1e-6)
    assert entries() == 6
    run(encoder(), replace(SETTINGS, pool="gland"))
    assert entries() == 9
    monkeypatch.setattr("lens.cache.code_version", lambda *modules: "of another day")
    np.testing.assert_array_equal(run(encoder()), first)
    assert entries() == 12
