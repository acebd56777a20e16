"""The jobs with every kind of encoder: a ViT's file, functions of the user's own, an ONNX file."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro
from flax import nnx

import encoders
from encoders.vit import ViT, ViTConfig
from experiments import embed, finetune, sweep
from lens.errors import InputError, UserCodeError
from tests.cohort.builders import ball, image, noise, write
from tests.encoders.test_onnx_files import model

SHAPE, SPACING = (8, 16, 16), (4.0, 4.0, 6.0)
VIT = ViTConfig(depth=1, width=8, heads=2, hidden=8, patch=8, grid=(2, 2))
CODE = """
    import torch
    from pathlib import Path

    def load(seed):
        torch.manual_seed(seed)
        net = torch.nn.Conv3d(3, 4, 4, stride=4).eval()

        def encode(volumes):
            return net(torch.from_numpy(volumes).movedim(-1, 1)).movedim(1, -1)

        encode.cache_key = ["seed", seed]
        return encode

    def before():
        return load(0)

    def after():
        return load(1)

    def wide():
        return lambda volumes: torch.zeros(len(volumes), 9)

    def broken(volumes):
        raise KeyError("weights")
"""


@dataclass(frozen=True)
class Place:
    """A cohort, a table of its radiomics, encoders."""

    folder: Path
    manifest: Path

    @property
    def code(self) -> Path:
        return self.folder / "mine.py"

    def common(self, **flags: object) -> list[str]:
        words = ["--cohort", str(self.manifest)]
        named = {"shape": SHAPE, "spacing": SPACING} | flags
        for name, value in named.items():
            parts = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, parts)]
        return words


def write_cohort(folder: Path, patients: int) -> Path:
    """Noise on the very grid of the encoders, so that neither resampling nor networks take long."""
    gland = ball(SHAPE, 24.0, SPACING)
    rows = []
    for number in range(patients):
        row: dict[str, object] = {"patient_id": f"P{number:02d}", "volume_ml": 30 + number}
        for at, name in enumerate(("t2", "dwi", "adc")):
            array = noise(SHAPE, 3 * number + at)
            row[name] = write(image(array, SPACING), folder / f"{number}-{name}.mha")
        row["gland"] = write(image(gland, SPACING), folder / f"{number}-gland.mha")
        rows.append(row | {"pirads": 2 + number % 2})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("kinds")
    manifest = write_cohort(folder / "cohort", 10)
    (folder / "mine.py").write_text(textwrap.dedent(CODE))
    for seed, name in enumerate(("vit", "vit-after")):
        encoders.save(folder / name, ViT(VIT, rngs=nnx.Rngs(seed)))
    ids = pd.read_csv(manifest, dtype=str)["patient_id"]
    values = np.random.default_rng(0).normal(size=(len(ids), 6))
    names = [f"t2.gland.original_glcm_{name}" for name in ("Idm", "Id", "Contrast", "Idn")]
    names += [f"adc.gland.original_firstorder_{name}" for name in ("Mean", "Entropy")]
    table = pd.DataFrame(values, columns=names)
    table.insert(0, "patient_id", ids)
    table.to_csv(folder / "radiomics.csv", index=False)
    return Place(folder, manifest)


def call(job: Any, words: list[str]) -> int:
    return job.job(tyro.cli(job.Config, args=words))


def rows_of(file: Path) -> np.ndarray:
    with np.load(file) as content:
        return content["embeddings"]


def test_the_main_job_with_functions_goes_on_where_it_was(
    place, tmp_path, capsys, monkeypatch
) -> None:
    # Analysis and page take most of the time, and are the same for every kind of encoder.
    given = []

    def analyse(plan, inputs, record) -> tuple:
        given.append(inputs)
        return inputs.set_aside

    monkeypatch.setattr("experiments.main_job.analysis.analyse", analyse)
    monkeypatch.setattr("lens.report.page.write_report", lambda folder, **_: folder / "run.json")
    words = place.common(
        encoder_pre=f"{place.code}:before", encoder_ft=f"cls={place.code}:after",
        radiomics=place.folder / "radiomics.csv", out=tmp_path / "run", hidden=2, epochs=2,
        l1=1e-6, l2=1e-5, bootstraps=20, folds=0, doctor="off",
    )  # fmt: skip
    assert call(sweep, [*words, "--dry-run"]) == 0
    assert not (tmp_path / "run").exists()
    assert call(sweep, words) == 0
    tables = [tmp_path / f"run/embeddings/{name}.npz" for name in ("pre", "cls")]
    pre, after = map(rows_of, tables)
    assert pre.shape == after.shape == (10, 4)
    assert np.abs(pre - after).max() > 1e-3
    assert [list(each.tasks["cls"]) for each in given] == [tables]
    capsys.readouterr()
    assert call(sweep, [*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"embed {name} +done before, reused", said) for name in ("pre", "cls"))


def test_what_the_main_job_refuses_of_functions(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("encoders.cohort_embeddings.embed_cohort", None)
    table = {"radiomics": place.folder / "radiomics.csv", "out": tmp_path / "run", "folds": 0}
    code = place.code
    for pre, ft, kind, message in (
        ("before", "before", InputError, "are the same encoder"),
        ("before", "wide", InputError, "gives 9 numbers"),
        ("before", "broken", UserCodeError, "your own code raised KeyError: 'weights'"),
        ("nothing", "after", InputError, "has no nothing; it has .*before, after"),
    ):
        flags = {"encoder_pre": f"{code}:{pre}", "encoder_ft": f"cls={code}:{ft}"}
        with pytest.raises(kind, match=message):
            call(sweep, place.common(**flags, **table))
    assert not (tmp_path / "run").exists()


def test_embed_with_a_vit_a_function_and_onnx(place, tmp_path) -> None:
    vit = place.folder / "vit"
    for name, flags in {
        "class": {},
        "patches": {"tokens": "patches"},
        "gland": {"pool": "gland"},
        "one": {"modalities": "t2"},
    }.items():
        assert call(embed, place.common(encoder=vit, out=tmp_path / f"{name}.npz", **flags)) == 0
        assert rows_of(tmp_path / f"{name}.npz").shape == (10, 8)
    assert np.abs(rows_of(tmp_path / "class.npz") - rows_of(tmp_path / "patches.npz")).max() > 0.01
    own = f"{place.code}:before"
    assert call(embed, place.common(encoder=own, out=tmp_path / "f.npz", pool="gland")) == 0
    assert rows_of(tmp_path / "f.npz").shape == (10, 4)
    with pytest.raises(InputError, match="--output x: names an output of an"):
        call(embed, place.common(encoder=own, out=tmp_path / "g.npz", output="x"))
    model(tmp_path / "m.onnx", [1, 2, 16, 16])
    words = place.common(
        encoder=tmp_path / "m.onnx", out=tmp_path / "o.npz", output="maps", pool="gland",
        modalities=("t2", "adc"),
    )  # fmt: skip
    assert call(embed, words) == 0
    assert rows_of(tmp_path / "o.npz").shape == (10, 4)
    with pytest.raises(InputError, match="reads 2 channels, and 3"):
        call(
            embed, place.common(encoder=tmp_path / "m.onnx", out=tmp_path / "p.npz", output="maps")
        )


@pytest.mark.parametrize(("task", "label", "more"), [
    ("regression", "volume_ml", []), ("classification", "pirads", ["--freeze"]),
])  # fmt: skip
def test_finetune_takes_a_vit(place, tmp_path, task, label, more) -> None:
    words = place.common(
        task=task, label=label, init=place.folder / "vit", out=tmp_path / "run", epochs=1, batch=8,
        tokens="patches",
    )  # fmt: skip
    assert call(finetune, [*words, *more]) == 0
    tuned = encoders.load(tmp_path / "run/seed-0/encoder")
    assert isinstance(tuned, ViT)
    assert tuned.config.tokens == "patches"
    first = encoders.load(place.folder / "vit")
    assert isinstance(first, ViT)
    # Validation may prefer the start to the only epoch; the last epoch has moved all the same.
    last = encoders.load(tmp_path / "run/seed-0/encoder-last")
    assert isinstance(last, ViT)
    moved = np.abs(np.asarray(last.positions[...] - first.positions[...])).max()
    assert (moved == 0) == bool(more)


def test_finetune_refuses_what_is_called_and_what_a_vit_cannot(place, tmp_path) -> None:
    common = {"out": tmp_path / "run", "label": "volume_ml", "task": "regression"}
    with pytest.raises(InputError, match="can be embedded with, and not trained"):
        call(finetune, place.common(**common, init=f"{place.code}:before"))
    masks = common | {"task": "segmentation", "label": "gland"}
    with pytest.raises(InputError, match="is trained for classification and regression"):
        call(finetune, place.common(**masks, init=place.folder / "vit"))
    uneven = [*place.common(**common, init=place.folder / "vit"), "--shape", "8", "12", "16"]
    with pytest.raises(InputError, match="multiples of 8 voxels"):
        call(finetune, uneven)
