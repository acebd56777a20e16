"""A run folder read back: the listed files, and a refusal with the remedy for each damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.probes.mlp import Projection
from lens.probes.scaling import MinMax
from lens.report.results import (
    COLUMNS,
    FILES,
    PAPER_FILES,
    PAPER_FOLDER,
    SCOPE_FILES,
    TASK_FILES,
    read_results,
)
from lens.report.writing import read_projection, write_projection

READ = {
    "run.json", "split.csv", "dropped.csv", "sweep.parquet",
    *(f"cls/{name}" for name in ("features.parquet", "groups.csv", "modalities.csv")),
    *(f"cls/{name}" for name in ("levels.csv", "similarity.csv", "encoding.csv")),
}  # fmt: skip


def test_a_run_folder_holds_listed_files_only(finished: Path) -> None:
    tables = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    tables = {name for name in tables if not name.startswith("figures/")} - {"report.html"}
    of_paper = {f"{PAPER_FOLDER}/table1{suffix}" for suffix in (".csv", ".md", ".tex")}
    assert tables >= {*PAPER_FILES, *of_paper}
    tables -= {*PAPER_FILES, *of_paper}
    task_files = {f"{task}/{name}" for task in ("cls", "same") for name in TASK_FILES}
    assert tables <= set(FILES) - set(TASK_FILES) | task_files
    assert tables >= READ
    assert set(COLUMNS) <= set(FILES)


def test_tables_are_read_as_they_were_written(finished: Path) -> None:
    results = read_results(finished)
    assert [*results.tasks] == ["cls", "same"]
    pd.testing.assert_frame_equal(
        results.tasks["cls"].features, pd.read_parquet(finished / "cls" / "features.parquet")
    )
    (scope,) = results.scopes.values()
    assert len(scope.split) == 120
    assert scope.doctor["form"] == "short"
    assert scope.planted.empty
    assert results.failures.empty


@pytest.mark.parametrize("name", sorted(READ - {"run.json"}))
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "columns"])
def test_a_damaged_file_is_named_with_the_remedy(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif damage == "columns":
        table = pd.DataFrame({"nothing": [1.0]})
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff\xfe no table")
    with pytest.raises(InputError) as caught:
        read_results(folder)
    message = str(caught.value)
    assert message.startswith(f"{path} ({FILES[path.name]}): ")
    assert message.endswith("run the same command again")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_an_unreadable_record_is_named_with_the_remedy(folder: Path, content: bytes) -> None:
    (folder / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json .*; run the same command again$"):
        read_results(folder)


def test_another_folder_and_an_unfinished_run_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a finished run"):
        read_results(tmp_path)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    del run["tasks"]
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(InputError, match="not finished; run the same command again"):
        read_results(folder)


def test_a_doctor_that_this_run_did_not_ask_is_not_shown(folder: Path) -> None:
    (folder / "doctor" / "doctor.json").write_text('{"answer": "yes", "form": "full"}')
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for asked in (True, "full", False, "off"):
        run["config"]["doctor"] = asked
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        if asked in (True, "full"):
            with pytest.raises(InputError, match=r"doctor\.csv \(the planted changes\): no such"):
                read_results(folder)
        else:
            assert read_results(folder).scopes["all"].doctor == {}


def test_a_projection_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 2), 2, 3, 3))
    projection, scaling = Projection(*arrays), MinMax(rng.normal(size=4), rng.normal(size=4))
    write_projection(tmp_path, projection, scaling)
    for found, given in zip(read_projection(tmp_path), (projection, scaling), strict=True):
        for a, b in zip(found, given, strict=True):
            np.testing.assert_array_equal(a, b)
    path = tmp_path / "projection.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{SCOPE_FILES['projection.npz']}.*same command again"):
        read_projection(tmp_path)
