"""Evidence of hand-made errors: what each column is, against the tests by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from lens.settings import Rules
from lens.verdicts.estimates import concatenate, delta_r2, equivalence, r2_score, significance
from lens.verdicts.evidence import estimate_task, evidence_table, significance_of_changes
from lens.verdicts.held_out import PRE, HeldOutErrors, ProbeErrors
from lens.verdicts.power import power_of, smallest_loss

N, K = 40, 6
GROUPS = np.arange(N)
RULES = Rules(flips=199)
OPTIONS = {"flips": 199, "seed": 1}


def errors(rng: np.random.Generator, size: float) -> ProbeErrors:
    return ProbeErrors(
        size * rng.chisquare(1, size=(N, K)), 0.1 * rng.normal(size=(N, K)), np.zeros((N, K))
    )


@pytest.fixture(scope="module")
def runs() -> list[HeldOutErrors]:
    """The per-channel view loses more than the other; a third probe; two retrained encoders."""
    rng = np.random.default_rng(0)
    # The last features vary so little that nobody reads them.
    baseline = np.where(np.arange(K) < 4, 2, 0.5) * rng.chisquare(1, size=(N, K))
    made = []
    for _ in range(3):
        probes = {
            "per_channel": {PRE: errors(rng, 0.5), "t": errors(rng, 1.2)},
            "one_scale": {PRE: errors(rng, 0.6), "t": errors(rng, 0.8)},
            "leading": {PRE: errors(rng, 0.6), "t": errors(rng, 0.9)},
            "one_scale_half": {PRE: errors(rng, 0.8), "t": errors(rng, 1.0)},
            "other": {PRE: errors(rng, 0.4), "t": errors(rng, 0.9)},
        }
        mlp = {(PRE, PRE): errors(rng, 0.5), (PRE, "t"): errors(rng, 1.0)}
        made.append(HeldOutErrors(baseline, probes, mlp))
    return made


def test_estimates_of_a_task(runs: list[HeldOutErrors]) -> None:
    held_out = runs[0]
    found = estimate_task(held_out, "t", GROUPS, runs[1:])

    def r2(errors: ProbeErrors) -> np.ndarray:
        return 1 - errors.error.sum(axis=0) / held_out.baseline.sum(axis=0)

    ridge, other = held_out.probes["per_channel"], held_out.probes["other"]
    np.testing.assert_allclose(found.before.value, r2(ridge[PRE]))
    np.testing.assert_allclose(found.after.value, r2(ridge["t"]))
    np.testing.assert_allclose(found.change.value, r2(ridge["t"]) - r2(ridge[PRE]))
    np.testing.assert_allclose(found.others["other"], [r2(other[PRE]), r2(other["t"])])
    assert [*found.mlp] == ["pre_pre", "pre_ft"]
    assert found.frozen_drop is not None
    np.testing.assert_allclose(
        found.frozen_drop.value, found.mlp["pre_pre"] - found.mlp["pre_ft"], atol=1e-12
    )
    changes = [
        r2(run.probes["per_channel"]["t"]) - r2(run.probes["per_channel"][PRE]) for run in runs
    ]
    assert found.band is not None
    np.testing.assert_allclose(found.band.mean, np.mean(changes, axis=0))


def test_the_learning_curve_is_a_sum_of_errors_with_all_and_half(runs: list[HeldOutErrors]) -> None:
    held_out = runs[0]
    found = estimate_task(held_out, "t", GROUPS)
    r2 = {
        (view, side): r2_score(held_out.probes[view][side], held_out.baseline, GROUPS).value
        for view in ("one_scale", "one_scale_half")
        for side in (PRE, "t")
    }
    change = {view: r2[view, "t"] - r2[view, PRE] for view in ("one_scale", "one_scale_half")}
    np.testing.assert_allclose(
        found.extrapolated.value, 2 * change["one_scale"] - change["one_scale_half"], atol=1e-12
    )
    read = (found.before.low > 0) | (found.after.low > 0)
    assert 0 < read.sum() < K, "all features alike, nothing is tested"
    cost = (change["one_scale_half"] - change["one_scale"])[read].mean()
    np.testing.assert_allclose(found.learning.value, [cost], atol=1e-12)
    assert "one_scale_half" not in found.others


def test_the_table_holds_the_tests_of_every_feature(runs: list[HeldOutErrors]) -> None:
    estimates = estimate_task(runs[0], "t", GROUPS, runs[1:])
    significances = significance_of_changes(estimates.changes, RULES, seed=1)
    table = evidence_table(estimates, significances, RULES, seed=1)
    views = {
        view: delta_r2(*runs[0].probes[view].values(), runs[0].baseline, GROUPS)
        for view in ("per_channel", "one_scale", "leading")
    }
    tests = [significance(change, **OPTIONS) for change in views.values()]
    assert (tests[0].p_maxt != tests[1].p_maxt).any(), "views alike, nothing is tested"
    np.testing.assert_array_equal(table["p_maxt"], np.max([t.p_maxt for t in tests], axis=0))
    larger = np.max([t.p for t in tests], axis=0)
    np.testing.assert_allclose(table["q_bh"], false_discovery_control(larger))
    for name, view in (("", "per_channel"), ("_one_scale", "one_scale"), ("_leading", "leading")):
        np.testing.assert_array_equal(table[f"delta_r2{name}"], views[view].value)
    np.testing.assert_array_equal(table["delta_r2_low"], views["per_channel"].low)
    within = equivalence(views["per_channel"], RULES.equivalence, **OPTIONS)
    np.testing.assert_array_equal(table["p_unchanged"], within)
    power = power_of(views, significances, RULES)
    np.testing.assert_array_equal(table["detectable"], power.detectable)
    needed = smallest_loss(power, estimates.before.value, estimates.before.patients, RULES)
    np.testing.assert_array_equal(table["smallest_loss"], needed)

    ridge = runs[0].probes["per_channel"]
    sides = (r2_score(ridge[s], runs[0].baseline, GROUPS) for s in (PRE, "t"))
    present = significance(concatenate(*sides), alternative="greater", **OPTIONS).p_maxt
    np.testing.assert_array_equal(table[["p_present_pre", "p_present_ft"]].T, present.reshape(2, K))

    drop = delta_r2(runs[0].mlp[PRE, "t"], runs[0].mlp[PRE, PRE], runs[0].baseline, GROUPS)
    worse = significance(drop, alternative="greater", **OPTIONS).p_maxt
    np.testing.assert_array_equal(table["p_recoded"], worse)
    np.testing.assert_array_equal(table["frozen_drop"], drop.value)
    read = r2_score(runs[0].mlp[PRE, PRE], runs[0].baseline, GROUPS)
    above = significance(read, alternative="greater", **OPTIONS).p_maxt
    np.testing.assert_array_equal(table["p_read"], above)
    assert estimates.band is not None
    np.testing.assert_array_equal(table["retrained_high"], estimates.band.high)


def test_two_encoders_are_too_few_for_a_band(runs: list[HeldOutErrors]) -> None:
    found = estimate_task(runs[0], "t", GROUPS, runs[1:2])
    assert found.encoders == 2
    assert found.band is None


def test_without_mlp_and_retraining_their_columns_are_left_out(runs: list[HeldOutErrors]) -> None:
    bare = HeldOutErrors(runs[0].baseline, runs[0].probes, {})
    estimates = estimate_task(bare, "t", GROUPS)
    tests = significance_of_changes(estimates.changes, RULES, seed=0)
    table = evidence_table(estimates, tests, RULES)
    assert [*table] == [
        "p_present_pre", "p_present_ft", "delta_r2", "delta_r2_low", "delta_r2_high",
        "delta_r2_one_scale", "delta_r2_leading", "needs_more", "lasting_share",
        "delta_r2_extrapolated",
        "p_extrapolated", "p_maxt", "q_bh", "p_unchanged", "detectable", "smallest_loss",
    ]  # fmt: skip
    seen = evidence_table(estimates, tests, RULES, unseen_low=np.arange(K) - 2.0)
    assert seen["unseen_low"].tolist() == [-2, -1, 0, 1, 2, 3]
