"""A cohort: one table, nothing done twice, one bad patient set aside."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lens import cache
from lens.cohort import read_case, read_manifest
from lens.errors import InputError
from lens.radiomics import cohort_features as module
from lens.radiomics import extract_part, memory, parts
from lens.radiomics.cohort_features import extract_cohort
from lens.radiomics.extract import extract_case, extract_regions
from lens.radiomics.parameters import load_parameters
from tests.radiomics.phantoms import ellipsoid, image, texture, write_cohort

SPACING = (1.0, 1.0, 2.0)
QUICK = "setting: {binWidth: 50}\nfeatureClass: {firstorder: , glcm: [Idn, JointEntropy]}\n"


@pytest.fixture
def parameters(tmp_path):
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    return load_parameters({"all": file})


@pytest.fixture
def extracted(monkeypatch):
    """The patients whose features were computed, in this process."""
    patients = []

    def counted(files, *rest):
        patients.append(files.patient_id)
        return original(files, *rest)

    original = module.extract_part
    monkeypatch.setattr(module, "extract_part", counted)
    return patients


def extract(manifest: Path, parameters, workers: int = 1, **options):
    options = {"cache": manifest.parent / "cache", "spacing_mm": SPACING} | options
    return extract_cohort(
        read_manifest(manifest), parameters, workers=workers, progress=False, **options
    )


def finished_parts(cache: Path) -> list[Path]:
    """The records of finished cases, each written after its part."""
    records = cache.glob(".*.done.json")
    return [record for record in records if ".failed." not in record.name]


def test_a_row_per_patient_with_the_values_of_extract_case(tmp_path, parameters):
    manifest = write_cohort(tmp_path, ["p2", "p1", "10"], lesions=("p1", "10"))
    table, errors = extract(manifest, parameters)
    assert errors == []
    assert table["patient_id"].tolist() == ["p2", "p1", "10"]
    regions = table.columns[1:].str.rsplit(".", n=1).str[0]
    assert list(dict.fromkeys(regions)) == ["t2.gland", "t2.lesion"]
    assert len(regions) == 2 * 20
    lesion = table.columns[table.columns.str.startswith("t2.lesion.")]
    assert table[lesion].isna().all(axis=1).tolist() == [True, False, False]
    for files, row in zip(read_manifest(manifest).cases, table.to_dict("records"), strict=True):
        expected = extract_case(read_case(files, spacing_mm=SPACING), parameters)
        assert {name: row[name] for name in expected} == expected


def test_workers_give_the_same_table_as_one_process(tmp_path, parameters, caplog):
    manifest = write_cohort(tmp_path, ["a", "b", "c"], lesions=("c",))
    with caplog.at_level("INFO", logger="lens"):
        table, errors = extract(manifest, parameters, workers=2, cache=tmp_path / "two")
    assert errors == []
    assert "0 of 3 cases are cached" in caplog.text
    pd.testing.assert_frame_equal(table, extract(manifest, parameters)[0], check_exact=True)


def test_a_second_run_extracts_nothing(tmp_path, parameters, extracted):
    manifest = write_cohort(tmp_path, ["a", "b"])
    first, _ = extract(manifest, parameters)
    assert extracted == ["a", "b"]
    second, _ = extract(manifest, parameters)
    assert extracted == ["a", "b"]
    pd.testing.assert_frame_equal(second, first, check_exact=True)


def test_a_finished_part_is_not_made_again(tmp_path, parameters, monkeypatch):
    files = read_manifest(write_cohort(tmp_path, ["a"])).cases[0]
    part, reading = parts.Part(tmp_path / "part.json", "key"), parts.Reading(SPACING)
    assert module.extract_part(files, parameters, reading, part) is None
    monkeypatch.delattr(extract_part, "read_case")
    assert module.extract_part(files, parameters, reading, part) is None


def test_only_what_changed_is_extracted_again(tmp_path, parameters, extracted, monkeypatch):
    manifest = write_cohort(tmp_path, ["a", "b"])
    extract(manifest, parameters)
    sitk.WriteImage(image(ellipsoid(radii=(4, 6, 6))), tmp_path / "b_gland.nii.gz")
    extract(manifest, parameters)
    assert extracted == ["a", "b", "b"]
    sitk.WriteImage(image(texture(99)), tmp_path / "a_t2.nii.gz")
    extract(manifest, parameters)
    assert extracted[3:] == ["a"]
    other = tmp_path / "other.yaml"
    other.write_text(QUICK.replace("50", "40"))
    extract(manifest, load_parameters({"t2": other}))
    assert extracted[4:] == ["a", "b"]
    extract(manifest, parameters, spacing_mm=(1.0, 1.0, 1.0))
    assert extracted[6:] == ["a", "b"]
    extract(manifest, load_parameters({"t2": other, "adc": tmp_path / "quick.yaml"}))
    assert len(extracted) == 8, "the parameters of another modality do not matter"
    extract(manifest, parameters, labels={"gland": (1, 2)})
    assert extracted[8:] == ["a", "b"]
    extract(manifest, parameters, labels={"gland": [2, 1, 1]})
    assert len(extracted) == 10, "the order of the labels does not matter"
    monkeypatch.setattr(cache, "libraries", lambda: {"SimpleITK": "99"})
    extract(manifest, parameters)
    assert extracted[10:] == ["a", "b"]


def test_a_killed_run_is_taken_up_where_it_was(tmp_path, extracted):
    manifest = write_cohort(tmp_path, ["a", "b", "c"])
    code = f"""
