"""A cohort becomes a table of embeddings; a bad patient is set aside; a second run is free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

import encoders
from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort, volumes_per_pass
from encoders.convnext_weights import convert
from encoders.embedding import embed
from experiments.convert import Config as ConvertConfig
from experiments.convert import job as convert_job
from experiments.embed import Config, job
from lens.cohort import Cohort, read_case, read_manifest, stack, stack_mask
from lens.cohort.factor_phantom import write_cohort
from lens.errors import InputError
from tests.encoders.reference import Reference, arrays, randomise

SETTINGS = EmbeddingSettings(shape=(24, 32, 32), spacing_mm=(2.0, 2.0, 3.0))


@pytest.fixture(scope="module")
def reference() -> Reference:
    reference = Reference(depths=(1, 1), widths=(8, 16), strides=(2,))
    randomise(reference)
    return reference


@pytest.fixture(scope="module")
def encoder(reference):
    return convert(arrays(reference))[0]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Four phantoms, the second without a lesion, the third with a file that is no image."""
    path = write_cohort(tmp_path_factory.mktemp("phantoms"), 4, 0, progress=False)
    table = pd.read_csv(path, dtype=str)
    table.loc[1, "lesion"] = ""
    table.to_csv(path, index=False)
    broken = read_manifest(path).cases[2].images["adc"]
    broken.write_bytes(b"not an image")
    return path


def test_rows_are_the_embeddings_of_the_readable_cases(encoder, manifest):
    cohort = read_manifest(manifest)
    result, errors = embed_cohort(cohort, encoder, settings=SETTINGS, batch_size=2)
    good = [cohort.cases[i] for i in (0, 1, 3)]
    assert result.patient_id == tuple(files.patient_id for files in good)
    assert result.study_id is None
    assert [error.patient_id for error in errors] == [cohort.cases[2].patient_id]
    volumes = [
        stack(read_case(files, spacing_mm=SETTINGS.spacing_mm), shape=SETTINGS.shape)
        for files in good
    ]
    expected = embed(encoder, np.stack(volumes), batch_size=2)
    np.testing.assert_allclose(result.embeddings, expected, atol=2e-5)


def test_gland_pooling(encoder, manifest):
    cohort = read_manifest(manifest)
    settings = EmbeddingSettings(SETTINGS.shape, SETTINGS.spacing_mm, pool="gland", stages=(1, 2))
    result, _ = embed_cohort(cohort, encoder, settings=settings, batch_size=2)
    case = read_case(cohort.cases[0], spacing_mm=settings.spacing_mm)
    expected = embed(
        encoder,
        stack(case, shape=settings.shape)[None],
        masks=stack_mask(case, "gland", shape=settings.shape)[None],
        stages=(1, 2),
    )
    np.testing.assert_allclose(result.embeddings[0], expected[0], atol=2e-5)


