"""The main job as a user runs it: a command, its exit code and the run folder it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest

from tests.command_line import ended
from tests.planted import Planted, plant

SMALL = (
    "--hidden", "12", "--epochs", "40", "--l1", "0", "1e-6", "--l2", "1e-5", "--bootstraps", "200",
)  # fmt: skip

QUICK = (*SMALL, "--folds", "3", "--repeats", "1", "--flips", "500")
"""Where the verdicts are not looked at."""


def run(*arguments: object, module: str = "experiments.sweep") -> CompletedProcess[str]:
    """In this process; that a process of its own does the same is seen in `test_failures`."""
    return ended(module, *arguments)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=200)


@pytest.fixture(scope="module")
def tables(planted: Planted, tmp_path_factory) -> dict[str, Path]:
    return planted.write(tmp_path_factory.mktemp("tables"))


def table_flags(tables: dict[str, Path]) -> list[object]:
    pre, ft, radiomics = tables["pre"], tables["ft"], tables["radiomics"]
    return ["--pre", pre, "--ft", f"cls={ft}", "--radiomics", radiomics]


@pytest.fixture(scope="module")
def finished(tables: dict[str, Path], tmp_path_factory) -> Path:
    """The one run here whose figures are drawn."""
    folder = tmp_path_factory.mktemp("runs") / "own tables"
    done = run(*table_flags(tables), "--out", folder, *QUICK)
    assert done.returncode == 0, done.stderr
    changed, *said, badge, last = done.stdout.splitlines()
    assert changed.startswith("cls: did anything change? "), "what it shows"
    assert any(line.startswith("  What these patients cannot tell: ") for line in said)
    assert badge.startswith("  ["), "whether it can be read as it stands"
    assert last == f"report: {folder / 'report.html'}"
    return folder


def load_embeddings(path: Path, ids: pd.Series) -> np.ndarray:
    with np.load(path) as content:
        position = {patient: i for i, patient in enumerate(content["patient_id"])}
        return content["embeddings"][[position[i] for i in ids]].astype(np.float64)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("mode", ["default", "paper"])
def test_every_figure_can_be_recomputed_from_the_run_folder(
    tables: dict[str, Path], finished: Path, mode: str, tmp_path: Path
) -> None:
    if mode == "paper":
        folder = tmp_path / "paper"
        done = run(*table_flags(tables), "--out", folder, "--mode", "paper", *QUICK)
        assert done.returncode == 0, done.stderr
    else:
        folder = finished
    split = pd.read_csv(folder / "split.csv", dtype=str)
    fitted, test = split["split"].isin(["train", "val"]), split["split"] == "test"
    train = split["split"] == "train"
    projection = np.load(folder / "projection.npz")
    decoders = np.load(folder / "cls" / "decoders.npz")
    features = pd.read_parquet(folder / "cls" / "features.parquet")
    assert str(projection["activation"]) == "relu"
    assert decoders["columns"].tolist() == features["column"].tolist()

    radiomics = pd.read_csv(tables["radiomics"]).set_index("patient_id").loc[split["patient_id"]]
    r = radiomics[features["column"]].to_numpy()
    np.testing.assert_allclose(projection["r_min"], r[train].min(axis=0))
    np.testing.assert_allclose(projection["r_max"], r[train].max(axis=0))
    r = (r - projection["r_min"]) / (projection["r_max"] - projection["r_min"])
    mean = r[fitted].mean(axis=0)
    for stage, path in (("pre", tables["pre"]), ("ft", tables["ft"])):
        x = load_embeddings(path, split["patient_id"])
        z = np.maximum(
            (x - projection["x_mean"]) / projection["x_std"] @ projection["w"].astype(float)
            + projection["b"],
            0,
        )
        design = z[fitted] if mode == "paper" else np.c_[z[fitted], np.ones(fitted.sum())]
        solution = np.linalg.lstsq(design, r[fitted], rcond=1e-7)[0]
        theta, intercept = decoders[f"theta_{stage}"], decoders[f"intercept_{stage}"]
        np.testing.assert_allclose(
            theta, solution[:12].T, rtol=2e-3, atol=2e-3 * np.abs(theta).max()
        )
        if mode == "paper":
            assert not intercept.any()
        error = r[test] - (z[test] @ theta.T + intercept)
        expected = {
            "importance": np.linalg.norm(solution[:12].T, axis=1),
            "r2": 1 - np.square(error).sum(0) / np.square(r[test] - mean).sum(0),
            "mse": np.square(error).mean(0),
            "mse_z": np.square(error).mean(0) / r[train].var(0),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(features[f"{name}_{stage}"], values, rtol=2e-3, atol=2e-3)
    for name, change in (("importance", "delta_importance"), ("r2", "delta_r2_split")):
        delta = features[f"{name}_ft"] - features[f"{name}_pre"]
        np.testing.assert_allclose(features[change], delta, atol=1e-12)


def test_erased_features_lose(planted: Planted, finished: Path) -> None:
    features = pd.read_parquet(finished / "cls" / "features.parquet").set_index("column")
    erased = planted.radiomics.columns[1:][np.isin(planted.factor, planted.erased)]
    assert (features.loc[erased, "delta_r2"] < -0.3).all()
    assert (features["delta_r2"].drop(erased) > -0.2).all()


def test_run_folder_keeps_the_contract(tables: dict[str, Path], finished: Path) -> None:
    for name in ("run.json", "sweep.parquet", "split.csv", "projection.npz", "report.html"):
        assert (finished / name).is_file()
    for name in (
        "decoders.npz",
        "features.parquet",
        "groups.csv",
        "modalities.csv",
        "similarity.csv",
    ):
        assert (finished / "cls" / name).is_file()
    assert not (finished / "failures.csv").exists()
    record = json.loads((finished / "run.json").read_text())
    stage = record["stages"]["sweep"]
    assert 0 < stage["compile_seconds"] <= stage["seconds"], "compiling is told apart"
    assert record["config"]["hidden"] == 12
    assert set(record["inputs"]) == {str(path) for path in tables.values()}
    sweep = pd.read_parquet(finished / "sweep.parquet")
    assert sweep.columns.tolist() == ["l1", "l2", "seed", "train_loss", "val_loss", "selected"]
    figures = {path.stem for path in (finished / "figures").glob("*.svg")}
    for stem in figures:
        assert (finished / "figures" / f"{stem}.png").stat().st_size > 5000
        assert (finished / "figures" / f"{stem}.svg").is_file()
    assert {"sweep", "cls-groups", "cls-modalities", "cls-features"} <= figures


def test_report_is_self_contained_and_says_what_the_tables_say(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    # Scripts are of the page itself, and their hashes in its policy: tests/report/test_assets.py.
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    references = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert references
    assert all(reference.startswith(("data:image/svg+xml,", "#")) for reference in references)
    assert "<script" not in page
    groups = pd.read_csv(finished / "cls" / "groups.csv")
    for _, row in groups[groups["stage"] == "pre"].iterrows():
        shown = f"{row['r2_median']:.2f}<br><small>[{row['r2_median_low']:.2f}, "
        assert shown.replace("-", "−") in page
    features = pd.read_parquet(finished / "cls" / "features.parquet")
    # Of near copies the report names one.
    largest = features.loc[features["medoid"], "delta_r2"].idxmin()
    assert features.loc[largest, "column"] in page


@pytest.mark.usefixtures("undrawn")
def test_tasks_can_be_read_against_parts_of_the_table(
    planted: Planted, tables: dict[str, Path], finished: Path, tmp_path: Path
) -> None:
    """A task of its own scope and start gets its own projection; the others keep theirs."""
    start = tmp_path / "start.npz"
    np.savez(start, patient_id=planted.ids, embeddings=planted.pre[:, ::-1])
    flags = [*table_flags(tables), "--ft", f"reg={tables['pre']}", "--pre", f"reg={start}"]
    done = run(*flags, "--scope", "reg=t2.gland", "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0, done.stderr
    features = pd.read_parquet(tmp_path / "run" / "reg" / "features.parquet")
    assert set(features["modality"]) == {"t2"}
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "run" / "cls" / "features.parquet"),
        pd.read_parquet(finished / "cls" / "features.parquet"),
    )
    own = tmp_path / "run" / "scopes" / "t2.gland"
    assert {p.name for p in own.iterdir()} == {
        "sweep.parquet",
        "projection.npz",
        "split.csv",
        "dropped.csv",
        "doctor",
    }
    with np.load(own / "projection.npz") as content:
        assert len(content["r_min"]) == len(features)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"Read against {len(features)} features of T2 in gland" in page


@pytest.mark.usefixtures("undrawn")
def test_second_run_reuses_the_work_and_a_changed_flag_redoes_it(
    tables: dict[str, Path], finished: Path
) -> None:
    before = (finished / "sweep.parquet").stat().st_mtime_ns
    again = run(*table_flags(tables), "--out", finished, *QUICK)
    assert again.returncode == 0
    assert "sweep: done before, reused" in again.stderr
    assert (finished / "sweep.parquet").stat().st_mtime_ns == before
    changed = run(*table_flags(tables), "--out", finished, *QUICK, "--seed", "1")
    assert changed.returncode == 0
    assert (finished / "sweep.parquet").stat().st_mtime_ns > before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("mode", "hidden"), [("default", 16), ("paper", 128)])
def test_the_width_follows_the_patients_and_too_many_units_come_first(
    tables: dict[str, Path], tmp_path: Path, mode: str, hidden: int
) -> None:
    """160 of 200 patients are fitted: 16 units by the rule, too few for the paper's 128."""
    folder = tmp_path / "run"
    flags = [*table_flags(tables), "--out", folder, "--mode", mode, "--folds", 0, "--epochs", 2]
    done = run(*flags, "--l1", 0, "--l2", 0, "--bootstraps", 20, "--flips", 50)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["hidden"] == hidden
    with np.load(folder / "projection.npz") as content:
        assert content["w"].shape[1] == hidden
    first, page = done.stderr.splitlines()[0], (folder / "report.html").read_text()
    said = "128 hidden units for 160 fitted patients are too many"
    assert (first.startswith(said) and "--hidden 16" in first) == (mode == "paper")
    assert (said in page) == (mode == "paper")
    if mode == "paper":
        assert page.count(said) == 1
        assert page.index('class="warns"') < page.index(said) < page.index("<b>Compared</b>")


