"""Flags of depth: a run from tables of all layers, and what is refused before anything slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.main_job.config import Config, LayerFlags, TableFlags
from experiments.sweep import job
from lens.errors import InputError
from lens.settings import changed
from tests.planted import plant

SMALL = {
    "hidden": 4, "epochs": 2, "l1": (1e-6,), "l2": (0.0,), "folds": 2, "repeats": 1,
    "bootstraps": 10, "flips": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tables, and layers of which the second holds what the tables hold, the first no change."""
    folder = tmp_path_factory.mktemp("layers")
    planted, rng = plant(n=80, d=10), np.random.default_rng(0)
    paths: dict[str, Any] = dict(planted.write(folder))
    names = planted.radiomics.columns[[0, *range(1, 49, 6), *range(2, 49, 6)]]
    planted.radiomics[names].to_csv(paths["radiomics"], index=False)

    def layers(name: str, *parts: np.ndarray, names: tuple[str, ...] = ("one", "two")) -> Path:
        layer = np.repeat(names, [part.shape[1] for part in parts])
        x, order = np.concatenate(parts, axis=1), rng.permutation(len(planted.ids))
        np.savez(folder / name, patient_id=planted.ids[order], embeddings=x[order], layer=layer)
        return folder / name

    paths["l-pre"] = layers("l-pre.npz", planted.pre, planted.pre)
    paths["l-ft"] = layers("l-ft.npz", planted.pre, planted.ft)
    paths["other"] = layers("other.npz", planted.pre, planted.ft, names=("one", "three"))
    return paths


def config(inputs: dict[str, Any], out: Path, **layers: Any) -> Config:
    tables = TableFlags(
        pre=(str(inputs["pre"]),), ft=(f"cls={inputs['ft']}",),
        radiomics=((str(inputs["radiomics"]),),),
    )  # fmt: skip
    return changed(Config(tables=tables, layers=LayerFlags(**layers), out=out), **SMALL)


@pytest.mark.usefixtures("undrawn")
def test_a_run_reads_layers_shows_them_and_forgets_them(inputs, tmp_path) -> None:
    given = {
        "layers_pre": (str(inputs["l-pre"]),), "layers_ft": (f"cls={inputs['l-ft']}",),
        "layers_permuted": (str(inputs["l-pre"]),),
    }  # fmt: skip
    out = tmp_path / "run"
    assert job(config(inputs, out, **given)) == 0
    table = pd.read_csv(out / "cls" / "layers.csv").set_index(["layer", "group"])
    assert table.loc[("one", "all"), "delta_r2"] == 0
    assert table.loc[("two", "firstorder"), "verdict"] == "lost"
    np.testing.assert_allclose(table["r2_permuted"], table["r2_pre"])
    assert table["r2_random"].isna().all()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Where in the encoder: depth" in page
    assert "firstorder lost at two" in page
    # The rest of the run is reused; what the run no longer asks for is gone from folder and page.
    assert job(config(inputs, out)) == 0
    assert not (out / "cls" / "layers.csv").exists()
    assert "Where in the encoder: depth" not in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"layers": True}, "--layers needs --cohort or the phantoms.*--layers-ft TASK=FILE"),
        ({"layers_pre": "l-pre"}, "--layers-pre also needs --layers-ft"),
        ({"layers_ft": "cls=l-ft"}, "--layers-pre is missing for task 'cls'"),
        ({"layers_pre": "l-pre", "layers_ft": "reg=l-ft"}, "--layers-ft of task 'reg'; the tasks"),
        ({"layers_random": "l-pre"}, "--layers-random and --layers-permuted need --layers"),
        ({"layers_pre": "l-pre", "layers_ft": "cls=other"}, "one, three; those of .*--stage all"),
        ({"layers_pre": "pre", "layers_ft": "cls=l-ft"}, "no array 'layer'"),
        ({"layers_pre": "absent", "layers_ft": "cls=l-ft"}, "absent: no such file"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_first(
    monkeypatch, inputs, tmp_path, names, message
) -> None:
    monkeypatch.setattr("lens.stages.train", lambda *_, **__: pytest.fail("too late"))
    flags: dict[str, Any] = {}
    for flag, entry in names.items():
        if entry is True:
            flags[flag] = True
            continue
        task, _, name = entry.rpartition("=")
        path = inputs.get(name, tmp_path / name)
        flags[flag] = (
            path if flag == "layers_random" else (f"{task}={path}" if task else str(path),)
        )
    with pytest.raises(InputError, match=message):
        job(config(inputs, tmp_path / "run", **flags))
