"""Finished work is reused only where it is the same work, each case held against a fresh run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.common.run_record import RunRecord
from experiments.main_job.analysis import analyse
from experiments.main_job.config import Config, ContextFlags, TableFlags
from experiments.main_job.inputs import from_tables
from experiments.main_job.plan import settle
from experiments.sweep import job
from lens import cache
from lens.errors import InputError
from lens.settings import changed
from tests.planted import Planted, plant

SMALL = {
    "hidden": 4, "epochs": 4, "l1": (1e-6,), "l2": (1e-5,), "folds": 3, "repeats": 1,
    "bootstraps": 20, "flips": 40,
}  # fmt: skip

CLASS = re.compile("_(firstorder|glcm|glszm)_")


def with_half_the_classes(planted: Planted) -> Planted:
    """Three classes of features instead of six: an eighth of the subsets that are fitted."""
    names = [c for c in planted.radiomics if c == "patient_id" or CLASS.search(c)]
    return replace(planted, radiomics=planted.radiomics[names])


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, a retrained encoder, labels, exposure and repeatability of 60 patients."""
    folder = tmp_path_factory.mktemp("tables")
    planted = with_half_the_classes(plant(n=60, d=8))
    planted.write(folder)
    other = plant(n=60, d=8, erased=(1,), seed=0)
    for name, values in (
        ("reg", other.ft),
        ("again", planted.ft + 0.01),
        ("third", other.ft - 0.01),
    ):
        np.savez(folder / f"{name}.npz", patient_id=planted.ids, embeddings=values)
    labels = pd.DataFrame({"patient_id": planted.ids, "age": np.arange(60.0), "site": ["a"] * 60})
    labels.loc[30:, "site"] = "b"
    labels.to_csv(folder / "labels.csv", index=False)
    used = pd.DataFrame({"patient_id": planted.ids, "used": np.arange(60) % 3 > 0})
    used.to_csv(folder / "patients.csv", index=False)
    columns = planted.radiomics.columns[1:]
    icc = pd.DataFrame({"column": columns, "icc": np.linspace(0.5, 1, len(columns))})
    icc.to_csv(folder / "icc.csv", index=False)
    return folder


def config(tables: Path, out: Path, **options: Any) -> Config:
    """Both tasks on the tables with small settings."""
    made = Config(
        tables=TableFlags(
            pre=(str(tables / "pre.npz"),),
            ft=(f"cls={tables / 'ft.npz'}", f"reg={tables / 'reg.npz'}"),
            radiomics=((str(tables / "radiomics.csv"),),),
        ),
        context=ContextFlags(exposure=(f"cls={tables / 'patients.csv'}",)),
        out=out,
    )
    return changed(made, **(SMALL | options))


def run(config: Config) -> int:
    """The main job without its page, which takes most of the time and is made anew each time."""
    plan = settle(config)
    record = RunRecord(plan.out, plan.flags())
    aside = analyse(plan, from_tables(plan), record)
    record.clear()
    return len(aside)


def recorded(folder: Path) -> dict[str, str]:
    """Hash of every file of the run that holds results, by name."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    files = [facts["outputs"] for facts in record["stages"].values()] + [record["files"]]
    hashes = {name: facts["sha256"] for part in files for name, facts in part.items()}
    # The page says how long each stage took.
    return {name: each for name, each in hashes.items() if name != "report.html"}


def on_disk(folder: Path) -> dict[str, str]:
    """The same, of what really lies there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = cache.recorded(files, folder)
    own = ("run.json", "report.html")
    return {name: facts["sha256"] for name, facts in found.items() if name not in own}


