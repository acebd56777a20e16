"""The main job from images: phantoms among which some patients cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from flax import nnx

import encoders
from lens.cohort import write_phantoms
from tests.experiments.test_main_job import run

pytestmark = pytest.mark.usefixtures("undrawn")

TINY = encoders.ConvNeXtV2Config(dims=3, depths=(1, 1, 1, 1), widths=(8, 8, 16, 16))
GOOD, BAD = 14, ("empty mask", "missing file", "NaN voxels", "other grid")


def spoil(manifest: Path) -> dict[str, str]:
    """Damages the first patients, one kind each; gives patient -> kind."""
    table = pd.read_csv(manifest, dtype=str)
    folder = manifest.parent
    names = dict(zip(table["patient_id"], BAD, strict=False))
    for row, kind in zip(table.to_dict("records"), BAD, strict=False):
        gland, t2 = folder / row["gland"], folder / row["t2"]
        if kind == "empty mask":
            mask = sitk.ReadImage(str(gland))
            sitk.WriteImage(mask * 0, str(gland))
        elif kind == "missing file":
            (folder / row["adc"]).unlink()
        elif kind == "NaN voxels":
            image = sitk.ReadImage(str(t2), sitk.sitkFloat32)
            image[5, 5, 5] = float("nan")
            sitk.WriteImage(image, str(t2))
        else:
            mask = sitk.ReadImage(str(gland))
            mask.SetOrigin([value + 500.0 for value in mask.GetOrigin()])
            sitk.WriteImage(mask, str(gland))
    return names


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[Path, dict[str, str], list[object]]:
    folder = tmp_path_factory.mktemp("images")
    manifest = write_phantoms(folder / "cohort", GOOD + len(BAD), seed=5, progress=False)
    spoiled = spoil(manifest)
    for name, seed in (("pre", 0), ("ft", 1)):
        encoders.save(folder / name, encoders.ConvNeXtV2(TINY, rngs=nnx.Rngs(seed)))
    flags: list[object] = ["--cohort", manifest, "--encoder-pre", folder / "pre"]
    flags += ["--encoder-ft", f"cls={folder / 'ft'}", "--roi", "gland"]
    flags += ["--spacing", 2, 2, 3, "--shape", 32, 48, 48, "--hidden", 4, "--epochs", 5]
    flags += ["--label", "gland=1", "--folds", 2, "--repeats", 1, "--flips", 100]
    flags += ["--l1", "1e-6", "--l2", "1e-5", "--bootstraps", 50, "--out", folder / "run"]
    return folder / "run", spoiled, flags


def test_an_encoder_compared_with_itself_is_refused_before_anything_is_embedded(job) -> None:
    folder, _, flags = job
    same = [
        flag if str(flag) != f"cls={folder.parent / 'ft'}" else f"cls={flags[3]}" for flag in flags
    ]
    same[same.index(folder)] = folder.parent / "same"
    refused = run(*same)
    assert refused.returncode == 1
    assert "are the same encoder" in refused.stderr
    assert "--identical" in refused.stderr
    assert not (folder.parent / "same" / "radiomics.parquet").exists()


def test_bad_patients_are_set_aside_and_the_cohort_goes_on(job) -> None:
    folder, spoiled, flags = job
    done = run(*flags)
    assert done.returncode == 3, done.stderr
    failures = pd.read_csv(folder / "failures.csv", dtype=str)
    assert sorted(failures["patient_id"]) == sorted(spoiled), "each bad patient once, no other"
    for row in failures.itertuples():
        assert row.file
        assert row.reason
        assert row.remedy
        assert row.patient_id in done.stderr
    split = pd.read_csv(folder / "split.csv", dtype=str)
    assert len(split) == GOOD
    assert not set(split["patient_id"]) & set(spoiled)
    features = pd.read_parquet(folder / "cls" / "features.parquet")
    assert set(features["modality"]) == {"t2", "dwi", "adc"}
    assert set(features["roi"]) == {"gland"}
    dropped = pd.read_csv(folder / "dropped.csv").set_index("column")["reason"]
    assert len(features) + len(dropped) == 3 * 837
    # SumAverage is twice JointAverage in a symmetric matrix; the audit beside the table says so.
    twice = dropped["t2.gland.original_glcm_SumAverage"]
    assert twice == f"proportional: 2 x t2.gland.original_glcm_JointAverage in all {GOOD} patients"
    geometry = pd.read_csv(folder / "radiomics-geometry.csv").set_index("patient_id")
    kinds = geometry.loc[[p for p in spoiled if p in geometry.index], "verdict"]
    assert set(kinds) == {"refused"}
    glands = geometry[geometry["name"].eq("gland") & geometry["verdict"].ne("refused")]
    assert (glands["taken"].astype(float) == 1).all()
    assert len(glands) == GOOD
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(patient in page for patient in spoiled)


def test_a_second_run_does_nothing_twice(job) -> None:
    folder, _, flags = job
    before = {p: p.stat().st_mtime_ns for p in folder.glob("radiomics-cache/*")}
    # Refusals are kept like features, of all bad patients but the one without its file; a hidden
    # file records of each that it is finished.
    assert len([p for p in before if not p.name.startswith(".")]) == GOOD + len(BAD) - 1
    (folder / "radiomics.parquet").unlink()
    again = run(*flags)
    assert again.returncode == 3
    assert "embed pre: done before, reused" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in folder.glob("radiomics-cache/*")} == before
    with np.load(folder / "embeddings" / "pre.npz") as content:
        assert len(content["patient_id"]) == GOOD
