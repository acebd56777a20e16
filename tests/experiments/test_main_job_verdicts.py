"""The verdicts as a user gets them: from the command to the columns and the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.verdicts.rules import VERDICTS
from tests.experiments.test_main_job import SMALL, run
from tests.planted import Planted, plant
from tests.undrawn import undraw

CONTRACT = [
    "verdict", "delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt", "q_bh", "cluster",
    "explained_sd_pre", "explained_sd_ft", "r2_ceiling", "r2_pre_pre", "r2_pre_ft", "r2_ft_pre",
    "r2_ft_ft", "importance_debiased_pre", "importance_debiased_ft",
]  # fmt: skip


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=160)


@pytest.fixture(scope="module")
def flags(planted: Planted, tmp_path_factory) -> list[object]:
    folder = tmp_path_factory.mktemp("tables")
    paths = planted.write(folder)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 48)))[0]
    np.savez(folder / "rotated.npz", patient_id=planted.ids, embeddings=planted.pre @ rotation)
    table = pd.read_csv(paths["radiomics"])
    table.loc[table.index % 9 == 0, table.columns[3]] = np.nan
    table.to_csv(paths["radiomics"], index=False)
    pd.DataFrame({"column": table.columns[1:4], "icc": [0.5, 0.6, 0.7]}).to_csv(
        folder / "icc.csv", index=False
    )
    # The same fine-tuning again: the same change with a little other noise.
    again = []
    for seed in (1, 2):
        noise = 0.1 * np.random.default_rng(seed).normal(size=planted.ft.shape)
        np.savez(folder / f"seed-{seed}.npz", patient_id=planted.ids, embeddings=planted.ft + noise)
        again += ["--retrained", f"cls={folder / f'seed-{seed}.npz'}"]
    tasks = [f"cls={paths['ft']}", f"rot={folder / 'rotated.npz'}"]
    given = ["--pre", paths["pre"], "--ft", tasks[0], "--ft", tasks[1]]
    return [
        *given,
        *again,
        "--radiomics",
        paths["radiomics"],
        "--repeatability",
        folder / "icc.csv",
        *SMALL,
    ]


@pytest.fixture(scope="module")
def ran(flags: list[object], tmp_path_factory) -> tuple[Path, str]:
    """The run folder, and what was printed."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        done = run(*flags, "--folds", "3", "--repeats", "1", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "cross-validation: 9 fits, about" in done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def finished(ran: tuple[Path, str]) -> Path:
    return ran[0]


def features(folder: Path, task: str) -> pd.DataFrame:
    return pd.read_parquet(folder / task / "features.parquet").set_index("column")


def test_an_erased_factor_is_lost_and_a_rotation_is_not(planted: Planted, finished: Path) -> None:
    table = features(finished, "cls")
    assert set(CONTRACT) <= set(table.columns)
    erased = planted.radiomics.columns[1:][np.isin(planted.factor, planted.erased)]
    assert (table.loc[erased, "verdict"] == "lost").all()
    assert (table["verdict"].drop(erased) != "lost").all()
    assert set(features(finished, "rot")["verdict"]) <= {"recoded", "unchanged", "undecided"}


def test_the_band_of_other_seeds_is_told(planted: Planted, finished: Path) -> None:
    table = features(finished, "cls")
    erased = planted.radiomics.columns[1:][np.isin(planted.factor, planted.erased)]
    assert (table["retrained"] == 3).all()
    assert (table.loc[erased, "delta_r2_retrained_high"] < 0).all()
    assert (table["delta_r2_retrained_low"] <= table["delta_r2_retrained"]).all()
    other = features(finished, "rot")
    assert (other["retrained"] == 1).all()
    assert "delta_r2_retrained" not in other
    report = (finished / "report.html").read_text()
    assert "3 encoders fine-tuned from different seeds" in " ".join(report.split())