def test_labels_choose_the_region_and_are_part_of_the_cache(encoder, manifest, tmp_path):
    cohort = read_manifest(manifest)
    path = cohort.cases[0].masks["gland"]
    plain = sitk.ReadImage(str(path))
    settings = EmbeddingSettings(SETTINGS.shape, SETTINGS.spacing_mm, pool="gland")
    one = Cohort(cohort.path, cohort.cases[:1], ())
    expected, _ = embed_cohort(one, encoder, settings=settings)
    half = sitk.GetArrayFromImage(plain)
    half[: len(half) // 2] *= 2
    files = replace(cohort.cases[0], masks={"gland": tmp_path / "gland.mha"})
    both = Cohort(cohort.path, (files,), ())
    mask = sitk.GetImageFromArray(half)
    mask.CopyInformation(plain)
    sitk.WriteImage(mask, str(tmp_path / "gland.mha"))
    rows = [
        embed_cohort(
            both, encoder, settings=replace(settings, labels=labels), cache=tmp_path / "cache"
        )[0].embeddings
        for labels in ({"gland": (1, 2)}, {"gland": (1,)}, None)
    ]
    np.testing.assert_array_equal(rows[0], expected.embeddings)
    np.testing.assert_array_equal(rows[2], expected.embeddings)
    assert np.abs(rows[1] - rows[0]).max() > 1e-3


def test_no_lesion_sets_a_case_aside(encoder, manifest):
    """The others are embedded."""
    cohort = read_manifest(manifest)
    settings = EmbeddingSettings(SETTINGS.shape, SETTINGS.spacing_mm, pool="lesion")
    result, errors = embed_cohort(cohort, encoder, settings=settings, batch_size=2)
    ids = [files.patient_id for files in cohort.cases]
    assert result.patient_id == (ids[0], ids[3])
    assert {error.patient_id: error.stage for error in errors}[ids[1]] == "embed"


def test_windows_cover_the_whole_image(encoder, manifest):
    """With a crop as large as the image both are the same; with a smaller one they differ."""
    cohort = read_manifest(manifest)

    def rows(shape, windows):
        settings = EmbeddingSettings(shape, SETTINGS.spacing_mm, pool="gland", windows=windows)
        return embed_cohort(cohort, encoder, settings=settings, batch_size=2)[0].embeddings

    large = rows((24, 48, 48), windows=False)
    np.testing.assert_allclose(rows((24, 48, 48), windows=True), large, atol=2e-5)


def test_the_second_run_reads_the_first_ones_results(encoder, manifest, tmp_path, monkeypatch):
    cohort = read_manifest(manifest)
    first, _ = embed_cohort(cohort, encoder, settings=SETTINGS, batch_size=2, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    # As after a crash: one result is lost.
    next(tmp_path.glob("*.npz")).unlink()
    read = []
    monkeypatch.setattr(
        "encoders.cohort_embeddings.read_case",
        lambda files, **options: read.append(files.patient_id) or read_case(files, **options),
    )
    again, _ = embed_cohort(cohort, encoder, settings=SETTINGS, batch_size=2, cache=tmp_path)
    assert len(read) == 2  # the lost one and the broken one
    np.testing.assert_allclose(again.embeddings, first.embeddings, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EmbeddingSettings(modalities=("t2",)), "reads 3 channels, and 1 modalities"),
        (EmbeddingSettings(shape=(24, 30, 32)), "multiple of 8 voxels"),
        (EmbeddingSettings(stages=(4,)), "the encoder has 1 to 2"),
    ],
)
def test_settings_that_do_not_fit(encoder, manifest, settings, message):
    with pytest.raises(InputError, match=message):
        embed_cohort(read_manifest(manifest), encoder, settings=settings)


def test_the_jobs(reference, manifest, tmp_path):
    """A PyTorch file is converted, the cohort embedded, the bad patient listed."""
    import torch

    torch.save({"model": reference.state_dict()}, tmp_path / "weights.pth")
    assert convert_job(ConvertConfig(tmp_path / "weights.pth", tmp_path / "encoder")) == 0
    metadata = encoders.checkpoints.load_ours(tmp_path / "encoder")[1]
    assert metadata["source"] == "weights.pth"
    assert len(metadata["source_sha256"]) == 64
    config = Config(
        cohort=manifest,
        encoder=tmp_path / "encoder",
        out=tmp_path / "E.npz",
        shape=SETTINGS.shape,
        spacing=SETTINGS.spacing_mm,
        batch_size=2,
    )
    assert job(config) == 3
    written = np.load(tmp_path / "E.npz")
    assert sorted(written) == ["embeddings", "patient_id"]
    assert written["embeddings"].shape == (3, 16)
    assert "factors-00002" in (tmp_path / "E.failures.csv").read_text()


def test_all_stages_and_all_blocks_are_told_apart(encoder, manifest, tmp_path):
    cohort = Cohort(manifest, read_manifest(manifest).cases[:2], ())
    one = EmbeddingSettings(SETTINGS.shape, SETTINGS.spacing_mm, stages=(1, 2))
    expected, _ = embed_cohort(cohort, encoder, settings=one, batch_size=2)
    for layers, unit in (("stages", "stage"), ("blocks", "block")):
        settings = EmbeddingSettings(SETTINGS.shape, SETTINGS.spacing_mm, layers=layers)
        found, _ = embed_cohort(cohort, encoder, settings=settings, batch_size=2)
        # Each stage has one block here.
        np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=2e-5)
        assert found.layer == (f"{unit}1",) * 8 + (f"{unit}2",) * 16
        found.save(tmp_path / "x.npz")
        with np.load(tmp_path / "x.npz") as stored:
            assert tuple(stored["layer"]) == found.layer
    alone, _ = embed_cohort(cohort, encoder, settings=SETTINGS, batch_size=2)
    assert alone.layer is None


def test_large_volumes_go_one_by_one_on_a_cpu(encoder, monkeypatch):
    def per_pass(*shape: int) -> int:
        return volumes_per_pass(encoder, replace(SETTINGS, shape=shape))

    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert [per_pass(64, 224, 224), per_pass(32, 48, 48), per_pass(1, 224, 224)] == [1, 4, 4]
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert per_pass(64, 224, 224) == 4
