"""Every job refuses what it cannot use before its first slow stage, which must not be reached."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro
from flax import nnx

import encoders
from lens.cohort import write_phantoms
from lens.errors import InputError
from tests.planted import plant

SHAPE, SPACING = (16, 24, 24), (2.0, 2.0, 3.0)
TINY = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())


@dataclass(frozen=True)
class Inputs:
    """Files that are as they should be."""

    folder: Path
    manifest: Path

    def flags(self, **values: object) -> list[str]:
        """``--name value`` for each; None leaves one out."""
        words: list[str] = []
        for name, value in values.items():
            if value is not None:
                parts = value if isinstance(value, tuple) else (value,)
                words += [f"--{name.replace('_', '-')}", *map(str, parts)]
        return words

    def encoder(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Twelve phantoms, encoders, tables of every kind, and some that do not fit."""
    folder = tmp_path_factory.mktemp("inputs")
    manifest = write_phantoms(folder / "cohort", 12, 0, progress=False)
    kinds = {
        "pre": TINY,
        "ft": TINY,
        "wide": encoders.ConvNeXtV2Config(depths=(1,), widths=(16,), strides=()),
        "one-channel": encoders.ConvNeXtV2Config(
            depths=(1,), widths=(8,), strides=(), in_channels=1
        ),
    }
    for seed, (name, config) in enumerate(kinds.items()):
        encoders.save(folder / name, encoders.ConvNeXtV2(config, rngs=nnx.Rngs(seed)))
    (folder / "text.safetensors").write_text("no weights")
    (folder / "wrong.yaml").write_text("setting: {binwidth: 50}\n")
    ids = pd.read_csv(manifest, dtype=str)["patient_id"]
    table = pd.DataFrame({"patient_id": ids, "split": "train"})
    table.to_csv(folder / "one-part.csv", index=False)
    table.drop(columns="split").to_csv(folder / "ids.csv", index=False)
    return Inputs(folder, manifest)


def never(*_: Any, **__: Any) -> Any:
    """Stands for the first slow stage."""
    pytest.fail("the first slow stage was reached")


def refused(config: Any, job: Callable[[Any], int], words: list[str]) -> str:
    """The message of a job that refuses these flags."""
    with pytest.raises(InputError) as caught:
        job(tyro.cli(config, args=words))
    return str(caught.value)


def reached(config: Any, job: Callable[[Any], int], words: list[str]) -> None:
    """These flags get as far as the first slow stage: what is refused is not refused for them."""
    with pytest.raises(pytest.fail.Exception, match="first slow stage"):
        job(tyro.cli(config, args=words))


COHORT = {"spacing": SPACING, "shape": SHAPE, "folds": 2}


def sweep_words(inputs: Inputs, place: Path, **changes: object) -> list[str]:
    named = {"encoder_pre": inputs.encoder("pre"), "encoder_ft": f"cls={inputs.encoder('ft')}"}
    common = COHORT | {"cohort": inputs.manifest, "out": place / "run", "folds": 2}
    return inputs.flags(**{**named, **common, **changes})


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Callable[[Any], int]]:
    from experiments.sweep import Config, job

    monkeypatch.setattr("lens.radiomics.cohort_features.extract_cohort", never)
    monkeypatch.setattr("encoders.cohort_embeddings.embed_cohort", never)
    monkeypatch.setattr("experiments.main_job.table_default.write_phantoms", never)
    return Config, job