def test_refuses_another_seed_of_no_task(flags: list[object], tmp_path: Path) -> None:
    refused = run(*flags, "--retrained", "seg=x.npz", "--out", tmp_path / "run")
    assert refused.returncode == 1
    assert "--ft names no task 'seg'" in refused.stderr


def test_the_ceiling_is_the_given_repeatability(finished: Path) -> None:
    ceiling = features(finished, "cls")["r2_ceiling"]
    assert ceiling.dropna().tolist() == [0.5, 0.6, 0.7]
    assert ceiling.isna().sum() == len(ceiling) - 3


def test_the_single_split_stays_beside(finished: Path) -> None:
    table = features(finished, "cls")
    np.testing.assert_allclose(table["delta_r2_split"], table["r2_ft"] - table["r2_pre"])
    np.testing.assert_allclose(
        table["delta_r2"], table["r2_ridge_ft"] - table["r2_ridge_pre"], atol=1e-12
    )


def test_the_report_leads_with_the_verdicts(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.index("<h2>Verdicts</h2>") < page.index("<h2>The paper's analysis</h2>")
    assert "n = 160 patients held out" in page
    assert "3-fold cross-validation by patient" in page
    for task in ("cls", "rot"):
        section = page[page.index(f"<h3>{task}</h3>") :]
        table = features(finished, task)
        count = table.loc[table["modality"] == "t2", "verdict"].value_counts()
        cells = [f"<td>{count.get(verdict, 0)}</td>" for verdict in VERDICTS]
        assert "<tr><td>T2 gland</td>" + "".join(cells) in section


def test_the_doctors_findings_are_part_of_the_report(
    flags: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from the job of its own; the features are read against one modality to be quick."""
    undraw(monkeypatch, but=("doctor",))
    scopes = ["--scope", "cls=t2.gland", "--scope", "rot=t2.gland", "--flips", "300"]
    done = run(
        *flags, *scopes, "--doctor", "full", "--folds", "3", "--repeats", "1", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "doctor" / "doctor.json").read_text())
    assert content["answer"] in ("yes", "partly", "no")
    assert all(row["alarms"] == 0 for row in content["false_alarms"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>What this cohort can show</h2>" in page
    assert content["sentence"] in page
    assert (tmp_path / "figures" / "doctor.png").stat().st_size > 5000


def test_by_default_every_task_says_what_its_patients_cannot_tell(ran: tuple[Path, str]) -> None:
    finished, said = ran
    content = json.loads((finished / "doctor" / "doctor.json").read_text())
    assert content["form"] == "short"
    tables = {task: features(finished, task) for task in ("cls", "rot")}
    for row in content["tasks"]:
        table = tables[row["task"]]
        explained = table["p_present_pre"] <= 0.05
        assert row["detectable"] == np.median(table["smallest_loss"][explained])
        (block,) = re.findall(rf"^{row['task']}: did anything.*?^  \[.*?$", said, re.M | re.S)
        assert "What these patients cannot tell: " in block
        assert f"loss of R2 below {row['detectable']:.2f} may go unseen" in block
    assert said.splitlines()[-1].startswith("report: ")
    assert {path.name for path in (finished / "doctor").iterdir()} == {"doctor.json"}


@pytest.mark.usefixtures("undrawn")
def test_without_folds_the_split_is_the_only_fold(flags: list[object], tmp_path: Path) -> None:
    done = run(*flags, "--folds", "0", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cross-validation: 3 fits" in done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "n = 32 test patients held out" in page
    assert set(features(tmp_path, "cls")["verdict"]) <= set(VERDICTS)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--folds", "1"], "--folds 1: 2 or more, or 0"),
        (["--level", "1.5"], "--level is 1.5; more than 0 and less than 1"),
        (["--folds", "200"], "folds 200: 160 patients are too few"),
    ],
)
def test_refuses(flags: list[object], extra: list[str], message: str, tmp_path: Path) -> None:
    done = run(*flags, *extra, "--epochs", "1", "--out", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
