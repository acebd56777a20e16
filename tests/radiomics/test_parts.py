"""Parts of a cohort: any change makes them anew, and a harmed one heals."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lens import cache
from lens.cohort import read_manifest
from lens.errors import InputError
from lens.radiomics import cohort_features as module
from lens.radiomics import parts as parts_module
from lens.radiomics.cohort_features import extract_cohort, extract_perturbed
from lens.radiomics.parameters import load_parameters
from lens.radiomics.parts import EXTRACTION, PERTURBATION, Part, Reading, parts_of
from tests.radiomics.phantoms import image, texture, write_cohort

QUICK = "setting: {binWidth: 50}\nfeatureClass: {firstorder: [Mean, Entropy]}\n"
SPACING = (1.0, 1.0, 2.0)


def record_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.done.json")


def rewritten(part: Path, content: bytes) -> None:
    """Other content, recorded under the same key as what was left."""
    key = cache.read_record(record_of(part))["key"]
    part.write_bytes(content)
    cache.finish(part, key)


HARMS: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda part, other: part.write_bytes(part.read_bytes()[:-20]),
    "zero bytes": lambda part, other: part.write_bytes(b""),
    "deleted": lambda part, other: part.unlink(),
    "no text": lambda part, other: part.write_bytes(b"\xff\xfe\x00"),
    "another letter": lambda part, other: part.write_bytes(part.read_bytes().replace(b"e", b"a")),
    "of another patient": lambda part, other: shutil.copy(other, part),
    "of another patient, with its record": lambda part, other: (
        shutil.copy(other, part),
        shutil.copy(record_of(other), record_of(part)),
    ),
    "without its record": lambda part, other: record_of(part).unlink(),
    "a folder in its place": lambda part, other: (part.unlink(), part.mkdir()),
    "a full folder in its place": lambda part, other: (
        part.unlink(),
        (part / "deeper").mkdir(parents=True),
    ),
    "a folder for its record": lambda part, other: (
        record_of(part).unlink(),
        record_of(part).mkdir(),
    ),
    "a link that leads nowhere": lambda part, other: (part.unlink(), part.symlink_to("nowhere")),
    "whole by its record, and no text": lambda part, other: rewritten(part, b"\xff\xfe\x00"),
    "whole by its record, and no JSON": lambda part, other: rewritten(part, b"{"),
    "whole by its record, and no part": lambda part, other: rewritten(part, b"[1, 2]"),
    "whole by its record, and empty": lambda part, other: rewritten(part, b"{}"),
    "with an empty record": lambda part, other: record_of(part).write_bytes(b""),
    "with a foreign record": lambda part, other: record_of(part).write_text("[1, 2]"),
}


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    file = tmp_path_factory.mktemp("parameters") / "quick.yaml"
    file.write_text(QUICK)
    return load_parameters({"all": file})


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Two patients with features and two that are refused; to be left as they are."""
    folder = tmp_path_factory.mktemp("original")
    write_cohort(folder, ["a", "b", "flat", "flatter"])
    for value, patient in enumerate(("flat", "flatter"), start=5):
        flat = image(np.full_like(texture(0), value))
        sitk.WriteImage(flat, folder / f"{patient}_t2.nii.gz")
    return folder