@pytest.mark.timeout(60, func_only=True)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("run.json", "folder"),
        ("run.json", "pipe"),
        ("failures.csv", "folder"),
        ("sweep.parquet", "folder"),
        ("doctor/doctor.json", "folder"),
        ("scopes/all/sweep.parquet", "folder"),
        ("cls/verdicts.parquet", "folder"),
        ("report.html", "folder"),
        ("cls", "file"),
        ("cls", "pipe"),
        ("doctor", "file"),
        ("figures", "file"),
        ("scopes", "file"),
        ("radiomics.parquet", "folder"),
        ("embeddings", "file"),
    ],
)
def test_what_stands_where_the_run_writes_is_refused_first(
    sweep, inputs, tmp_path, name, kind
) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    {"folder": path.mkdir, "file": path.touch, "pipe": lambda: os.mkfifo(path)}[kind]()
    message = refused(*sweep, sweep_words(inputs, tmp_path))
    found = "a named pipe" if kind == "pipe" else f"a {kind}"
    assert message.startswith(f"{path}: is {found}, where the run ")
    assert "choose another --out" in message


def test_the_main_job_on_images_reaches_its_first_stage(sweep, inputs, tmp_path) -> None:
    reached(*sweep, sweep_words(inputs, tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_pre": "absent.pth"}, "absent.pth: no such file"),
        ({"encoder_ft": "cls=absent"}, "absent: no such file"),
        ({"encoder_ft": "cls={}/text.safetensors"}, "neither a PyTorch file nor safetensors"),
        ({"encoder_ft": "cls={}/cohort"}, "without encoder.json"),
        ({"encoder_ft": "cls={}/wide"}, "gives 16 numbers"),
        ({"encoder_ft": "cls={}/one-channel"}, "reads 1 channels"),
        ({"shape": (16, 24, 22)}, "multiple of 4 voxels"),
        ({"spacing": (2.0, 0.0, 3.0)}, "--spacing is 0.0"),
        ({"roi": "glnd"}, "no region 'glnd'; did you mean gland? there are gland, lesion"),
        ({"scope": "cls=T2.gland"}, "no modality 'T2'; did you mean t2?"),
        ({"scope": "cls=t2.prostate"}, "no region 'prostate'"),
        ({"channels": "cls=t1"}, "no modality 't1'"),
        ({"label": "lesio=3"}, "did you mean lesion"),
        ({"parameters": "t3={}/wrong.yaml"}, "no modality 't3'"),
        ({"parameters": "{}/wrong.yaml"}, "not a valid PyRadiomics parameter file"),
        ({"parameters": "absent.yaml"}, "absent.yaml: no such file"),
        ({"workers": 0}, "--workers is 0"),
        ({"adjust": "volume_m"}, "no column volume_m"),
        ({"site": "hospital"}, "no column hospital"),
        ({"exposure": "{}/ids.csv"}, "columns patient_id and used"),
        ({"exposure": "absent.csv"}, "absent.csv: no such file"),
        ({"repeatability": "{}/ids.csv"}, "columns column and icc are needed"),
        ({"split": "{}/one-part.csv"}, "patient.s. in val"),
        ({"split": "{}/ids.csv"}, "columns patient_id and split"),
        ({"labels": "absent.csv", "adjust": "x"}, "absent.csv: no such file"),
        ({"folds": 13}, "folds 13"),
        ({"out": "{}/ids.csv/run"}, "is a file, not a folder"),
    ],
    ids=str,
)
def test_the_main_job_on_images_refuses_first(sweep, inputs, tmp_path, changes, message) -> None:
    import re

    filled = {
        name: value.format(inputs.folder) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    said = refused(*sweep, sweep_words(inputs, tmp_path, **filled))
    assert re.search(message.replace("?", r"\?"), said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--roi", "lesions"], "did you mean lesion"),
        (["--shape", "20", "48", "48"], "must be a multiple of the patch"),
        (["--phantoms", "6"], "at least 10"),
        (["--exposure", "absent.csv"], "no such file"),
        (["--folds", "500"], "folds 500"),
    ],
)
def test_the_embedded_default_refuses_first(sweep, tmp_path, words, message) -> None:
    assert message in refused(*sweep, [*words, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scope": "reg=t2.lesion"}, "'lesion'"),
        ({"scope": "reg=T2.gland"}, "did you mean t2"),
        ({"exposure": "reg=absent.csv"}, "absent.csv: no such file"),
        ({"folds": 99}, "folds 99"),
        ({"radiomics": "absent.csv"}, "absent.csv: no such file"),
    ],
)
def test_of_two_tasks_the_second_is_checked_before_the_first_is_analysed(
    monkeypatch, tmp_path, changes, message
) -> None:
    from experiments.sweep import Config, job

    monkeypatch.setattr("lens.stages.train", never)
    paths = plant(n=60, d=6).write(tmp_path)
    words = ["--pre", str(paths["pre"]), "--out", str(tmp_path / "run")]
    words += ["--ft", f"cls={paths['ft']}", "--ft", f"reg={paths['ft']}"]
    files = {"radiomics": paths["radiomics"], "scope": "reg=t2.gland"}
    flags = Inputs(tmp_path, tmp_path).flags
    assert message in refused(Config, job, words + flags(**{**files, **changes}))
    reached(Config, job, words + flags(**files))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ("T2", "DWI", "ADC")}, "did you mean t2? there are t2, dwi, adc"),
        ({"modalities": ("none", "none", "none")}, "the encoder would see zeros alone"),
        ({"modalities": ("t2", "adc")}, "reads 3 channels, and 2 modalities"),
        ({"encoder": "absent"}, "--encoder absent: no such file"),
        ({"label": "Gland=1"}, "did you mean gland"),
        ({"shape": (16, 24, 22)}, "multiple of 4 voxels"),
        ({"stage": 2}, "the encoder has 1 to 1"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"out": "E.csv"}, "written as .npz"),
    ],
    ids=str,
)
def test_embed_refuses_first(monkeypatch, inputs, tmp_path, changes, message) -> None:
    from experiments.embed import Config, job

    monkeypatch.setattr("encoders.cohort_embeddings.read_case", never)
    flags = {
        "cohort": inputs.manifest, "encoder": inputs.encoder("pre"), "out": tmp_path / "E.npz",
        "shape": SHAPE, "spacing": SPACING,
    }  # fmt: skip
    assert message in refused(Config, job, inputs.flags(**{**flags, **changes}))
    reached(Config, job, inputs.flags(**flags))


