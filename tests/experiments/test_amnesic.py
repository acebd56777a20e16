"""The job on a finished run folder: its files, its page, and what it refuses before it begins."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.amnesic import Config, _of_task, _parted, job
from experiments.main_job.config import Config as MainConfig
from experiments.main_job.config import TableFlags
from experiments.sweep import job as sweep
from lens.amnesic import table as module
from lens.errors import InputError
from lens.report.results import read_results
from lens.settings import changed
from tests.planted import QUICK, plant_quick
from tests.undrawn import undraw


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from tables, and labels of its patients beside it."""
    folder = tmp_path_factory.mktemp("amnesic")
    planted = plant_quick()
    paths = planted.write(folder)
    tables = TableFlags(
        pre=(str(paths["pre"]),),
        ft=(f"cls={paths['ft']}",),
        radiomics=((str(paths["radiomics"]),),),
    )
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        assert sweep(changed(MainConfig(tables=tables, out=folder / "run"), **QUICK)) == 0
    rng = np.random.default_rng(0)
    # A label of the first feature of T2, which other classes of T2 share.
    value = planted.radiomics.iloc[:, 1]
    labels = pd.DataFrame(
        {
            "patient_id": planted.ids,
            "grade": np.where(value > value.median(), "high", "low"),
            "size": value + 0.1 * rng.standard_normal(90),
            "names": rng.choice(["a", "b", "c"], 90),
            "rare": np.where(np.arange(90) < 2, 1, 0),
            "</script>": np.where(value > value.median(), 1, 0),
            "a:b": np.where(value > value.median(), 1, 0),
        }
    )
    labels.to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The run folder, to change."""
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def config(finished: Path, folder: Path, *labels: str, **change) -> Config:
    entries = tuple(
        label if ":" in label else f"{finished / 'labels.csv'}:{label}" for label in labels
    )
    few = {"draws": 19, "bootstraps": 50, "folds": 3} | change
    return Config(folder, label=entries, **few)


def test_the_job_writes_tables_and_the_page_says_what_they_show(
    finished: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undraw(monkeypatch, but=("cls-amnesic",))
    assert "rest on?" not in (folder / "report.html").read_text("utf-8")
    assert job(config(finished, folder, "grade", "size", "</script>")) == 0
    table = pd.read_csv(folder / "cls" / "amnesic.csv")
    assert set(table["label"]) == {"grade", "size", "</script>"}
    assert dict(table.groupby("label")["score"].first()) == {
        "grade": "auc", "size": "r2", "</script>": "auc",
    }  # fmt: skip
    counts = table.groupby(["label", "stage"]).size()
    assert (counts == table["cluster"].nunique()).all()
    facts = json.loads((folder / "cls" / "amnesic.json").read_text())
    assert facts["draws"] == 19
    assert facts["labels"] == ["grade", "size", "</script>"]
    page = (folder / "report.html").read_text("utf-8")
    assert "<h3>Which radiomic information does the task rest on?</h3>" in page
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("cls: grade"))
    assert line.removeprefix("cls: ") in page, "the page and the terminal say the same"
    before = table[(table["label"] == "grade") & (table["stage"] == "pre")].iloc[0]
    assert f"an AUC of {before['score_before']:.2f}" in line
    assert "&lt;/script&gt; is predicted" in page
    assert "</script> is predicted" not in page
    assert (folder / "figures" / "cls-amnesic.png").stat().st_size > 5000


def test_a_label_of_one_task_and_no_page(finished: Path, folder: Path) -> None:
    written = (folder / "report.html").read_bytes()
    entry = f"cls={finished / 'labels.csv'}:grade"
    assert job(config(finished, folder, entry, page=False, by="copies")) == 0
    assert (folder / "report.html").read_bytes() == written
    found = read_results(folder).tasks["cls"].amnesic
    assert set(found["label"]) == {"grade"}
    assert found["cluster"].str.contains("_").all(), "near copies are called by their medoid"


def test_a_column_with_a_colon_in_its_name(finished: Path) -> None:
    table = finished / "labels.csv"
    assert _parted(f"{table}:a:b") == (table, "a:b")
    assert _of_task(f"cls={table}:a:b", ["cls"]) == ("cls", table, "a:b")
    assert _parted("nowhere:grade") == (Path("nowhere"), "grade")


def test_a_table_of_another_run_is_not_shown(finished: Path, folder: Path) -> None:
    assert job(config(finished, folder, "grade", page=False)) == 0
    run = json.loads((folder / "run.json").read_text())
    run["inputs"] = dict.fromkeys(run["inputs"], "0" * 64)
    (folder / "run.json").write_text(json.dumps(run))
    assert read_results(folder).tasks["cls"].amnesic.empty


def test_a_table_of_other_regions_of_the_same_tables_is_not_shown(
    finished: Path, folder: Path
) -> None:
    assert job(config(finished, folder, "grade", page=False)) == 0
    run = json.loads((folder / "run.json").read_text())
    assert not read_results(folder).tasks["cls"].amnesic.empty
    run["scopes"][run["tasks"]["cls"]]["rois"] = ["another"]
    (folder / "run.json").write_text(json.dumps(run))
    assert read_results(folder).tasks["cls"].amnesic.empty


def test_tables_elsewhere_are_those_of_the_run_or_refused(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    """Embeddings of another encoder would pass for those that the page is about."""
    moved = shutil.copy(finished / "pre.npz", tmp_path / "moved.npz")
    few = {"page": False, "dry_run": True}
    assert job(config(finished, folder, "grade", pre=Path(moved), **few)) == 0
    with np.load(moved) as content:
        arrays = dict(content)
    np.savez(moved, **{**arrays, "embeddings": 2 * arrays["embeddings"]})
    with pytest.raises(InputError, match=r"moved\.npz: is not what the run read"):
        job(config(finished, folder, "grade", pre=Path(moved), **few))
    ft = json.loads((folder / "run.json").read_text())["config"]["ft"][0].partition("=")[2]
    with pytest.raises(InputError, match="is not what the run read"):
        job(config(finished, folder, "grade", pre=Path(ft), **few))


def test_a_dry_run_counts_the_erasures_and_writes_nothing(
    finished: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    assert job(config(finished, folder, "grade", dry_run=True)) == 0
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before
    said = capsys.readouterr().out
    assert re.search(r"^time: at most about", said, re.M)
    assert re.search(r"^memory: normal scores", said, re.M)
    done = []
    losses = module.losses

    def counted(*args, on_cluster, **kwargs):
        return losses(*args, on_cluster=lambda: (done.append(1), on_cluster()), **kwargs)

    monkeypatch.setattr(module, "losses", counted)
    assert job(config(finished, folder, "grade", page=False)) == 0
    assert f"erasing, grade  to do; {len(done)} erasures" in said


@pytest.mark.parametrize(
    ("labels", "change", "message"),
    [
        ((), {}, "--label is missing"),
        (("grade",), {"folds": 1}, "--folds 1"),
        (("grade",), {"draws": 3}, "--draws 3"),
        (("grade",), {"share": 0.0}, "--share 0"),
        (("grade",), {"task": ("seg",)}, "task seg: the run has cls"),
        (("grade",), {"ft": ("seg=x.npz",)}, "task seg: the run has cls"),
        (("grade",), {"pre": Path("gone.npz")}, "gone.npz: the run's table is not there any more"),
        (("grade", "grade"), {}, "another label of the task is called grade"),
        (("nothing",), {}, "no column nothing"),
        (("names",), {}, "have no order"),
        (("rare",), {}, "fewer than the 3 folds"),
        (("absent.csv:x",), {}, "absent.csv"),
        (("labels.csv:",), {}, "expected FILE:COLUMN"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    finished: Path, folder: Path, labels, change, message: str
) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=re.escape(message)):
        job(config(finished, folder, *labels, **change))
    assert sorted(folder.rglob("*")) == before


def test_tables_that_changed_since_the_run_are_refused(finished: Path, folder: Path) -> None:
    path = finished / "pre.npz"
    kept = path.read_bytes()
    with np.load(path) as content:
        arrays = dict(content)
    try:
        np.savez(path, patient_id=arrays["patient_id"], embeddings=2 * arrays["embeddings"])
        with pytest.raises(InputError, match=re.escape("pre.npz: has changed since the run")):
            job(config(finished, folder, "grade"))
    finally:
        path.write_bytes(kept)
