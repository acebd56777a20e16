"""The jobs pretrain and fine-tune: cut off and run again, controls, and what they leave behind."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro
from flax import nnx
from tensorboardX.proto import event_pb2

import encoders
from encoders.checkpoints import load_ours
from encoders.encoder import encoder_hash, parameters
from encoders.volumes import CachedCohort
from experiments.common.training_data import TrainingData
from experiments.finetune import Config as FinetuneConfig
from experiments.finetune import _sources
from experiments.finetune import job as finetune_job
from experiments.main_job.images import cohort_split
from lens.cohort import read_case, read_manifest, stack, stack_mask, write_phantoms
from lens.errors import InputError
from tests.command_line import ended

SHAPE, SPACING = (16, 24, 24), (2.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Eleven phantoms, one of them with a file that is no image."""
    path = write_phantoms(tmp_path_factory.mktemp("phantoms"), 11, 0, progress=False)
    # The grid is too coarse for small lesions.
    table = pd.read_csv(path).drop(columns="lesion")
    table.to_csv(path, index=False)
    read_manifest(path).cases[4].images["dwi"].write_bytes(b"not an image")
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory, manifest) -> Path:
    """An encoder small enough to compile in seconds, and folders that the runs share."""
    folder = tmp_path_factory.mktemp("shared")
    config = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
    encoders.save(folder / "encoder", encoders.ConvNeXtV2(config, rngs=nnx.Rngs(0)))
    return folder


def flags(*switches: str, **values: object) -> FinetuneConfig:
    """The settings that the command line makes of these flags."""
    words = list(switches)
    for name, value in values.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return tyro.cli(FinetuneConfig, args=words)


def command(job: str, manifest: Path, shared: Path, out: Path) -> list[str]:
    own = {
        "pretrain": ["--patch", "8", "8", "8", "--width", "8", "--no-augment"],
        "finetune": ["--task", "regression", "--label", "volume_ml", "--channels", "t2"],
    }
    return [
        f"experiments.{job}", "--cohort", str(manifest), "--out", str(out),
        "--init", str(shared / "encoder"), "--cache", str(shared / "volumes"),
        "--shape", *map(str, SHAPE), "--spacing", *map(str, SPACING), "--epochs", "16",
        "--batch", "4", "--checkpoint-steps", "3", *own[job],
    ]  # fmt: skip


def run(words: list[str]) -> None:
    done = ended(*words)
    # One patient is set aside.
    assert done.returncode == 3, done.stderr
    assert "1 patient(s) set aside" in done.stderr


def kill_in_the_middle(words: list[str], folder: Path) -> None:
    """In a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    history = folder / "history.csv"
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if history.is_file() and len(history.read_text().splitlines()) > 5:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    assert process.wait(10) == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()


def scalars(folder: Path, tag: str) -> dict[int, float]:
    """Values of TensorBoard's event files; a later file replaces what an earlier one said."""
    values = {}
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime):
        content = path.read_bytes()
        while len(content) >= 12:
            (size,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + size])  # pyright: ignore[reportAttributeAccessIssue]
            content = content[16 + size :]
            for value in event.summary.value:
                if value.tag == tag:
                    values[event.step] = value.simple_value
    return values


