"""Finished work is reused only where it is the same work.

Where the key of a stage differs, nothing of it is reused; where it does not, what a run takes over
is held against what it would have made.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.common.run_record import RunRecord
from lens import cache
from tests.experiments.small_runs import (
    config,
    finished_run,
    forget,
    keys,
    made_tables,
    on_disk,
    recorded,
    reused,
    run,
    stages_of,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_tables(tmp_path_factory)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be left as it is."""
    return finished_run(tmp_path_factory, "fresh")


def much_else(tables: Path) -> dict[str, Any]:
    """A task less, and other settings of every kind."""
    less = {"ft": (f"cls={tables / 'ft.npz'}",), "exposure": ()}
    return less | {"seed": 1, "folds": 3, "mode": "paper"}


@pytest.fixture(scope="module")
def other(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with `much_else` changed, to be left as it is."""
    return finished_run(tmp_path_factory, "other", **much_else(tables))


def test_a_second_run_does_nothing_again(tables: Path, fresh: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    assert on_disk(folder) == recorded(folder), "the record names every file, and no other"
    assert run(config(tables, folder)) == 0
    assert reused(folder) == set(stages_of(fresh)) == keys(config(tables, fresh)).reusable_stages()
    assert on_disk(folder) == on_disk(fresh)


def test_a_used_folder_and_a_new_one_come_out_the_same(
    tables: Path, fresh: Path, other: Path, tmp_path: Path
) -> None:
    """With much changed at once, so that nothing is reused and files are left over."""
    used = shutil.copytree(fresh, tmp_path / "used")
    assert run(config(tables, used, **much_else(tables))) == 0
    assert not reused(used)
    assert on_disk(used) == recorded(used) == on_disk(other)


def same_as_fresh(tables: Path, fresh: Path, tmp_path: Path, **options: Any) -> None:
    """What a run with other options takes from a used folder equals what it would have made.

    Where all keys differ, nothing is taken. Otherwise the run is done, and then once more without
    what it took.
    """
    if not keys(config(tables, fresh, **options)).reusable_stages():
        return
    used = shutil.copytree(fresh, tmp_path / "used")
    assert run(config(tables, used, **options)) == 0
    assert on_disk(used) == recorded(used)
    new, taken = shutil.copytree(used, tmp_path / "new"), reused(used)
    forget(new, taken)
    assert run(config(tables, new, **options)) == 0
    assert not taken & reused(new)
    assert on_disk(used) == on_disk(new)


FLAGS: dict[str, Any] = {
    "hidden": 5, "epochs": 5, "l1": (1e-3,), "l2": (1e-3,), "batch": 16, "rate": 0.01, "seeds": 2,
    "mode": "paper", "folds": 3, "repeats": 2, "level": 0.5, "margin": 0.2, "flips": 60,
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
    assert keys(config(own, fresh)).reusable_stages() == set(stages_of(fresh)), "as it was"
    change(pd.read_csv(own / "radiomics.csv")).to_csv(own / "radiomics.csv", index=False)
    assert not keys(config(own, fresh)).reusable_stages()
    if change is one_value:
        used, new = shutil.copytree(fresh, tmp_path / "used"), tmp_path / "new"
        assert run(config(own, used)) == run(config(own, new)) == 0
        assert on_disk(used) == on_disk(new) != on_disk(fresh)


def test_rows_regrouped_into_studies_of_a_patient_are_heeded(
    tables: Path, fresh: Path, tmp_path: Path
) -> None:
    """The same numbers in the same order: 60 patients, then 30 with two studies each."""
    found = []
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
        found.append(keys(config(own, fresh, exposure=())).keys)
    apart, paired = found
    assert set(apart) == set(paired) == set(stages_of(fresh))
    assert not [name for name in apart if apart[name] == paired[name]]


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
def test_every_harmed_output_is_seen(fresh: Path, tmp_path: Path, harm: str) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    done, record = stages_of(folder), RunRecord(folder, {})
    for stage, facts in done.items():
        for file in facts["outputs"]:
            HARMS[harm](folder / file)
            left = {name for name in done if record.reusable(name, done[name]["key"])}
            assert left == set(done) - {stage}, file
            shutil.copy(fresh / file, folder / file)
    HARMS[harm](folder / "run.json")
    assert not any(RunRecord(folder, {}).reusable(name, done[name]["key"]) for name in done)


@pytest.mark.parametrize("which", ["all files", "a file of every stage"])
def test_harmed_outputs_are_made_again(
    tables: Path, fresh: Path, tmp_path: Path, which: str
) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    expected = on_disk(fresh)
    harmed = [[*facts["outputs"]][-1] for facts in stages_of(fresh).values()]
    for file, harm in zip([*expected] if which == "all files" else harmed, cycle(HARMS)):
        HARMS[harm](folder / file)
    assert run(config(tables, folder)) == 0
    assert not reused(folder)
    assert on_disk(folder) == expected


@pytest.mark.parametrize(
    "text", ["[]", '{"stages": 3}', '{"stages": {"sweep": 1, "encoding": {"key": 2}}, "files": 1}']
)
def test_a_record_of_another_kind_counts_as_absent(
    tables: Path, fresh: Path, tmp_path: Path, text: str
) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    (folder / "run.json").write_text(text)
    assert not keys(config(tables, folder)).reusable_stages()


def test_another_runs_record_is_not_believed(
    tables: Path, fresh: Path, other: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(fresh, tmp_path / "run")
    shutil.copy(other / "run.json", folder / "run.json")
    assert run(config(tables, folder)) == 0
    assert not reused(folder)
    assert on_disk(folder) == on_disk(fresh)


def test_a_changed_line_of_code_does_all_again(
    tables: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "changed.py"

    def sources(module: str) -> list[Path]:
        (file, *stub) = original(module)
        if module != "lens.verdicts.rules":
            return [file, *stub]
        source.write_text(file.read_text(encoding="utf-8") + "\n# one line more\n")
        return [source]

    original = cache._sources
    monkeypatch.setattr(cache, "_sources", sources)
    cache.code_version.cache_clear()
    try:
        assert not keys(config(tables, fresh)).reusable_stages()
    finally:
        cache.code_version.cache_clear()