TRAINING: dict[str, object] = {"shape": SHAPE, "spacing": SPACING, "epochs": 1, "batch": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "absent"}, "--init absent: no such file"),
        ({"init": "{}/one-channel"}, "reads 1 channels"),
        ({"patch": (8, 8, 10)}, "multiple of 4 voxels"),
        ({"patch": (16, 16, 16)}, "must be a multiple of the patch"),
        ({"ratio": 1.5}, "--ratio is 1.5; more than 0 and less than 1"),
        ({"width": 0}, "--width is 0"),
        ({"modalities": ("T2", "DWI", "ADC")}, "did you mean t2?"),
        ({"rate": -1.0}, "--rate is -1.0; more than 0"),
        ({"checkpoint_steps": 0}, "--checkpoint-steps is 0"),
    ],
    ids=str,
)
def test_pretrain_refuses_first(monkeypatch, inputs, tmp_path, changes, message) -> None:
    from experiments.pretrain import Config, job

    monkeypatch.setattr("encoders.volumes.read_case", never)
    flags = TRAINING | {
        "cohort": inputs.manifest, "out": tmp_path / "run", "init": inputs.encoder("pre"),
        "patch": (8, 8, 8),
    }  # fmt: skip
    filled = {n: v.format(inputs.folder) if isinstance(v, str) else v for n, v in changes.items()}
    assert message in refused(Config, job, inputs.flags(**{**flags, **filled}))
    assert not (tmp_path / "run").exists()
    reached(Config, job, inputs.flags(**flags))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "absent"}, "--init absent: no such file"),
        ({"init": "{}/one-channel"}, "reads 1 channels"),
        ({"label": "volume"}, "no label with values 'volume'; did you mean volume_ml?"),
        ({"label": "site"}, "site: 0 of 12 values are numbers"),
        ({"label": "same"}, "nothing to learn"),
        ({"task": "segmentation", "label": "Lesion"}, "did you mean lesion?"),
        ({"channels": "T2"}, "did you mean t2"),
        ({"layer_decay": 0.0}, "--layer-decay is 0.0"),
        ({"lora": 0}, "--lora is 0; at least 1 is needed"),
        ({"lora": 9}, "--lora is 9; at most 8 is needed, the width of"),
        ({"lora": 2, "freeze": ()}, "--lora is 2, which trains the encoder, and freeze leaves"),
        ({"lora_alpha": 2.0}, "--lora-alpha is 2.0, and there is no rank"),
        ({"shape": (16, 24, 22)}, "multiples of 4 voxels"),
        ({"out": "{}/ids.csv"}, "is a file, not a folder"),
    ],
    ids=str,
)
def test_finetune_refuses_first(monkeypatch, inputs, tmp_path, changes, message) -> None:
    from experiments.finetune import Config, job

    monkeypatch.setattr("encoders.volumes.read_case", never)
    table = pd.read_csv(inputs.manifest, dtype=str)
    manifest = inputs.manifest.with_name("labels.csv")
    table.assign(site=np.where(table.index % 2, "a", "b"), same="1").to_csv(manifest, index=False)
    flags = TRAINING | {
        "cohort": manifest, "out": tmp_path / "run", "init": inputs.encoder("pre"),
        "task": "regression", "label": "volume_ml",
    }  # fmt: skip
    filled = {n: v.format(inputs.folder) if isinstance(v, str) else v for n, v in changes.items()}
    assert message in refused(Config, job, inputs.flags(**{**flags, **filled}))
    reached(Config, job, inputs.flags(**flags))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "glands=1"}, "did you mean gland"),
        ({"parameters": "adcc={}/wrong.yaml"}, "did you mean adc"),
        ({"parameters": "absent.yaml"}, "absent.yaml: no such"),
        ({"spacing": (0.5, 0.5, 0.0)}, "--spacing"),
        ({"workers": 0}, "--workers is 0"),
        ({"cache": "{}/ids.csv"}, "is a file, not a folder"),
        ({"out": "{}/cohort.csv/R.csv"}, "is a file"),
        ({"out": "R.xlsx"}, "written as .parquet or .csv"),
    ],
    ids=str,
)
def test_radiomics_refuses_first(monkeypatch, inputs, tmp_path, changes, message) -> None:
    from experiments.radiomics import Config, job

    (inputs.folder / "cohort.csv").touch()
    monkeypatch.setattr("lens.radiomics.cohort_features.extract_cohort", never)
    flags = {"cohort": inputs.manifest, "out": tmp_path / "R.parquet"}
    filled = {n: v.format(inputs.folder) if isinstance(v, str) else v for n, v in changes.items()}
    assert message in refused(Config, job, inputs.flags(**{**flags, **filled}))
    reached(Config, job, inputs.flags(**flags))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roi": "glands"}, "did you mean gland"),
        ({"modality": "T2"}, "did you mean t2"),
        ({"out": "{}/pre.npz/x"}, "is a file"),
        ({"folds": 99}, "--folds 99"),
    ],
)
def test_doctor_refuses_first(monkeypatch, tmp_path, changes, message) -> None:
    from experiments.doctor import Config, job

    monkeypatch.setattr("lens.verdicts.doctor.examine", never)
    paths = plant(n=40, d=6).write(tmp_path)
    flags = {"pre": paths["pre"], "radiomics": paths["radiomics"], "out": tmp_path / "out"}
    filled = {n: v.format(tmp_path) if isinstance(v, str) else v for n, v in changes.items()}
    words = Inputs(tmp_path, tmp_path).flags
    assert message in refused(Config, job, words(**{**flags, **filled}))
    reached(Config, job, words(**flags))