@pytest.mark.parametrize("job", ["pretrain", "finetune"])
def test_killed_and_run_again_gives_the_same_curve(job, manifest, shared, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(command(job, manifest, shared, whole))
    kill_in_the_middle(command(job, manifest, shared, cut), cut / "seed-0")
    saved = [
        int(path.name) for path in (cut / "seed-0/checkpoints").iterdir() if path.name.isdigit()
    ]
    assert saved
    assert 0 < max(saved) < 32
    run(command(job, manifest, shared, cut))
    for name in ("history.csv", "metrics.json"):
        assert (cut / "seed-0" / name).read_text() == (whole / "seed-0" / name).read_text()
    for name in ("encoder", "encoder-last"):
        ours, theirs = (encoders.load(out / "seed-0" / name) for out in (cut, whole))
        assert encoder_hash(ours) == encoder_hash(theirs)
    curves = [scalars(out / "seed-0/tensorboard", "loss/step") for out in (cut, whole)]
    assert curves[0] == curves[1]
    assert sorted(curves[0]) == list(range(1, 33))
    metrics = json.loads((whole / "seed-0/metrics.json").read_text())
    assert metrics["val_loss"] <= metrics["val_loss_start"]
    assert {side: len(metrics["effective_rank"][side]) for side in ("start", "end")} == {
        "start": 1,
        "end": 1,
    }
    history = pd.read_csv(whole / "seed-0/history.csv")
    assert len(history) == 16
    np.testing.assert_allclose(
        history["train_loss"], np.reshape(list(curves[1].values()), (16, 2)).mean(axis=1), rtol=1e-6
    )
    check_patients(whole, manifest)


def check_patients(out: Path, manifest: Path) -> None:
    cohort = read_manifest(manifest)
    table = pd.read_csv(out / "patients.csv", keep_default_na=False).set_index("patient_id")
    split = cohort_split(cohort, 0)
    for files, part in zip(cohort.cases, split, strict=True):
        row = table.loc[files.patient_id]
        broken = files is cohort.cases[4]
        assert row["split"] == ("" if broken else part)
        assert str(row["used"]) == str(not broken and part != "test")
    failures = pd.read_csv(out / "failures.csv")
    assert list(failures["patient_id"]) == [cohort.cases[4].patient_id]


def test_cached_volumes_are_those_of_the_cases(manifest, shared, tmp_path):
    from encoders import volumes

    cohort = read_manifest(manifest)
    cached, errors = volumes.cache_cohort(
        cohort, tmp_path / "cache", shape=SHAPE, spacing_mm=SPACING, progress=False
    )
    assert len(errors) == 1
    assert len(cached.cases) == 10
    case = read_case(cached.cases[7], spacing_mm=SPACING)
    expected = stack(case, shape=SHAPE)
    np.testing.assert_array_equal(cached.volumes()[[7]][0], expected)
    t2 = cached.volumes(("t2", "", ""))[[7]][0]
    np.testing.assert_array_equal(t2[..., 0], expected[..., 0])
    assert not t2[..., 1:].any()
    gland = stack_mask(case, "gland", shape=SHAPE)
    np.testing.assert_array_equal(cached.masks("gland")[[7]][0], gland)
    order = np.arange(10)[::-1]
    np.testing.assert_array_equal(cached.masks("gland", order)[[2]][0], gland)
    # Too large for memory, the same rows come from the files.
    memory, stored = cached.volumes(), volumes.Stored(cached.files, lambda f: np.load(f)["volume"])
    for rows in (np.array([3, 1, 3]), slice(2, 4), [5]):
        np.testing.assert_array_equal(stored[rows], memory[rows])
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(before) == 2 * 10
    volumes.cache_cohort(
        cohort, tmp_path / "cache", shape=SHAPE, spacing_mm=SPACING, progress=False
    )
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert after == before


def test_permuted_labels_stay_on_their_side(manifest, shared, tmp_path):
    """Train and val patients exchange labels, test patients keep theirs; seeds differ."""
    cohort = read_manifest(manifest)
    cases = cohort.cases
    split = np.array(["train"] * 6 + ["test"] * 3 + ["val"] * 2)
    data = TrainingData(CachedCohort(cases, (), cohort), split, ())
    config = flags(
        cohort=manifest, out=tmp_path, task="regression", label="volume_ml",
        control="permuted-labels",
    )  # fmt: skip
    first, second = (_sources(config, data, seed) for seed in (0, 1))
    np.testing.assert_array_equal(first, _sources(config, data, 0))
    assert not np.array_equal(first, second)
    for order in (first, second):
        np.testing.assert_array_equal(order[split == "test"], np.flatnonzero(split == "test"))
        np.testing.assert_array_equal(np.sort(order), np.arange(11))


def test_seeds_and_control_are_recorded(manifest, shared, tmp_path):
    config = flags(
        "--freeze", "--no-augment", cohort=manifest, out=tmp_path / "run", task="classification",
        label="pirads", init=shared / "encoder", cache=shared / "volumes", shape=SHAPE,
        spacing=SPACING, epochs=1, batch=4, seeds=2, control="permuted-labels",
    )  # fmt: skip
    assert finetune_job(config) == 3
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["control"] == "permuted-labels"
    assert metrics["frozen"] is True
    assert metrics["lora"] is None
    scores = [metrics["seeds"][seed]["test"]["accuracy"] for seed in ("0", "1")]
    assert metrics["over_seeds"]["accuracy"]["mean"] == pytest.approx(np.mean(scores))
    assert metrics["over_seeds"]["accuracy"]["sd"] == pytest.approx(np.std(scores, ddof=1))
    table = pd.read_csv(tmp_path / "run/patients.csv").dropna(subset=["label_of_seed_0"])
    fit = table["used"].astype(bool)
    assert set(table["label_of_seed_0"][fit]) == set(table["patient_id"][fit])
    assert (table["label_of_seed_0"] != table["patient_id"])[fit].any()
    start = encoder_hash(encoders.load(shared / "encoder"))
    for seed in ("0", "1"):
        tuned, facts = load_ours(tmp_path / f"run/seed-{seed}/encoder")
        assert facts["control"] == "permuted-labels"
        assert facts["init"] == str(shared / "encoder")
        assert encoder_hash(tuned) == start


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "psa"}, "no label with values 'psa'; there are pirads, volume_ml"),
        ({"task": "segmentation", "label": "tumour"}, "no region 'tumour'; there are gland"),
        ({"channels": ("t1",)}, "no modality 't1'; there are t2, dwi, adc, none"),
        ({"shape": (16, 24, 22)}, "multiples of 4 voxels"),
        ({"epochs": 0}, "--epochs is 0; at least 1 is needed"),
        ({"rate": -1.0}, "--rate is -1.0; more than 0 is needed"),
        ({"init": "nowhere"}, "nowhere: no such file"),
    ],
)
def test_what_cannot_be_trained_is_refused(manifest, shared, tmp_path, changes, message):
    settings = {
        "cohort": manifest, "out": tmp_path / "run", "task": "regression", "label": "volume_ml",
        "init": shared / "encoder", "cache": shared / "volumes", "shape": SHAPE,
        "spacing": SPACING, "epochs": 1, "batch": 4,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        finetune_job(flags(**{**settings, **changes}))


def test_low_rank_updates_are_recorded_and_part_of_the_encoder(manifest, shared, tmp_path):
    config = flags(
        "--no-augment", cohort=manifest, out=tmp_path / "run", task="regression",
        label="volume_ml", init=shared / "encoder", cache=shared / "volumes", shape=SHAPE,
        spacing=SPACING, epochs=4, batch=4, lora=2,
    )  # fmt: skip
    assert finetune_job(config) == 3
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["lora"] == {"rank": 2, "alpha": 2.0}
    before = parameters(encoders.load(shared / "encoder"))
    tuned, facts = load_ours(tmp_path / "run/seed-0/encoder-last")
    assert facts["lora"] == {"rank": 2, "alpha": 2.0}
    assert facts["frozen"] is False
    after = parameters(tuned)
    assert list(after) == list(before)
    moved = {name for name in after if np.any(after[name][...] != before[name][...])}
    assert moved == {"blocks.0.0.expand.kernel", "blocks.0.0.project.kernel"}


def test_curves_are_written_without_loading_pytorch(tmp_path) -> None:
    """TensorBoard's package would load it; what imports it later finds it."""
    script = """
import sys
from pathlib import Path
import numpy as np
from encoders.training import Curves
from experiments.common.training_curves import CurveWriter
ones = np.ones(2)
writer = CurveWriter(Path(sys.argv[1]))
writer(Curves(ones[:1], ones[:1], 1.0, 0, ones, ones))
writer.close()
print(any(name.split(".")[0] == "torch" for name in sys.modules))
import torch
"""
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
    assert list((tmp_path / "tensorboard").iterdir())
