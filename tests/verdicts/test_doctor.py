"""The doctor on cohorts whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lens.settings import Rules
from lens.verdicts.doctor import Findings, Settings, count_fits, examine
from lens.verdicts.doctor_summary import summary, table
from lens.verdicts.folds import make_folds
from lens.verdicts.power import power_curve
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
    changes = findings.planted
    harmless = changes[changes["kind"] == "harmless"]
    assert set(harmless["change"]) == {"nothing", "scale", "rotation", "gain per channel"}
    assert (harmless["alarms"] == 0).all()
    assert (changes.loc[changes["kind"] == "exchangeable", "alarms"] == 0).all()
    others = changes[changes["change"] == "rows of others"]
    assert (others["lost"] == len(findings.features)).all()


def test_an_erased_cluster_is_found_by_dose(findings: Findings) -> None:
    erased = findings.planted[findings.planted["kind"] == "erased"]
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
    erased = findings.planted[findings.planted["kind"] == "erased"]
    # Nine erasures: a sum of coins with these chances has a deviation below 1.5.
    assert abs(erased["expected"].sum() - erased["detected"].sum()) < 3
    loss, power = power_curve(findings.planted)
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
    alarmed = findings.planted.assign(alarms=1)
    content = summary(Findings(alarmed, findings.features, N, findings.rules, findings.noise))
    assert content["answer"] == "no"
    assert "take nothing away" in content["sentence"]
    weak = findings.features.assign(r2=0.01)
    content = summary(Findings(findings.planted, weak, N, findings.rules, findings.noise))
    assert content["answer"] == "no"
    assert "only a loss of R2 above" in content["sentence"]
