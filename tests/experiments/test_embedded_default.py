"""The embedded default, end to end on few phantoms: what it trains on, and what it compares."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tyro

from experiments.main_job import embedded, factor_default
from experiments.main_job.config import Config
from experiments.main_job.plan import settle
from experiments.sweep import job
from lens.cohort import factor_phantom
from lens.errors import InputError

WORDS = (
    "--phantoms", "24", "--pretrain-epochs", "1", "--finetune-epochs", "1", "--folds", "2",
    "--epochs", "3", "--l1", "0", "--l2", "0", "--bootstraps", "20", "--flips", "200",
    "--hidden", "4",
)  # fmt: skip


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"trained": 32, "shape": (16, 24, 24), "spacing": (3.0, 3.0, 3.0)}
    small |= {"depths": (1, 1), "widths": (8, 16), "strides": (2,)}  # to compile in seconds
    form = embedded.FORMS["standard"]._replace(**small)
    monkeypatch.setitem(embedded.FORMS, "standard", form)


@pytest.mark.usefixtures("undrawn")
def test_phantoms_become_a_report_with_a_task_and_its_control(few, tmp_path, capsys) -> None:
    words = [*WORDS, "--out", str(tmp_path / "run")]
    assert job(tyro.cli(Config, args=words)) == 0
    said = capsys.readouterr().out
    for task in ("lesion-grade", "permuted"):
        assert f"{task}: did anything change?" in said
        features = pd.read_parquet(tmp_path / "run" / task / "features.parquet")
        assert set(features["image"]) == {"original"}
        assert "r2_exposed_pre" not in features, "no phantom that is compared was trained on"
        assert "r2_unexposed_pre" in features
    assert (tmp_path / "run" / "report.html").is_file()
    capsys.readouterr()
    assert job(tyro.cli(Config, args=words)) == 0
    done = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert all(stage["reused"] for stage in done.values()), "a second run trains nothing"


def test_trained_and_compared_phantoms_are_different_patients(few) -> None:
    plan = settle(tyro.cli(Config, args=[*WORDS]))
    pool = factor_default._draw(plan)
    compared = factor_phantom.draw_volumes(range(24), 0, plan.shape, plan.spacing)
    known = {volume.tobytes() for volume in compared}
    assert len(known) == 24
    assert not known & {volume.tobytes() for volume in pool.volumes}
    assert not set(pool.train) & set(pool.val)
    assert len(pool.train) + len(pool.val) == len(pool.volumes) == 32


def test_a_control_of_permuted_labels_keeps_their_distribution(few, monkeypatch, tmp_path) -> None:
    given = {}

    def caught(encoder, volumes, labels, **_):
        given[len(given)] = labels
        raise StopIteration

    monkeypatch.setattr("encoders.load", lambda path: None)
    monkeypatch.setattr("encoders.finetune", caught)
    plan = settle(tyro.cli(Config, args=[*WORDS]))
    places = {name: tmp_path / name for name in ("pre", *plan.scopes)}
    pool = factor_default._draw(plan)
    for task in plan.scopes:
        with pytest.raises(StopIteration):
            factor_default._finetuning(plan, task, lambda: pool, places)()
    np.testing.assert_array_equal(given[0], pool.labels)
    np.testing.assert_array_equal(np.sort(given[1]), np.sort(pool.labels))
    assert abs(np.corrcoef(given[1], pool.labels)[0, 1]) < 0.5


def test_two_forms_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="--quick and --full"):
        settle(tyro.cli(Config, args=["--quick", "--full"]))


@pytest.mark.parametrize(("words", "tasks"), [
    ([], ["lesion-grade", "permuted"]),
    (["--roi", "lesion"], ["lesion-grade", "permuted"]),
    (["--quick"], ["lesion-grade"]),
    (["--full"], ["cls", "reg", "seg-lesion", "seg-gland"]),
    (["--full", "--roi", "lesion"], ["seg-lesion"]),
])  # fmt: skip
def test_tasks_are_those_whose_regions_are_analysed(words, tasks) -> None:
    plan = settle(tyro.cli(Config, args=words))
    assert list(plan.scopes) == tasks
    assert all(set(scope.rois) <= set(plan.config.roi) for scope in plan.scopes.values())
