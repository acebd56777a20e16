"""Evidence of hand-made errors: what each column is, against the tests by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from lens.settings import Rules
from lens.verdicts.estimates import concatenate, delta_r2, r2_score, select, significance
from lens.verdicts.evidence import estimate_task, evidence_table
from lens.verdicts.held_out import PRE, HeldOutErrors, ProbeErrors

N, K = 40, 6
GROUPS = np.arange(N)
RULES = Rules(flips=199)
MEDOIDS = np.array([0, 2, 5])
OPTIONS = {"flips": 199, "seed": 1}


def errors(rng: np.random.Generator, size: float) -> ProbeErrors:
    return ProbeErrors(
        size * rng.chisquare(1, size=(N, K)), 0.1 * rng.normal(size=(N, K)), np.zeros((N, K))
    )


@pytest.fixture(scope="module")
def runs() -> list[HeldOutErrors]:
    """The per-channel view loses more than the other; a third probe; two retrained encoders."""
    rng = np.random.default_rng(0)
    baseline = 2 * rng.chisquare(1, size=(N, K))
    made = []
    for _ in range(3):
        probes = {
            "per_channel": {PRE: errors(rng, 0.5), "t": errors(rng, 1.2)},
            "one_scale": {PRE: errors(rng, 0.6), "t": errors(rng, 0.8)},
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


def test_the_table_holds_the_tests_of_the_medoids(runs: list[HeldOutErrors]) -> None:
    estimates = estimate_task(runs[0], "t", GROUPS, runs[1:])
    table = evidence_table(estimates, MEDOIDS, RULES, seed=1)
    views = {
        view: select(delta_r2(*runs[0].probes[view].values(), runs[0].baseline, GROUPS), MEDOIDS)
        for view in ("per_channel", "one_scale")
    }
    tests = [significance(change, **OPTIONS) for change in views.values()]
    assert (tests[0].p_maxt != tests[1].p_maxt).any(), "both views alike, nothing is tested"
    np.testing.assert_array_equal(table["p_maxt"], np.maximum(tests[0].p_maxt, tests[1].p_maxt))
    np.testing.assert_array_equal(table["q_bh"], np.maximum(tests[0].q_bh, tests[1].q_bh))
    np.testing.assert_array_equal(table["delta_r2"], views["per_channel"].value)
    np.testing.assert_array_equal(table["delta_r2_one_scale"], views["one_scale"].value)

    ridge = runs[0].probes["per_channel"]
    sides = (select(r2_score(ridge[s], runs[0].baseline, GROUPS), MEDOIDS) for s in (PRE, "t"))
    present = significance(concatenate(*sides), alternative="greater", **OPTIONS).p_maxt
    np.testing.assert_array_equal(table[["p_present_pre", "p_present_ft"]].T, present.reshape(2, 3))

    drop = delta_r2(runs[0].mlp[PRE, "t"], runs[0].mlp[PRE, PRE], runs[0].baseline, GROUPS)
    worse = significance(select(drop, MEDOIDS), alternative="greater", **OPTIONS).p_maxt
    np.testing.assert_array_equal(table["p_moved"], worse)
    np.testing.assert_array_equal(table["frozen_drop"], drop.value[MEDOIDS])
    assert estimates.band is not None
    np.testing.assert_array_equal(table["retrained_high"], estimates.band.high[MEDOIDS])


def test_without_mlp_and_retraining_their_columns_are_left_out(runs: list[HeldOutErrors]) -> None:
    bare = HeldOutErrors(runs[0].baseline, runs[0].probes, {})
    table = evidence_table(estimate_task(bare, "t", GROUPS), MEDOIDS, RULES)
    assert [*table] == [
        "p_present_pre", "p_present_ft", "delta_r2", "delta_r2_one_scale", "p_maxt", "q_bh",
    ]  # fmt: skip