def test_report_can_be_drawn_again(finished: Path) -> None:
    (finished / "report.html").unlink()
    assert run(finished, module="experiments.report").returncode == 0
    assert (finished / "report.html").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_patient_in_only_one_table_is_set_aside(
    planted: Planted, tables: dict[str, Path], tmp_path: Path
) -> None:
    planted.radiomics.iloc[1:].to_csv(tmp_path / "r.csv", index=False)
    flags = table_flags(tables | {"radiomics": tmp_path / "r.csv"})
    done = run(*flags, "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 3
    assert "1 patient(s) set aside" in done.stderr
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert failures["patient_id"].tolist() == ["P0000"]
    assert str(tmp_path / "r.csv") in failures["file"][0]
    assert "P0000" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (
            ["--pre", "missing.npz", "--ft", "a=b.npz", "--radiomics", "r.csv"],
            1,
            "missing.npz: no such",
        ),
        (["--pre", "x.npz"], 1, "--pre also needs"),
        (["--cohort", "c.csv"], 1, "--cohort also needs"),
        (["--ft", "a=b.npz"], 1, "need --pre"),
        (["--pre", "x.npz", "--ft", "b.npz", "--radiomics", "r.csv"], 1, "expected TASK=FILE"),
        (
            ["--pre", "a=x.npz", "--ft", "a=b.npz", "--ft", "c=d.npz", "--radiomics", "r.csv"],
            1,
            "--pre is missing for task 'c'",
        ),
        (
            ["--pre", "x", "--ft", "a=b", "--radiomics", "r", "--scope", "c=gland"],
            1,
            "task 'c'; the tasks are ['a']",
        ),
        (["--hidden", "many"], 2, "hidden"),
        (["--unknown-flag"], 2, "unknown-flag"),
    ],
)
def test_wrong_usage_is_one_clear_line(tmp_path: Path, flags, code: int, message: str) -> None:
    done = run(*flags, "--out", tmp_path / "run")
    assert done.returncode == code
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
