"""What lies in a run folder is told apart: this run's, an earlier run's, the user's own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.common.run_record import RunRecord
from experiments.sweep import job
from lens.errors import InputError
from tests.experiments.small_runs import (
    config,
    few_planted_changes,
    finished_run,
    made_tables,
    on_disk,
    recorded,
    run,
)
from tests.pictures import svg_alone


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_tables(tmp_path_factory)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be left as it is."""
    return finished_run(tmp_path_factory, "fresh")


def test_what_an_earlier_run_left_goes_or_is_named(
    tables: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    svg_alone(monkeypatch)
    folder = shutil.copytree(fresh, tmp_path / "run")
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
    of_task = {path.name for path in (folder / "figures").glob("cls-groups.*")}
    assert of_task == {"cls-groups.svg", "cls-groups.png", "cls-groups.pdf"}
    left = ["notes.txt", *record["not_of_this_run"]]
    assert {name for name in on_disk(folder) if name not in left} == set(recorded(folder))


def no_page(folder: Path, **_: Any) -> Path:
    """In place of the page, which takes seconds."""
    (folder / "report.html").write_text("page")
    return folder / "report.html"


@pytest.fixture
def quick_full_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    few_planted_changes(monkeypatch)


@pytest.mark.usefixtures("quick_full_doctor")
def test_what_is_not_ours_stays(
    tables: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty folders, links, inputs that lie in the run folder, files in our folders."""
    monkeypatch.setattr("lens.report.page.write_report", no_page)
    folder = tmp_path / "run"
    (folder / "to do" / "later").mkdir(parents=True)
    (folder / "link").symlink_to("to do")
    (folder / "doctor").mkdir()
    (folder / "doctor" / "mine.txt").write_text("mine")
    shutil.copytree(fresh, folder, dirs_exist_ok=True)
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


def test_a_file_saved_beside_those_of_a_run_is_not_the_runs(tmp_path: Path) -> None:
    ours, mine, late = (tmp_path / "made" / name for name in ("ours", "mine", "late"))
    drawn, meanwhile = (tmp_path / "figures" / name for name in ("drawn", "meanwhile"))

    def write() -> None:
        ours.write_text("ours")
        late.write_text(mine.read_text())
        os.utime(late, (0, 0))

    for content in ("first", "second"):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text(content)
        record = RunRecord(tmp_path, {})
        record.stage("one", ("lens.errors",), content, [mine.parent], write)
        meanwhile.parent.mkdir(exist_ok=True)
        meanwhile.write_text(content)
        with record.writing(meanwhile.parent, tmp_path / "page"):
            drawn.write_text(content)
        record.clear()
        assert set(record.record["stages"]["one"]["outputs"]) == {"made/ours", "made/late"}
        assert set(record.record["files"]) == {"figures/drawn"}
        assert record.record["not_of_this_run"] == ["figures/meanwhile", "made/mine"]
    RunRecord(tmp_path, {}).clear()
    assert not ours.exists()
    assert not drawn.exists()
    assert mine.read_text() == meanwhile.read_text() == "second"


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


def test_free_memory_goes_back_after_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        "experiments.common.run_record.give_back_memory", lambda: calls.append("given back")
    )
    RunRecord(tmp_path, {}).stage("one", ("lens.errors",), 1, [], lambda: calls.append("done"))
    assert calls == ["done", "given back"]
