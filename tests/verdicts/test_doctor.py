"""The doctor on cohorts whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.doctor import Config, job
from lens.errors import InputError
from lens.settings import Rules
from lens.verdicts.doctor import (
    Findings,
    Settings,
    count_fits,
    examine,
    power_curve,
    summary,
    table,
)
from lens.verdicts.folds import make_folds
from tests.planted import Planted, plant

N = 150
SETTINGS = Settings(Rules(flips=499), doses=(0.3, 0.7, 1.0), clusters=3, draws=2)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=N, d=30)


@pytest.fixture(scope="module")
def findings(planted: Planted) -> Findings:
    return _examine(planted, planted.radiomics.iloc[:, 1:].to_numpy())


def _examine(planted: Planted, r: np.ndarray) -> Findings:
    groups, fits = np.arange(N), []
    folds = make_folds(groups, 4, 1, 0)
    found = examine(
        planted.pre, {"cls": planted.ft}, r, list(planted.radiomics.columns[1:]), groups, folds,
        SETTINGS, on_fit=lambda: fits.append(1),
    )  # fmt: skip
    assert len(fits) == count_fits(1, len(found.features), folds, SETTINGS)
    return found


def test_harmless_changes_raise_no_alarm_and_damage_does(findings: Findings) -> None:
    plants = findings.plants
    harmless = plants[plants["kind"] == "harmless"]
    assert set(harmless["change"]) == {"nothing", "scale", "rotation", "gain per channel"}
    assert (harmless["alarms"] == 0).all()
    assert (plants.loc[plants["kind"] == "exchangeable", "alarms"] == 0).all()
    others = plants[plants["change"] == "rows of others"]
    assert (others["lost"] == len(findings.features)).all()


def test_an_erased_cluster_is_found_by_dose(findings: Findings) -> None:
    erased = findings.plants[findings.plants["kind"] == "erased"]
    assert (erased.loc[erased["dose"] == 1.0, "detected"] == 1).all()
    # With all of it gone, nothing is left of what was explained.
    whole = erased[erased["dose"] == 1.0]
    np.testing.assert_allclose(whole["loss"], whole["r2_before"], atol=0.05)
    assert erased["cluster"].nunique() == 3
    assert (erased.pivot_table("loss", "cluster", "dose").diff(axis=1).iloc[:, 1:] > 0).all(
        axis=None
    )


def test_a_strong_cohort_can_answer(findings: Findings) -> None:
    content = summary(findings)
    assert content["answer"] in ("yes", "partly")
    assert content["explained"] == content["clusters"]
    assert 0.01 <= content["detectable"] < 0.4
    assert content["tasks"][0]["task"] == "cls"
    assert f"{N} patients" in content["sentence"]
    assert len(table(content)) > 6
    json.dumps(content)


def test_power_to_be_expected_agrees_with_what_was_found(findings: Findings) -> None:
    erased = findings.plants[findings.plants["kind"] == "erased"]
    # Nine erasures: a sum of coins with these chances has a deviation below 1.5.
    assert abs(erased["expected"].sum() - erased["detected"].sum()) < 3
    loss, power = power_curve(findings.plants)
    assert (np.diff(loss) >= 0).all()
    assert (np.diff(power) >= 0).all()


def test_on_noise_the_cohort_cannot_answer(planted: Planted) -> None:
    r = np.random.default_rng(5).normal(size=(N, 48))
    content = summary(_examine(planted, r))
    assert content["answer"] == "no"
    assert "cannot answer" in content["sentence"]
    assert content["explained"] == 0
    assert sum(row["alarms"] for row in content["false_alarms"]) == 0


def test_false_alarms_and_small_features_are_a_no(findings: Findings) -> None:
    alarmed = findings.plants.assign(alarms=1)
    content = summary(Findings(alarmed, findings.features, N, findings.rules, findings.noise))
    assert content["answer"] == "no"
    assert "take nothing away" in content["sentence"]
    weak = findings.features.assign(r2=0.01)
    content = summary(Findings(findings.plants, weak, N, findings.rules, findings.noise))
    assert content["answer"] == "no"
    assert "only a loss of R2 above" in content["sentence"]


def test_the_job_writes_what_it_found(planted: Planted, tmp_path: Path, capsys) -> None:
    paths = planted.write(tmp_path)
    config = Config(
        pre=paths["pre"], radiomics=paths["radiomics"], ft=(f"cls={paths['ft']}",), folds=3,
        flips=199, clusters=1, doses=(1.0,), draws=1, modality=("t2",), out=tmp_path / "out",
    )  # fmt: skip
    assert job(config) == 0
    content = json.loads((tmp_path / "out" / "doctor.json").read_text())
    said = capsys.readouterr().out
    assert content["sentence"] in said
    assert str(paths["pre"]) in said
    plants = pd.read_csv(tmp_path / "out" / "doctor.csv")
    assert (plants["kind"] == "erased").sum() == 1
    assert (tmp_path / "out" / "doctor.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("change", "message"),
    [({"doses": (2.0,)}, "--doses"), ({"folds": 1}, "--folds 1"), ({"draws": 0}, "--draws")],
)
def test_wrong_values_are_refused(planted: Planted, tmp_path: Path, change, message) -> None:
    paths = planted.write(tmp_path)
    config = {"pre": paths["pre"], "radiomics": paths["radiomics"], "out": tmp_path} | change
    with pytest.raises(InputError, match=message):
        job(Config(**config))
