"""Labels and packs of the real studies, on made-up masks and volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from flax import nnx

from benchmarks.real.cohorts import duplicates, subset, volume_ml
from benchmarks.real.pack import Pack, read_pack, read_weights, write_pack, write_weights
from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import parameters


def test_the_volume_counts_the_named_values_in_ml(tmp_path: Path) -> None:
    mask = np.zeros((6, 10, 10), np.uint8)
    mask[1, :5, :4], mask[2, :3, :5], mask[4, 0, 0] = 1, 2, 3
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing((0.5, 2.0, 3.0))
    sitk.WriteImage(image, tmp_path / "mask.nii.gz")
    assert volume_ml(tmp_path / "mask.nii.gz", (1, 2)) == pytest.approx((20 + 15) * 3 / 1000)
    assert volume_ml(tmp_path / "mask.nii.gz", (2,)) == pytest.approx(15 * 3 / 1000)


def pack(step: float) -> Pack:
    rng = np.random.default_rng(0)
    volumes = step * rng.integers(-40, 60, (3, 4, 6, 5, 1))
    volumes[:, :, 0] = 0
    return Pack(
        patient_id=np.array(["a", "a", "b"]),
        study_id=np.array(["1", "2", "3"]),
        split=np.array(["train", "train", "test"]),
        volumes=volumes.astype(np.float32),
        masks={"lesion": rng.random((3, 4, 6, 5)) > 0.5},
        label=np.array(["benign", "malignant", "benign"]),
    )


def test_a_pack_gives_back_what_it_was_given_and_zero_exactly(tmp_path: Path) -> None:
    given = pack(0.05)
    write_pack(tmp_path / "pack.npz", given, step=0.05, zero=60)
    read = read_pack(tmp_path / "pack.npz")
    np.testing.assert_allclose(read.volumes, given.volumes, atol=1e-6)
    assert np.array_equal(read.volumes == 0, given.volumes == 0)
    assert np.array_equal(read.masks["lesion"], given.masks["lesion"])
    for name in ("patient_id", "study_id", "split", "label"):
        assert getattr(read, name).tolist() == getattr(given, name).tolist()
    assert read.rows("train").tolist() == [0, 1]


def test_a_pack_clips_what_is_beyond_its_codes(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.npz", pack(1.0), step=1.0, zero=30)
    assert read_pack(tmp_path / "pack.npz").volumes.min() == -30


def test_weights_come_back_to_the_precision_of_bfloat16(tmp_path: Path) -> None:
    layout = ConvNeXtV2Config(dims=3, depths=(1, 1), widths=(4, 8), strides=(2,), in_channels=1)
    given, other = (ConvNeXtV2(layout, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    write_weights(tmp_path / "weights.npz", given)
    read_weights(tmp_path / "weights.npz", other)
    theirs = parameters(other)
    for name, parameter in parameters(given).items():
        expected = np.asarray(parameter[...])
        # Half of the last of 8 significant bits.
        np.testing.assert_allclose(theirs[name][...], expected, rtol=2**-8, err_msg=name)


def test_duplicates_are_counted_by_group() -> None:
    table = pd.DataFrame(
        {"patient_id": ["g0", "g0", "g1", "g2", "g2"], "diagnosis": ["b", "m", "b", "m", "m"]}
    )
    found = duplicates(table)
    assert found["lesions"] == 5
    assert found["groups"] == 3
    assert found["largest_group"] == 2
    assert found["lesions_with_a_duplicate"] == 4
    assert found["groups_of_both_diagnoses"] == 1


def test_a_subset_has_one_study_of_each_patient(tmp_path: Path) -> None:
    ids = [f"P{i // 2}" for i in range(40)]
    table = pd.DataFrame({"patient_id": ids, "study_id": [str(i) for i in range(40)]})
    table.to_csv(tmp_path / "all.csv", index=False)
    subset(tmp_path / "all.csv", tmp_path / "some.csv", 7, seed=3)
    some = pd.read_csv(tmp_path / "some.csv")
    assert len(some) == some["patient_id"].nunique() == 7