from dataclasses import replace
from pathlib import Path
from lens.cohort import read_manifest
from lens.radiomics.cohort_features import extract_cohort
from lens.radiomics.parameters import load_parameters
extract_cohort(read_manifest(Path({str(manifest)!r})), load_parameters(),
               cache=Path({str(tmp_path / "cache")!r}), spacing_mm={SPACING}, workers=1)
"""
    job = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    cache = tmp_path / "cache"
    while not finished_parts(cache):
        assert job.poll() is None, "ended before it was killed"
        time.sleep(0.01)
    job.kill()
    job.wait()
    finished = len(finished_parts(cache))
    assert finished < 3, "too quick to be interrupted"
    resumed, errors = extract(manifest, load_parameters())
    assert errors == []
    assert extracted == ["a", "b", "c"][finished:]
    undisturbed, _ = extract(manifest, load_parameters(), cache=tmp_path / "fresh")
    pd.testing.assert_frame_equal(resumed, undisturbed, check_exact=True)


def test_bad_patients_are_set_aside_and_tried_again_once_repaired(tmp_path, parameters, extracted):
    manifest = write_cohort(tmp_path, ["good", "flat", "gone", "torn"])
    sitk.WriteImage(image(np.full_like(texture(0), 5)), tmp_path / "flat_t2.nii.gz")
    (tmp_path / "gone_gland.nii.gz").unlink()
    torn = tmp_path / "torn_t2.nii.gz"
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    table, errors = extract(manifest, parameters)
    assert table["patient_id"].tolist() == ["good"]
    assert [error.patient_id for error in errors] == ["gone", "flat", "torn"]
    named = {error.patient_id: Path(error.file).name for error in errors}
    assert named == {
        "gone": "gone_gland.nii.gz", "flat": "flat_t2.nii.gz", "torn": "torn_t2.nii.gz"
    }  # fmt: skip
    torn.write_bytes(whole)
    table, errors = extract(manifest, parameters)
    assert table["patient_id"].tolist() == ["good", "torn"]
    assert extracted == ["good", "flat", "torn", "torn"], "flat is as it was, so is its reason"


def test_an_unforeseen_error_costs_one_patient(tmp_path, parameters, monkeypatch):
    manifest = write_cohort(tmp_path, ["a", "b"])

    def fragile(case, *rest, **options):
        if case.patient_id == "a":
            raise MemoryError("no room")
        return extract_regions(case, *rest, **options)

    monkeypatch.setattr(extract_part, "extract_regions", fragile)
    table, errors = extract(manifest, parameters)
    assert table["patient_id"].tolist() == ["b"]
    assert "MemoryError: no room" in str(errors[0])
    monkeypatch.setattr(extract_part, "extract_regions", extract_regions)
    table, errors = extract(manifest, parameters)
    assert table["patient_id"].tolist() == ["a", "b"], "a failure of the machine is not remembered"
    assert errors == []


def test_a_refusal_is_remembered_until_something_changes(tmp_path, parameters, extracted, caplog):
    manifest = write_cohort(tmp_path, ["good", "flat"])
    flat = tmp_path / "flat_t2.nii.gz"
    sitk.WriteImage(image(np.full_like(texture(0), 5)), flat)
    _, first = extract(manifest, parameters)
    with caplog.at_level("INFO", logger="lens"):
        _, second = extract(manifest, parameters)
    assert extracted == ["good", "flat"]
    assert [error.row() for error in second] == [error.row() for error in first]
    assert "1 of 2 cases are cached" in caplog.text
    assert "1 case(s) were refused before" in caplog.text
    extract(manifest, parameters, retry_failed=True)
    assert extracted[2:] == ["flat"]
    other = tmp_path / "other.yaml"
    other.write_text(QUICK.replace("50", "40"))
    extract(manifest, load_parameters({"all": other}))
    assert extracted[3:] == ["good", "flat"]
    sitk.WriteImage(image(texture(5)), flat)
    table, errors = extract(manifest, parameters)
    assert extracted[5:] == ["flat"]
    assert errors == []
    assert len(table) == 2


def test_side_tables(tmp_path, parameters):
    manifest = write_cohort(tmp_path, ["a", "b"], lesions=("b",))
    files = {"audit_file": tmp_path / "audit.csv", "gray_level_file": tmp_path / "levels.csv"}
    extract(manifest, parameters, **files)
    levels = pd.read_csv(files["gray_level_file"])
    assert levels[["patient_id", "roi"]].to_numpy().tolist() == [
        ["a", "gland"], ["b", "gland"], ["b", "lesion"]
    ]  # fmt: skip
    assert levels["voxels"].tolist() == [671, 671, 73]
    assert (levels["occupied"] <= levels["bins"]).all()
    findings = pd.read_csv(files["audit_file"])
    assert findings.columns.tolist() == ["patient_id", "column", "kind", "reason"]


def test_labels_choose_the_region(tmp_path, parameters):
    manifest = write_cohort(tmp_path, ["a"])
    plain, _ = extract(manifest, parameters)
    bladder = ellipsoid() + 2 * ellipsoid((10, 24, 24), (3, 3, 3)).astype(np.uint8)
    sitk.WriteImage(image(bladder), tmp_path / "a_gland.nii.gz")
    chosen, _ = extract(manifest, parameters, labels={"gland": (1,)})
    pd.testing.assert_frame_equal(chosen, plain, check_exact=True)
    everything, _ = extract(manifest, parameters)
    assert not everything.equals(plain)
    with pytest.raises(InputError, match="label: no region 'prostate'; there are gland"):
        extract(manifest, parameters, labels={"prostate": (1,)})


def test_a_region_that_nobody_has_is_named(tmp_path, parameters, caplog):
    manifest = write_cohort(tmp_path, ["a", "b"], lesions=("a",))
    lesion = image(3 * ellipsoid((10, 12, 12), (2, 3, 3)))
    sitk.WriteImage(lesion, tmp_path / "a_lesion.nii.gz")
    with caplog.at_level("WARNING"):
        extract(manifest, parameters, labels={"lesion": (3,)})
    assert "none of the" not in caplog.text
    for _ in range(2):  # the second run reads what the first one kept
        caplog.clear()
        with caplog.at_level("WARNING"):
            table, errors = extract(manifest, parameters, labels={"lesion": (1,)})
        assert not errors
        assert not any(".lesion." in column for column in table)
        (record,) = [r for r in caplog.records if "none of the" in r.message]
        assert record.message.startswith(
            "region lesion: none of the 2 patients has it (their masks hold 3), so that the table "
            "has no column of it. Correct its masks or --label"
        )


def test_a_region_that_is_not_asked_for_is_not_missed(tmp_path, parameters, caplog):
    cohort = read_manifest(write_cohort(tmp_path, ["a"], lesions=("a",)))
    cases = tuple(replace(files, extracted=("gland",)) for files in cohort.cases)
    with caplog.at_level("WARNING"):
        table, errors = extract_cohort(
            replace(cohort, cases=cases), parameters, cache=tmp_path / "cache", workers=1
        )
    assert not errors
    assert not any(".lesion." in column for column in table)
    assert "none of the" not in caplog.text


def test_the_geometry_report_survives_a_second_run(tmp_path, parameters, extracted):
    """Identical, snapped, resampled and refused; a refusal of the numbers keeps its geometry."""
    patients = ["same", "rounded", "finer", "empty", "wide"]
    manifest = write_cohort(tmp_path, patients)
    rounded = image(ellipsoid(), origin=(0.01, 0, 0))
    sitk.WriteImage(rounded, tmp_path / "rounded_gland.nii.gz")
    fine = ellipsoid((10, 28, 28), (4, 14, 12), (20, 56, 56)) * np.uint8(3)
    sitk.WriteImage(
        image(fine, spacing=(0.5, 0.5, 2), origin=(-0.25, -0.25, 0)),
        tmp_path / "finer_gland.nii.gz",
    )
    sitk.WriteImage(image(np.zeros_like(ellipsoid())), tmp_path / "empty_gland.nii.gz")
    sitk.WriteImage(image(texture(3) * 1e3), tmp_path / "wide_t2.nii.gz")
    file = tmp_path / "geometry.csv"
    _, errors = extract(manifest, parameters, geometry_file=file)
    assert [error.patient_id for error in errors] == ["empty", "wide"]
    report = file.read_bytes()
    rows = pd.read_csv(file, dtype={"taken": str}).set_index(["patient_id", "name"])
    assert rows["verdict"].to_dict() == {
        ("same", "t2"): "identical", ("same", "gland"): "identical",
        ("rounded", "t2"): "identical", ("rounded", "gland"): "snapped",
        ("finer", "t2"): "identical", ("finer", "gland"): "resampled",
        ("empty", "gland"): "refused",
        ("wide", "t2"): "identical", ("wide", "gland"): "identical",
    }  # fmt: skip
    finer = rows.loc["finer", "gland"]
    assert finer["labels"] == f"3 ({np.count_nonzero(fine)} voxels)"
    assert finer["taken"] == "3"
    assert 0.8 < finer["dice"] < 1
    assert abs(finer["volume_change"]) < 0.2
    assert rows.loc[("empty", "gland"), "reason"] == "the gland mask is empty"
    file.unlink()
    _, again = extract(manifest, parameters, geometry_file=file)
    assert extracted == patients, "the second run reads nothing anew"
    assert file.read_bytes() == report
    assert [error.row() for error in again] == [error.row() for error in errors]


def test_what_is_remembered_speaks_of_the_files_as_they_are_named_now(
    tmp_path, parameters, extracted
):
    manifest = write_cohort(tmp_path, ["a", "b"])
    sitk.WriteImage(image(np.zeros_like(ellipsoid())), tmp_path / "b_gland.nii.gz")
    extract(manifest, parameters)
    for name in ("a_t2", "a_gland", "b_t2", "b_gland"):
        (tmp_path / f"{name}.nii.gz").rename(tmp_path / f"new_{name}.nii.gz")
    rows = pd.read_csv(manifest).assign(patient_id=["A", "B"])
    rows[["t2", "gland"]] = "new_" + rows[["t2", "gland"]]
    rows.to_csv(manifest, index=False)
    table, errors = extract(manifest, parameters, geometry_file=tmp_path / "geometry.csv")
    assert extracted == ["a", "b"]
    assert table["patient_id"].tolist() == ["A"]
    assert [(error.patient_id, Path(error.file).name) for error in errors] == [
        ("B", "new_b_gland.nii.gz")
    ]
    named = pd.read_csv(tmp_path / "geometry.csv")["file"].map(lambda path: Path(path).name)
    assert named.tolist() == ["new_a_t2.nii.gz", "new_a_gland.nii.gz", "new_b_gland.nii.gz"]


def test_absurd_bins_are_refused_at_once(tmp_path):
    file = tmp_path / "absurd.yaml"
    file.write_text("setting: {binWidth: 0.01}\n")
    manifest = write_cohort(tmp_path, ["a"])
    start = time.perf_counter()
    table, errors = extract(manifest, load_parameters({"all": file}))
    assert time.perf_counter() - start < 5
    assert table.empty
    assert "gray levels with binWidth 0.01 in gland, more than the 512" in errors[0].reason
    assert "absurd.yaml, for example binWidth" in errors[0].remedy


def test_workers_beyond_the_memory_are_not_started(tmp_path, parameters, monkeypatch, caplog):
    cases = read_manifest(write_cohort(tmp_path, ["a", "b"])).cases
    need = memory.worker_bytes(cases[0], parameters, SPACING)
    assert need == memory.IMPORTS + memory.REGION + 28 * 28 * 20 * (4 + 1 + memory.READING)
    # The whole field of view is filtered by what depends on the whole image.
    file = tmp_path / "log.yaml"
    file.write_text("setting: {binWidth: 50}\nimageType: {LoG: {sigma: [2.0]}}\n")
    assert memory.worker_bytes(cases[0], load_parameters({"all": file}), SPACING) > need
    for free, workers, words in [(9.5, 8, ""), (2.5, 2, "2 are started"), (0.5, 1, "even one")]:
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: free * need)
        caplog.clear()
        assert memory.affordable_workers(8, cases, parameters, SPACING) == workers
        assert words in caplog.text
        assert bool(words) == bool(caplog.text)
    assert memory.grid_voxels(tmp_path / "nothing.nii.gz", SPACING) == 0
    (tmp_path / "empty").mkdir()
    assert memory.grid_voxels(tmp_path / "empty", SPACING) == 0


def test_a_patient_whose_worker_died_is_set_aside(tmp_path, parameters, monkeypatch):
    def dead_for_the_first(function, items, *, cluster):
        for index, item in enumerate(items):
            yield index, function(*item) if index else module.WorkerDied("it died twice")

    monkeypatch.setattr(module, "each_in_workers", dead_for_the_first)
    manifest = write_cohort(tmp_path, ["a", "b"])
    table, errors = extract(manifest, parameters, workers=2)
    assert table["patient_id"].tolist() == ["b"]
    assert "died twice, most likely for want of memory" in errors[0].reason
    assert "fewer workers" in errors[0].remedy


def test_when_nobody_is_left_the_table_is_empty(tmp_path, parameters):
    manifest = write_cohort(tmp_path, ["a"])
    (tmp_path / "a_t2.nii.gz").write_bytes(b"not an image")
    table, errors = extract(manifest, parameters)
    assert table.empty
    assert table.columns.tolist() == ["patient_id"]
    assert len(errors) == 1


def test_study_ids_and_undefined_features_are_told(tmp_path, parameters, caplog):
    manifest = write_cohort(tmp_path, ["a", "b", "c"])
    rows = pd.read_csv(manifest).assign(study_id=["s1", "s2", "s3"])
    rows.to_csv(manifest, index=False)
    scattered = np.zeros_like(ellipsoid())
    scattered[4:16:3, 4:24:3, 4:24:3] = 1
    for patient in ("a", "b"):
        sitk.WriteImage(image(scattered), tmp_path / f"{patient}_gland.nii.gz")
    with caplog.at_level("INFO", logger="lens"):
        table, _ = extract(manifest, parameters)
    assert table.columns[:2].tolist() == ["patient_id", "study_id"]
    assert table["t2.gland.original_glcm_Idn"].isna().tolist() == [True, True, False]
    assert "audit, undefined: patient a, t2.gland.original_glcm_Idn: not defined" in caplog.text
    assert "(3 more)" in caplog.text


def test_no_worker_is_refused(tmp_path, parameters):
    manifest = write_cohort(tmp_path, ["a"])
    with pytest.raises(InputError, match="at least one"):
        extract(manifest, parameters, workers=0)


def test_a_modality_without_parameters_stops_the_job_at_once(tmp_path, parameters, extracted):
    manifest = write_cohort(tmp_path, ["a"])
    with pytest.raises(InputError, match="modality 't2'"):
        extract(manifest, {"adc": parameters["all"]})
    assert extracted == []