@pytest.fixture
def cohort(original, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return read_manifest(tmp_path / "cohort.csv")


class Done(NamedTuple):
    """A folder with cohort, cache and geometry, and what came of it."""

    folder: Path
    table: pd.DataFrame
    errors: list[dict[str, str]]
    versions: pd.DataFrame


@pytest.fixture(scope="module")
def done(original, parameters, tmp_path_factory) -> Done:
    """Features and perturbed versions of all patients, to be left as they are."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(original, folder, dirs_exist_ok=True)
    cohort = read_manifest(folder / "cohort.csv")
    with pytest.MonkeyPatch.context() as patch:
        worked = counted(patch)
        table, errors = features(cohort, parameters, folder)
        versions = perturbed(cohort, parameters, folder)
    assert worked == ["a", "b", "flat", "flatter", "a", "b"]
    return Done(folder, table, errors, versions)


@pytest.fixture
def worked(monkeypatch):
    return counted(monkeypatch)


def counted(patch: pytest.MonkeyPatch) -> list[str]:
    """The patients whose images are read from now on, for features or perturbed versions."""
    patients = []

    def counting(function):
        def called(files, *rest):
            patients.append(files.patient_id)
            return function(files, *rest)

        return called

    for name in ("extract_part", "perturb_part"):
        patch.setattr(module, name, counting(getattr(module, name)))
    return patients


def features(cohort, parameters, folder: Path) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    table, errors = extract_cohort(
        cohort, parameters, cache=folder / "cache", spacing_mm=SPACING, workers=1, progress=False,
        geometry_file=folder / "geometry.csv",
    )  # fmt: skip
    return table, [error.row() for error in errors]


def perturbed(cohort, parameters, folder: Path) -> pd.DataFrame:
    return extract_perturbed(
        cohort, parameters, cache=folder / "cache", spacing_mm=SPACING, workers=1, progress=False,
        repeats=2,
    )  # fmt: skip


def parts(cohort, parameters, folder: Path) -> dict[str, Part]:
    found = parts_of(cohort.cases, parameters, folder / "cache", Reading(SPACING), progress=False)
    return dict(zip(("a", "b", "flat", "flatter"), found, strict=True))


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_part_heals(tmp_path, done, parameters, worked, harm):
    _, table, errors, versions = done
    here = str(done.folder), str(tmp_path)
    errors = [{name: text.replace(*here) for name, text in error.items()} for error in errors]
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    cohort = read_manifest(tmp_path / "cohort.csv")
    geometry = (tmp_path / "geometry.csv").read_text().replace(*here)
    part = parts(cohort, parameters, tmp_path)
    HARMS[harm](part["a"].path, part["b"].path)
    HARMS[harm](part["flat"].failure.path, part["flatter"].failure.path)
    HARMS[harm](part["b"].perturbed(2).path, part["a"].perturbed(2).path)
    healed, errors_again = features(cohort, parameters, tmp_path)
    assert worked == ["a", "flat"]
    versions_again = perturbed(cohort, parameters, tmp_path)
    assert worked == ["a", "flat", "b"]
    pd.testing.assert_frame_equal(healed, table, check_exact=True)
    pd.testing.assert_frame_equal(versions_again, versions, check_exact=True)
    assert errors_again == errors
    assert (tmp_path / "geometry.csv").read_text() == geometry
    features(cohort, parameters, tmp_path)
    perturbed(cohort, parameters, tmp_path)
    assert worked == ["a", "flat", "b"], "healed parts are reused"


@pytest.mark.parametrize(("ending", "voxels"), [("mhd", "raw"), ("hdr", "img")])
def test_voxels_beside_the_named_file_are_part_of_the_content(
    tmp_path, parameters, worked, ending, voxels
):
    manifest = write_cohort(tmp_path, ["a", "b"])
    for file in ("a_t2", "b_gland"):
        written = sitk.ReadImage(str(tmp_path / f"{file}.nii.gz"))
        sitk.WriteImage(written, str(tmp_path / f"{file}.{ending}"))
        text = manifest.read_text().replace(f"{file}.nii.gz", f"{file}.{ending}")
        manifest.write_text(text)
    cohort = read_manifest(manifest)
    table, _ = features(cohort, parameters, tmp_path)
    features(cohort, parameters, tmp_path)
    assert worked == ["a", "b"], "unchanged, it is reused"
    partner = tmp_path / f"a_t2.{voxels}"
    whole = partner.read_bytes()
    partner.write_bytes(np.frombuffer(whole, np.float32)[::-1].tobytes())
    other, _ = features(cohort, parameters, tmp_path)
    assert worked == ["a", "b", "a"]
    means = [each.set_index("patient_id").iloc[:, 0] for each in (table, other)]
    assert means[0]["a"] != means[1]["a"]
    assert means[0]["b"] == means[1]["b"]
    partner.unlink()
    _, (error,) = features(cohort, parameters, tmp_path)
    assert error["reason"].endswith(f"(its voxels are in {partner.name}, which is not there)")
    partner.write_bytes(whole)
    healed, errors = features(cohort, parameters, tmp_path)
    assert errors == [], "a refusal is remembered of the content that was refused alone"
    pd.testing.assert_frame_equal(healed, table, check_exact=True)


@pytest.mark.parametrize(
    "change",
    [
        {"nifti_form": "sform"},
        {"kinds": {"t2": "units"}},
        {"flat": True},
        {"pixel_mm": 0.5},
        {"extracted": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_a_case_is_read_is_part_of_its_key(change, tmp_path):
    files = read_manifest(write_cohort(tmp_path, ["a"])).cases[0]
    cases = files, replace(files), replace(files, **change)
    one, same, other = parts_of(
        cases, load_parameters(), tmp_path / "cache", Reading(SPACING), progress=False
    )
    assert one.key == same.key != other.key


def test_a_file_of_the_users_own_like_ours_is_another_part(tmp_path):
    """Ours standardises about the regions, a user's over the whole image."""
    files = read_manifest(write_cohort(tmp_path, ["a"])).cases[0]
    ours = load_parameters()["t2"]
    keys = {
        parts_of([files], {"t2": each}, tmp_path, Reading(SPACING), progress=False)[0].key
        for each in (ours, replace(ours, packaged=False))
    }
    assert len(keys) == 2


def test_versions_do_not_depend_on_the_folder_or_the_other_patients(tmp_path, done, parameters):
    alone = read_manifest(write_cohort(tmp_path / "alone", ["a"]))
    features(alone, parameters, tmp_path / "alone")
    fresh = perturbed(alone, parameters, tmp_path / "alone")
    pd.testing.assert_frame_equal(fresh, done.versions.iloc[:2], check_exact=True)


def changed_by(monkeypatch, parts_now: Callable[[], Part], module: str) -> tuple[bool, bool]:
    """Whether a line more in a module changes the keys of features and of perturbed versions."""

    def keys() -> tuple[str, str]:
        cache.code_version.cache_clear()
        return parts_now().key, parts_now().perturbed(2).key

    before = keys()
    sources = cache._sources
    edited = Path(__file__)
    monkeypatch.setattr(
        cache, "_sources", lambda name: [*sources(name), *([edited] if name == module else [])]
    )
    after = keys()
    monkeypatch.setattr(cache, "_sources", sources)
    assert keys() == before
    return after[0] != before[0], after[1] != before[1]


@pytest.mark.parametrize(
    ("name", "features_too", "versions_too"),
    [
        *(
            (f"lens.{name}", True, True)
            for name in (
                "cohort.case", "cohort.geometry", "cohort.images", "cohort.packed",
                "cohort.regions", "cohort.units",
                "radiomics.binning", "radiomics.engine", "radiomics.extract",
                "radiomics.classes", "radiomics.extract_part", "radiomics.kernels",
                "radiomics.matrices", "radiomics.parts", "radiomics.wavelet",
            )
        ),
        ("lens.radiomics.perturb", False, True),
        ("lens.cohort.phantom", False, False),
        ("lens.study.tables", False, False),
        ("lens.radiomics.audit", False, False),
    ],
)  # fmt: skip
def test_what_code_a_part_rests_on(
    tmp_path, parameters, monkeypatch, name, features_too, versions_too
):
    cohort = read_manifest(write_cohort(tmp_path, ["a"]))

    def part() -> Part:
        return parts_of(cohort.cases, parameters, tmp_path, Reading(), progress=False)[0]

    try:
        assert changed_by(monkeypatch, part, name) == (features_too, versions_too)
    finally:
        cache.code_version.cache_clear()


def test_the_modules_behind_a_part_are_those_that_a_worker_runs():
    assert module.extract_part.__module__ == EXTRACTION
    assert module.perturb_part.__module__ == PERTURBATION


def test_a_cache_that_cannot_be_written_is_refused_before_the_first_patient(
    tmp_path, cohort, parameters, worked
):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cache: is a file, not a folder"):
        features(cohort, parameters, tmp_path)
    with pytest.raises(InputError, match=r"/proc/nowhere/cache: cannot be written to"):
        extract_cohort(cohort, parameters, cache=Path("/proc/nowhere/cache"), workers=1)
    assert worked == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_is_full_ends_the_job_and_no_patient(
    tmp_path, cohort, parameters, worked, monkeypatch, error
):
    written, real = [], parts_module.write_json

    def full(path, content):
        if written:
            raise OSError(error, os.strerror(error), str(path))
        written.append(path)
        real(path, content)

    monkeypatch.setattr(parts_module, "write_json", full)
    with pytest.raises(InputError, match=rf"cannot be kept there \({os.strerror(error)}.*--cache"):
        features(cohort, parameters, tmp_path)
    assert worked == ["a", "b"]
    monkeypatch.setattr(parts_module, "write_json", real)
    table, errors = features(cohort, parameters, tmp_path)
    assert table["patient_id"].tolist() == ["a", "b"]
    assert worked == ["a", "b", "b", "flat", "flatter"], "what was kept is not done again"
    assert [error["patient_id"] for error in errors] == ["flat", "flatter"]