@pytest.fixture(scope="module")
def fresh(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "fresh"
    assert run(config(tables, folder)) == 0
    return folder


def reused(folder: Path) -> dict[str, bool]:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {name: facts["reused"] for name, facts in record["stages"].items()}


def test_a_second_run_does_nothing_again(tables: Path, fresh: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    assert on_disk(folder) == recorded(folder), "the record names every file, and no other"
    assert run(config(tables, folder)) == 0
    assert all(reused(folder).values())
    assert on_disk(folder) == on_disk(fresh)


def same_as_fresh(tables: Path, fresh: Path, tmp_path: Path, **options: Any) -> None:
    """A run with other options in a used folder equals the same in a new one."""
    used = shutil.copytree(fresh, tmp_path / "used")
    new = tmp_path / "new"
    codes = [run(config(tables, folder, **options)) for folder in (used, new)]
    assert codes[0] == codes[1] == 0
    assert on_disk(used) == on_disk(new)
    assert on_disk(used) == recorded(used)


FLAGS: dict[str, Any] = {
    "hidden": 5, "epochs": 5, "l1": (1e-3,), "l2": (1e-3,), "batch": 16, "rate": 0.01, "seeds": 2,
    "mode": "paper", "folds": 4, "repeats": 2, "level": 0.5, "margin": 0.2, "flips": 60,
    "bootstraps": 30, "seed": 1, "roi": ("gland",), "adjust": ("age",), "site": "site",
    "scope": ("reg=t2.gland",),
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_is_heeded(tables: Path, fresh: Path, tmp_path: Path, flag: str) -> None:
    same_as_fresh(tables, fresh, tmp_path, **{flag: FLAGS[flag]}, labels=tables / "labels.csv")


@pytest.mark.parametrize(
    "entries",
    [
        lambda t: {"exposure": (f"reg={t / 'patients.csv'}",)},
        lambda t: {"exposure": (f"reg={t / 'patients.csv'}", f"cls={t / 'patients.csv'}")},
        lambda t: {"exposure": ()},
        lambda t: {"repeatability": t / "icc.csv"},
        lambda t: {"retrained": (f"cls={t / 'again.npz'}", f"cls={t / 'third.npz'}")},
        lambda t: {"retrained": (f"reg={t / 'again.npz'}", f"reg={t / 'third.npz'}")},
        lambda t: {
            "retrained": (f"reg={t / 'again.npz'}", f"reg={t / 'third.npz'}"),
            "scope": ("reg=t2.gland",),
        },
        lambda t: {"ft": (f"reg={t / 'ft.npz'}", f"cls={t / 'reg.npz'}")},
        lambda t: {"ft": (f"reg={t / 'reg.npz'}", f"cls={t / 'ft.npz'}")},
        lambda t: {"ft": (f"cls={t / 'ft.npz'}",), "exposure": ()},
        lambda t: {"pre": (str(t / "pre.npz"), f"reg={t / 'again.npz'}")},
    ],
    ids=["exposure of another task", "exposure of both", "no exposure", "repeatability",
         "retrained", "retrained of another task", "retrained in another scope", "files exchanged",
         "tasks in another order",
         "a task less", "another start of a task"],
)  # fmt: skip
def test_which_file_belongs_to_which_task_is_heeded(
    tables: Path, fresh: Path, tmp_path: Path, entries: Callable[[Path], dict[str, Any]]
) -> None:
    same_as_fresh(tables, fresh, tmp_path, **entries(tables))


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    """The same numbers under the names of another modality."""
    return table.rename(columns=lambda name: name.replace("adc.", "dwi."))


def exchanged(table: pd.DataFrame) -> pd.DataFrame:
    """The names of two modalities exchanged."""
    swap = {"adc": "t2", "t2": "adc"}
    names = {
        name: ".".join([swap.get(part, part) for part in name.split(".")[:1]] + name.split(".")[1:])
        for name in table.columns
    }
    return table.rename(columns=names)


def one_value(table: pd.DataFrame) -> pd.DataFrame:
    """One number changed."""
    table.iloc[0, 1] += 1e-3
    return table


@pytest.mark.parametrize("change", [renamed, exchanged, one_value])
def test_another_table_under_the_same_path_is_heeded(
    tables: Path, fresh: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    own = shutil.copytree(tables, tmp_path / "tables")
    used = tmp_path / "used"
    assert run(config(own, used)) == 0
    change(pd.read_csv(own / "radiomics.csv")).to_csv(own / "radiomics.csv", index=False)
    new = tmp_path / "new"
    assert run(config(own, used)) == run(config(own, new)) == 0
    assert on_disk(used) == on_disk(new) != on_disk(fresh)


def test_rows_regrouped_into_studies_of_a_patient_are_heeded(tables: Path, tmp_path: Path) -> None:
    """The same numbers in the same order: 60 patients, then 30 with two studies each."""
    runs = []
    for name, patients in (("apart", np.arange(60)), ("paired", np.arange(60) // 2)):
        own = tmp_path / name
        own.mkdir()
        ids = {
            "patient_id": [f"P{patient:03d}" for patient in patients],
            "study_id": [f"S{row:03d}" for row in range(60)],
        }
        for file in ("pre", "ft", "reg"):
            with np.load(tables / f"{file}.npz") as content:
                order = np.argsort(content["patient_id"])
                np.savez(own / f"{file}.npz", **ids, embeddings=content["embeddings"][order])
        table = pd.read_csv(tables / "radiomics.csv").sort_values("patient_id")
        values = table.drop(columns="patient_id").reset_index(drop=True)
        pd.concat([pd.DataFrame(ids), values], axis=1).to_csv(own / "radiomics.csv", index=False)
        runs.append(config(own, tmp_path / "run", exposure=()))
    for each in runs:
        assert run(each) == 0
    new = replace(runs[1], out=tmp_path / "new")
    assert run(new) == 0
    assert on_disk(tmp_path / "run") == on_disk(tmp_path / "new")


def foreign(path: Path) -> None:
    """A file that another run would leave: of the same kind, with other content."""
    content = path.read_bytes()
    path.write_bytes(content[::-1])


HARMS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "deleted": Path.unlink,
    "zero bytes": lambda path: path.write_bytes(b""),
    "foreign": foreign,
}


@pytest.mark.parametrize("harm", HARMS)
def test_every_harmed_output_is_made_again(
    tables: Path, fresh: Path, tmp_path: Path, harm: str
) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    expected = on_disk(fresh)
    record = json.loads((fresh / "run.json").read_text(encoding="utf-8"))
    owners = [[*facts["outputs"]] for facts in record["stages"].values()]
    owners += [[*record["files"]], ["run.json"]]
    # The first file of every stage, then the second of every stage that has one, and so on.
    rounds = [[name for name in names if name] for names in zip_longest(*owners)]
    assert sum(map(len, rounds)) == len(expected) + 1
    for names in rounds:
        for name in names:
            HARMS[harm](folder / name)
        assert run(config(tables, folder)) == 0, names
        assert on_disk(folder) == expected, names


@pytest.mark.parametrize(
    "text", ["[]", '{"stages": 3}', '{"stages": {"sweep": 1, "encoding": {"key": 2}}, "files": 1}']
)
def test_a_record_of_another_kind_counts_as_absent(
    tables: Path, fresh: Path, tmp_path: Path, text: str
) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    (folder / "run.json").write_text(text)
    assert run(config(tables, folder)) == 0
    assert not any(reused(folder).values())
    assert on_disk(folder) == on_disk(fresh)


def test_another_runs_record_is_not_believed(tables: Path, fresh: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run(config(tables, other, seed=5)) == 0
    folder = shutil.copytree(fresh, tmp_path / "run")
    shutil.copy(other / "run.json", folder / "run.json")
    assert run(config(tables, folder)) == 0
    assert on_disk(folder) == on_disk(fresh)


def test_a_changed_line_of_code_does_all_again(
    tables: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    imported = cache._imported
    source = tmp_path / "changed.py"

    def sources(module: str) -> list[Path]:
        (file, *stub) = original(module)
        if module != "lens.verdicts.rules":
            return [file, *stub]
        source.write_text(file.read_text(encoding="utf-8") + "\n# one line more\n")
        return [source]

    original = cache._sources
    monkeypatch.setattr(cache, "_sources", sources)
    monkeypatch.setattr(cache, "_imported", lambda file, module: imported(file, module))
    cache.code_version.cache_clear()
    try:
        assert run(config(tables, folder)) == 0
    finally:
        cache.code_version.cache_clear()
    assert not any(reused(folder).values())


def test_what_an_earlier_run_left_goes_or_is_named(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert job(config(tables, folder)) == 0
    assert on_disk(folder) == recorded(folder), "the page and its figures too"
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    (folder / "reg" / "notes.txt").write_text("mine")
    (folder / "reg" / "features.parquet").write_bytes(b"changed by hand")
    options: dict[str, Any] = {"ft": (f"cls={tables / 'ft.npz'}",)}
    assert job(config(tables, folder, **options)) == 0
    assert 0.3 * len(page) < (folder / "report.html").stat().st_size < len(page)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["not_of_this_run"] == ["reg/features.parquet", "reg/notes.txt"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "reg" / "groups.csv").exists()
    assert not (folder / "figures" / "reg-groups.svg").exists()
    assert (folder / "figures" / "cls-groups.svg").exists()


def test_what_is_not_ours_stays(tables: Path, tmp_path: Path) -> None:
    """Empty folders, links, inputs that lie in the run folder, files in our folders."""
    folder = tmp_path / "run"
    (folder / "to do" / "later").mkdir(parents=True)
    (folder / "link").symlink_to("to do")
    (folder / "doctor").mkdir()
    (folder / "doctor" / "mine.txt").write_text("mine")
    own = shutil.copytree(tables, folder / "my tables")
    assert job(config(own, folder, doctor="full")) == 0
    assert (folder / "doctor" / "doctor.csv").is_file()
    assert job(config(own, folder)) == 0
    assert json.loads((folder / "doctor" / "doctor.json").read_text())["form"] == "short"
    assert not (folder / "doctor" / "doctor.csv").exists()
    assert job(config(own, folder, doctor="off")) == 0
    assert not (folder / "doctor" / "doctor.json").exists()
    assert (folder / "doctor" / "mine.txt").read_text() == "mine"
    assert (folder / "to do" / "later").is_dir()
    assert (folder / "link").is_symlink()
    assert {path.name for path in own.iterdir()} == {path.name for path in tables.iterdir()}


def test_dear_outputs_and_inputs_of_a_run_are_never_cleared_away(tmp_path: Path) -> None:
    for later_reads in (True, False):
        folder = tmp_path / str(later_reads)
        first = RunRecord(folder, {})
        files = {name: folder / "made" / f"{name}.txt" for name in ("dear", "plain", "read")}

        def write(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)

        for name, path in files.items():
            first.stage(name, ("lens.errors",), name, [path], lambda p=path: write(p),
                        lasting=name == "dear")  # fmt: skip
        first.clear()
        second = RunRecord(folder, {})
        second.clear([files["read"]] if later_reads else [])
        left = {name for name, path in files.items() if path.exists()}
        assert left == ({"dear", "read"} if later_reads else {"dear"})
        third = RunRecord(folder, {})
        third.clear()
        assert files["dear"].exists(), "however many runs came between"


def test_an_input_that_the_run_would_write_over_is_refused(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    split = folder / "split.csv"
    split.write_text("patient_id,split,comment\n")
    with pytest.raises(InputError, match=r"split\.csv: the run would write over this input"):
        job(config(tables, folder, split=split))
    assert split.read_text() == "patient_id,split,comment\n"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file, not a folder"):
        job(config(tables, tmp_path / "file"))


def test_three_starts_of_one_name_are_three_parts(tables: Path, tmp_path: Path) -> None:
    flags = []
    for task in ("a", "b", "c"):
        (tmp_path / task).mkdir()
        shutil.copy(tables / "pre.npz", tmp_path / task / "pre.npz")
        flags.append(f"{task}={tmp_path / task / 'pre.npz'}")
    ft = tuple(f"{task}={tables / 'ft.npz'}" for task in ("a", "b", "c"))
    assert run(config(tables, tmp_path / "run", pre=tuple(flags), ft=ft, exposure=())) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert len({facts["folder"] for facts in record["scopes"].values()}) == 3
    assert set(record["tasks"]) == {"a", "b", "c"}
