"""A setting out of its range is refused by every job in one line that names the flag."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

NEEDED = {
    "pretrain": ["--cohort", "c.csv", "--out", "run"],
    "finetune": ["--cohort", "c.csv", "--out", "run", "--task", "segmentation", "--label", "gland"],
    "embed": ["--cohort", "c.csv", "--out", "E.npz", "--encoder", "e"],
    "radiomics": ["--cohort", "c.csv", "--out", "R.csv"],
    "doctor": ["--pre", "p.npz", "--radiomics", "R.csv", "--out", "d"],
    "sweep": ["--out", "run"],
    "prepare check": ["check", "--cohort", "c.csv", "--out", "r.csv"],
    "prepare phantoms": ["phantoms", "--cohort", "c.csv", "--out", "p"],
}
"""Job -> flags that it needs, of files that are not there: they are not looked at."""

WRONG = {
    "pretrain": [
        "--ratio nan", "--ratio 1", "--patch 0", "--width -3", "--rate nan", "--weight-decay inf",
        "--warm-up 1", "--drop-path nan", "--epochs 0", "--batch 0", "--seed -1", "--seeds 0",
        "--spacing 1 nan 1", "--shape 0 8 8", "--checkpoint-steps 0",
    ],
    "finetune": [
        "--decoder-width 0", "--auxiliary-width -1", "--layer-decay nan", "--rate inf",
        "--drop-path 1",
    ],
    "embed": ["--spacing inf 1 1", "--shape 8 0 8", "--batch-size 0", "--stage 0"],
    "radiomics": ["--spacing nan 1 1", "--workers 0", "--perturb -2"],
    "doctor": ["--noise nan", "--doses 2", "--level nan", "--margin -1", "--flips 3", "--seed -1"],
    "sweep": [
        "--l1 nan", "--l2 -1", "--rate nan", "--level 1", "--margin inf", "--equivalence 0",
        "--flips 1", "--memory nan", "--seed 4294967296", "--spacing 0 1 1", "--pretrain-epochs 0",
    ],
    "prepare check": ["--spacing nan 1 1"],
    "prepare phantoms": ["--spacing nan", "--spacing -1", "--seed -1"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("job", "flags"), [(job, flags) for job, listed in WRONG.items() for flags in listed]
)
def test_a_wrong_setting_is_one_line_and_exit_1(
    job: str,
    flags: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from experiments.common.cli import run

    name = job.partition(" ")[0]
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *NEEDED[job], *flags.split()])
    monkeypatch.setattr("experiments.common.cli.stop_tidily", lambda: None)
    monkeypatch.setattr("experiments.common.cli._keep_compiled_programs", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run(module.Config, module.job)
    said = capsys.readouterr()
    assert ended.value.code == 1, said.err
    (line,) = said.err.splitlines()
    assert line.startswith("refused: ")
    assert flags.split()[0] in line
    assert not list(tmp_path.iterdir()), "something was written"
