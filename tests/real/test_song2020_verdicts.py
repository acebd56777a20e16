"""Verdicts and the doctor on real radiomics: 260 prostate patients, planted embeddings.

Units, tails and collinearity are those of the published table; the embeddings are linear maps of
its leading components with noise of their own, and after "fine-tuning" one component is gone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.doctor import Settings, examine
from lens.verdicts.doctor_summary import summary
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.planted_changes import rotate
from tests.real.test_song2020 import contract_table

COMPONENTS, ERASED, D = 8, 1, 64


@pytest.fixture(scope="module")
def cohort(real_data: Path) -> dict[str, np.ndarray]:
    table = contract_table(real_data / "tables" / "Song2020.csv.gz").drop(columns="patient_id")
    r = table.to_numpy()
    r = r[:, r.std(axis=0) > 0]
    ranks = np.argsort(np.argsort(r, axis=0), axis=0) / len(r)
    ranks = (ranks - ranks.mean(axis=0)) / ranks.std(axis=0)
    u, s, vt = np.linalg.svd(ranks, full_matrices=False)
    latent = u[:, :COMPONENTS] * np.sqrt(len(r))
    kept = latent.copy()
    kept[:, ERASED] = 0.0
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(COMPONENTS, D))

    def embed(factors: np.ndarray) -> np.ndarray:
        return (factors @ mixing + rng.normal(size=(len(r), D))).astype(np.float32)

    # Share of each feature's (rank) variance that lives on the erased component.
    share = np.square(s[ERASED] * vt[ERASED]) / len(r)
    return {"r": r, "share": share, "pre": embed(latent), "erased": embed(kept),
            "noise": embed(latent)}  # fmt: skip


@pytest.fixture(scope="module", params=["normal", "raw"])
def verdicts(cohort, request: pytest.FixtureRequest) -> dict[str, pd.DataFrame]:
    """Embeddings that lost a component, that have other noise, and that were turned."""
    r, groups = cohort["r"], np.arange(len(cohort["r"]))
    sides = {
        "erased": cohort["erased"], "noise": cohort["noise"], "rotated": rotate(cohort["pre"], 3)
    }  # fmt: skip
    held_out = held_out_errors(
        cohort["pre"], sides, r, groups, make_folds(groups, 5, 1, 0), None, scores=request.param
    )
    clusters, rules = cluster_features(r), Rules(flips=1000)
    # Real features are near copies of each other by the dozen.
    assert len(clusters.medoids) < 0.5 * r.shape[1]
    return {task: judge(held_out, task, clusters, groups, rules).features for task in sides}


def test_no_verdict_stands_against_its_own_interval(verdicts) -> None:
    """Never, in any feature, near copies of one that changed included."""
    for table in verdicts.values():
        low, high = table["delta_r2_low"], table["delta_r2_high"]
        against = {
            "lost": high >= 0,
            "gained": low <= 0,
            "unchanged": (low <= -Rules().equivalence) | (high >= Rules().equivalence),
        }
        for verdict, contradicts in against.items():
            assert (contradicts & (table["verdict"] == verdict)).sum() == 0
    # What a medoid is called says nothing of its near copies.
    assert verdicts["erased"].groupby("cluster")["verdict"].nunique().max() > 1


def test_harmless_changes_are_called_in_no_feature(verdicts) -> None:
    for harmless in ("noise", "rotated"):
        assert set(verdicts[harmless]["verdict"]) <= {"unchanged", "undecided", "absent"}


def test_what_was_erased_is_lost_and_the_rest_is_not(cohort, verdicts) -> None:
    table, share = verdicts["erased"], cohort["share"]
    explained = table["r2_ridge_pre"] > 0.3
    on, off = (share > 0.4) & explained, (share < 0.02) & explained
    assert on.sum() >= 10
    assert off.sum() >= 20
    assert (table["verdict"][on] == "lost").mean() >= 0.8
    assert set(table["verdict"][off]) <= {"unchanged", "undecided"}
    assert table["delta_r2"][on].median() < -0.3
    assert table["delta_r2"][off].abs().median() < 0.03


def test_the_doctor_says_that_this_cohort_can_answer(cohort) -> None:
    r, groups = cohort["r"], np.arange(len(cohort["r"]))
    settings = Settings(Rules(flips=500), doses=(0.5, 1.0), clusters=3, draws=1)
    names = [f"f{i}" for i in range(r.shape[1])]
    found = examine(
        cohort["pre"], {"cls": cohort["erased"]}, r, names, groups, make_folds(groups, 5, 1, 0),
        settings,
    )  # fmt: skip
    content = summary(found)
    assert sum(row["alarms"] for row in content["false_alarms"]) == 0
    assert content["answer"] in ("yes", "partly")
    whole = found.planted[(found.planted["kind"] == "erased") & (found.planted["dose"] == 1.0)]
    assert (whole["detected"][whole["loss"] > 0.2] == 1).all()
    assert (whole["loss"] > 0.2).any()
