"""A cohort of pictures: an encoder of images is fine-tuned on it, each picture a slice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from flax import nnx

import encoders
from encoders.checkpoints import load_ours
from encoders.encoder import encoder_hash
from encoders.vit import ViT, ViTConfig
from experiments import finetune
from tests.command_line import started

SIDE = 16


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of two classes; the bright ones are ill."""
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        gray = rng.integers(0, 100, (SIDE, SIDE)) + 100 * (number % 2)
        path = tmp_path / f"{number}.png"
        sitk.WriteImage(sitk.GetImageFromArray(gray.astype(np.uint8)), str(path))
        label = ("well", "ill")[number % 2]
        split = ("val", "test")[number // 2 % 2] if number < 4 else "train"
        row = {"patient_id": f"P{number}", "us": path.name, "label": label, "split": split}
        rows.append(row)
    manifest = tmp_path / "cohort.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return manifest


@pytest.fixture
def start(tmp_path: Path) -> Path:
    layout = ViTConfig(depth=1, width=8, heads=1, hidden=8, patch=8, grid=(2, 2), in_channels=1)
    encoders.save(tmp_path / "start", ViT(layout, rngs=nnx.Rngs(0)))
    return tmp_path / "start"


def tuned(pictures: Path, start: Path, monkeypatch, *switches: str, shape=(1, SIDE, SIDE)) -> int:
    return started(
        finetune, monkeypatch, *switches, cohort=pictures, init=start, task="classification",
        label="label", shape=shape, spacing=(1, 1, 1), epochs=2, batch=4,
        out=pictures.parent / "tuned",
    )  # fmt: skip


def test_an_encoder_of_images_is_fine_tuned_on_pictures(pictures, start, monkeypatch) -> None:
    assert tuned(pictures, start, monkeypatch) == 0
    out = pictures.parent / "tuned"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["seeds"]["0"]["n_train"] == 8
    before, after = (load_ours(path)[0] for path in (start, out / "seed-0" / "encoder-last"))
    assert encoder_hash(before) != encoder_hash(after)


def test_where_no_epoch_is_better_the_encoder_is_the_one_it_started_from(
    pictures, start, monkeypatch, capsys
) -> None:
    """A rate that moves no number: every epoch is as good as the start, and none is better."""
    assert tuned(pictures, start, monkeypatch, "--rate", "1e-30") == 0
    assert "seed 0: no epoch was better than the start" in capsys.readouterr().err
    out = pictures.parent / "tuned"
    metrics = json.loads((out / "metrics.json").read_text())["seeds"]["0"]
    assert metrics["best_epoch"] == 0
    # The head says nothing at the start: two classes, weighed alike.
    assert metrics["val_loss"] == metrics["val_loss_start"] == pytest.approx(np.log(2))
    assert metrics["effective_rank"]["start"] == metrics["effective_rank"]["end"]
    kept, facts = load_ours(out / "seed-0" / "encoder")
    assert encoder_hash(kept) == encoder_hash(load_ours(start)[0])
    assert facts["best_epoch"] == 0
    assert not pd.read_csv(out / "seed-0" / "history.csv")["best"].any()


def test_a_shape_of_several_slices_is_refused(pictures, start, monkeypatch, capsys) -> None:
    assert tuned(pictures, start, monkeypatch, shape=(16, SIDE, SIDE)) == 1
    assert "write --shape 1 224 224" in capsys.readouterr().err
