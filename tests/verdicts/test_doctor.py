"""The doctor on cohorts whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lens.settings import Rules
from lens.verdicts.doctor import Findings, Settings, count_fits, examine
from lens.verdicts.doctor_answer import answer, rate, too_many
from lens.verdicts.doctor_summary import short_summary, spectra_of, summary, table
from lens.verdicts.estimates import Estimate
from lens.verdicts.folds import make_folds
from lens.verdicts.power import (
    Power,
    detectable_loss,
    loss_variance,
    power_curve,
    power_of,
    smallest_loss,
)
from lens.verdicts.sign_flips import Significance
from tests.planted import Planted, plant

N = 150
SETTINGS = Settings(Rules(flips=499), doses=(0.3, 0.7, 1.0), clusters=3, draws=2, maps=1)


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
    assert set(harmless["change"]) == {
        "nothing", "scale", "rotation", "gain per channel", "one direction x 30",
        "small directions x 5",
    }  # fmt: skip
    assert (harmless["alarms"] == 0).all()
    draws = changes[changes["kind"] == "exchangeable"]
    assert draws["change"].value_counts().tolist() == [2, 2, 2]
    assert (draws["alarms"] == 0).all()
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
    assert content["explained"] == content["tested"]
    assert content["nothing_changed"] == rate(0, 6)._asdict()
    assert (
        "0 of 6 draws in which nothing changed were called (95% interval 0% to 46%)"
        in (content["sentence"])
    )
    assert 0.01 <= content["detectable"] < 0.4
    assert content["tasks"][0]["task"] == "cls"
    assert f"{N} patients" in content["sentence"]
    assert len(table(content)) > 6
    json.dumps(content)


def test_a_loss_that_is_shown_and_not_called_has_no_power(findings: Findings) -> None:
    """The curve stays below where most losses of a size are withheld."""
    erased = findings.planted["kind"] == "erased"
    withheld = findings.planted.assign(expected=findings.planted["expected"].where(~erased, 0.0))
    assert detectable_loss(withheld, 0.01) is None
    assert detectable_loss(findings.planted, 0.01) is not None
    assert summary(replace(findings, planted=withheld))["answer"] == "no"


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
    content = summary(replace(findings, planted=alarmed))
    assert content["answer"] == "no"
    assert "take nothing away" in content["sentence"]
    weak = findings.features.assign(r2=0.01)
    content = summary(replace(findings, features=weak))
    assert content["answer"] == "no"
    assert "only a loss of R2 above" in content["sentence"]


FACTS: dict[str, Any] = {
    "form": "full", "patients": 58, "unit": "clusters of features", "tested": 40, "explained": 30,
    "median_r2": 0.575, "false_alarms": [{"change": "rotation", "alarms": 0, "runs": 3}],
    "nothing_changed": rate(1, 21)._asdict(), "detectable": 0.05, "tasks": [], "level": 0.05,
    "spectrum": [], "scores": "normal",
}  # fmt: skip


@pytest.mark.parametrize(
    ("detectable", "expected"),
    [(0.05, "yes"), (0.1, "yes"), (0.11, "partly"), (0.43, "partly"), (0.54, "no"), (None, "no")],
)
def test_the_answer_follows_the_smallest_loss_that_shows(
    detectable: float | None, expected: str
) -> None:
    """A median R2 of 0.575: three quarters of it are 0.43."""
    found, sentence = answer(FACTS | {"detectable": detectable})
    assert found == expected
    assert "1 of 21 draws in which nothing changed were called (95% interval 0% to 24%)" in sentence
    # The worst of what was planted and of the tasks counts.
    tasks = [{"task": "cls", "detectable": detectable}, {"task": "reg", "detectable": 0.02}]
    assert answer(FACTS | {"tasks": tasks})[0] == expected


def test_of_raw_values_the_answer_says_what_it_holds_for() -> None:
    said = answer(FACTS | {"scores": "raw"})[1]
    assert said == answer(FACTS)[1] + (
        " That holds for normal values; skewed features need larger losses."
    )


def test_a_collapsed_embedding_is_said_with_every_answer() -> None:
    wide = np.random.default_rng(0).normal(size=(100, 8))
    collapsed = wide * np.r_[1000.0, np.ones(7)]
    spectra = spectra_of(wide, {"cls": collapsed, "reg": wide})
    tables = {"cls": verdicts(0.05), "reg": verdicts(0.05)}
    for explained in (0, 3):
        tables["cls"] = verdicts(0.05, explained=explained)
        content = short_summary(tables, 100, Rules(), "normal", spectra=spectra)
        assert content["sentence"].endswith(
            ". The embeddings after fine-tuning on cls have collapsed: 100.0% of their variance is "
            "in one direction, their effective rank is 1.0."
        )
        assert content["sentence"].count("collapsed") == 1
        assert [row["embeddings"] for row in content["spectrum"]] == [
            "before fine-tuning", "after fine-tuning on cls", "after fine-tuning on reg",
        ]  # fmt: skip
        assert "effective rank 1.0, 100% of the variance in one direction" in (
            table(content)["found"].tolist()
        )
    content = short_summary(tables, 100, Rules(), "normal", spectra=spectra_of(wide, {}))
    assert "collapsed" not in content["sentence"]


@pytest.mark.parametrize(("alarms", "draws"), [(0, 21), (1, 21), (5, 21), (21, 21)])
def test_the_interval_of_the_rate_is_exact(alarms: int, draws: int) -> None:
    """Clopper and Pearson: the ends are where the tail beyond the count has probability 2.5%."""
    found = rate(alarms, draws)
    if alarms < draws:
        assert stats.binom.cdf(alarms, draws, found.high) == pytest.approx(0.025)
    if alarms > 0:
        assert stats.binom.sf(alarms - 1, draws, found.low) == pytest.approx(0.025)
    assert found.low <= alarms / draws <= found.high


@pytest.mark.parametrize(
    ("alarms", "says"),
    [
        ((0, 0, 0), ""),
        ((1, 1, 0), ""),
        ((3, 1, 1), ""),
        ((3, 2, 1), "6 of 30 changes that take nothing away were called"),
        ((0, 0, 3), "rotation, which takes nothing away, was called 3 of 3 times"),
        ((0, 0, 1), ""),
    ],
)
def test_too_many_false_alarms_in_all_or_of_one_change(alarms: tuple[int, ...], says: str) -> None:
    names, runs = ("other noise", "gain", "rotation"), (20, 7, 3)
    rows = [
        {"change": name, "alarms": count, "runs": of}
        for name, count, of in zip(names, alarms, runs, strict=True)
    ]
    assert too_many(rows, 0.05).startswith(says)
    assert bool(too_many(rows, 0.05)) is bool(says)


def verdicts(loss: float, r2: float = 0.5, explained: int = 3) -> pd.DataFrame:
    """A table of five features, of which the first ones are explained."""
    absent = 5 - explained
    return pd.DataFrame(
        {
            "p_present_pre": [0.001] * explained + [0.5] * absent,
            "r2_ridge_pre": [r2] * explained + [0.0] * absent,
            "smallest_loss": [loss if loss <= r2 else np.inf] * explained + [np.inf] * absent,
        }
    )


def test_the_short_form_reads_the_verdicts_and_takes_the_worst_task() -> None:
    tables = {"cls": verdicts(0.05), "reg": verdicts(0.2, 0.6, 2), "seg": verdicts(0.1)}
    content = short_summary(tables, 900, Rules(), "normal")
    assert content["answer"] == "partly"
    assert [row["detectable"] for row in content["tasks"]] == [0.05, 0.2, 0.1]
    assert content["sentence"] == (
        "With 900 patients this cohort can answer the question in part: it shows losses of R2 of "
        "0.20 or more with 80% power on reg, the task that shows least, for 2 of 5 features, and "
        "smaller ones may go unseen; no false-alarm rate was measured."
    )
    assert content["median_r2"] == 0.6
    json.dumps(content)
    assert len(table(content)) == 4
    assert short_summary({"cls": verdicts(0.05)}, 90_000, Rules(), "raw")["answer"] == "yes"
    # Of a median R2 of 0.5, three quarters are 0.375.
    assert short_summary({"cls": verdicts(0.38)}, 90_000, Rules(), "raw")["answer"] == "no"
    assert short_summary({"cls": verdicts(0.36)}, 90_000, Rules(), "raw")["answer"] == "partly"


def test_where_not_even_all_of_a_feature_would_be_missed_the_answer_is_no() -> None:
    content = short_summary({"cls": verdicts(0.6)}, 90, Rules(), "normal")
    assert content["answer"] == "no"
    assert content["tasks"] == [{"task": "cls", "detectable": None}]
    assert "not even the loss of all that is read of a typical feature" in content["sentence"]


def test_a_task_without_an_explained_feature_is_a_no_in_the_short_form() -> None:
    content = short_summary(
        {"cls": verdicts(0.05), "reg": verdicts(0.05, explained=0)}, 90, Rules(), "normal"
    )
    assert content["answer"] == "no"
    assert "explain none of the 5 features" in content["sentence"]
    assert content["median_r2"] is None


def test_both_forms_answer_alike(findings: Findings) -> None:
    full = summary(findings)
    found = {"cls": verdicts(0.05)}
    short = short_summary(found, N, findings.rules, "normal")
    assert [*short] == [*full]


@pytest.mark.parametrize("before", [0.3, 0.8])
@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
def test_the_variance_of_a_loss_is_that_of_normal_values(before: float, share: float) -> None:
    """A loss of R2 over 200 patients, drawn 20,000 times: the spread is known to 1%."""
    n, loss = 200, share * before
    rng = np.random.default_rng(0)
    kept, gone, rest = (
        np.sqrt(variance) * rng.normal(size=(20_000, n))
        for variance in (before - loss, loss, 1 - before)
    )
    total = np.square(kept + gone + rest).sum(axis=1)
    lost = (np.square(gone + rest).sum(axis=1) - np.square(rest).sum(axis=1)) / total
    expected = loss_variance(np.array([loss]), np.array([before]))[0]
    assert n * lost.var() == pytest.approx(expected, rel=0.05)


def smallest(needed: float, limit: float, patients: int, before: float = 0.6) -> float:
    """Smallest loss of one feature, of what its observed change would need to be significant."""
    power = Power(*(np.array([value]) for value in (needed, max(needed, 0.04), 0.0, limit)))
    (loss,) = smallest_loss(power, np.array([before]), patients, Rules(margin=0.04))
    return float(loss)


def test_the_smallest_loss_counts_that_a_loss_has_a_spread_of_its_own() -> None:
    # With patients without end what was observed is all there is.
    assert smallest(0.05, 3.0, 10**9) == pytest.approx(0.05, abs=0.002)
    loss = smallest(0.05, 3.0, 500)
    variance = loss_variance(np.array([loss]), np.array([0.6]))[0] / 500
    expected = np.sqrt(0.05**2 + (3 + stats.norm.ppf(0.8)) ** 2 * variance)
    assert loss == pytest.approx(expected, abs=0.002)
    assert loss > 0.06
    assert smallest(0.05, 3.0, 100) > loss
    assert smallest(0.61, 3.0, 500) == np.inf


def test_the_less_an_embedding_changed_the_smaller_the_loss_that_would_show() -> None:
    """Also below the margin, down to no change in any patient, where no limit is known."""
    losses = [smallest(needed, 3.0, 500) for needed in (0.2, 0.05, 0.02, 1e-3, 1e-9)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > 0.045, "a loss has a spread, whatever was observed"
    # One feature: its limit is that of Student's t.
    assert smallest(0.0, 0.0, 500) == smallest(1e-9, stats.t.ppf(0.975, 499), 500)
    assert smallest(0.0, 3.0, 10**9) == 0.04, "no loss below the margin is called"


def views(correlation: float, count: int, loss: float = 0.0) -> tuple[dict, dict]:
    """Changes of 40 features in some views of 100 patients, with their tests; the limit is 3."""
    rng = np.random.default_rng(0)
    common, changes, tests = rng.normal(size=(100, 40)), {}, {}
    for view in map(str, range(count)):
        own = rng.normal(size=common.shape)
        influence = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        influence *= 0.02 / np.linalg.norm(influence, axis=0)
        value = np.full(40, -loss)
        changes[view] = Estimate(value, value, value, influence, 100)
        tests[view] = Significance(np.ones(40), np.ones(40), 1.0, np.full(99, 3.0))
    return changes, tests


def test_one_view_has_the_power_of_a_normal_deviate() -> None:
    found = power_of(*views(1.0, 1, 0.06), Rules())
    error = 0.02 * np.sqrt(100 / 99)
    np.testing.assert_allclose(found.detectable, error * (3 + stats.norm.ppf(0.8)), rtol=0.01)
    # Of 2,000 draws.
    np.testing.assert_allclose(found.expected, stats.norm.cdf(0.06 / error - 3), atol=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.8, 1.0])
def test_all_views_must_show_a_change(correlation: float) -> None:
    """Independent views: the power of three is the cube of that of one."""
    found = power_of(*views(correlation, 3), Rules())
    shares = {0.0: 0.8 ** (1 / 3), 1.0: 0.8}
    factor = found.detectable / (0.02 * np.sqrt(100 / 99)) - 3
    if correlation in shares:
        assert factor.mean() == pytest.approx(stats.norm.ppf(shares[correlation]), abs=0.05)
    else:
        assert stats.norm.ppf(0.8) + 0.1 < factor.mean() < stats.norm.ppf(0.8 ** (1 / 3)) - 0.1
