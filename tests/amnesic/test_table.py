"""The test as a whole on a planted truth, and that nothing of a held-out row reaches a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.amnesic import losses as module
from lens.amnesic.clusters import Cluster
from lens.amnesic.labels import label_of
from lens.amnesic.losses import Cohort, Settings, losses
from lens.amnesic.table import amnesic, p_values
from lens.verdicts.folds import make_folds

SETTINGS = Settings(draws=59, bootstraps=100)
CLUSTERS = [Cluster(name, np.arange(3 * at, 3 * at + 3)) for at, name in enumerate("abcd")]


def plant(n: int = 160, seed: int = 0, per_patient: int = 1):
    """Embedding of six factors, clusters of the first four, a label of the first; the embedding
    after fine-tuning holds the first factor alone, above noise."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n // per_patient), per_patient).astype(str)
    f = rng.standard_normal((n, 6))
    maps = rng.standard_normal((6, 20))
    pre = f @ maps + 0.5 * rng.standard_normal((n, 20))
    ft = f[:, :1] @ maps[:1] + 0.5 * rng.standard_normal((n, 20))
    r = np.repeat(f[:, :4], 3, axis=1) + 0.4 * rng.standard_normal((n, 12))
    label = (f[:, 0] + 0.5 * rng.standard_normal(n) > 0).astype(int)
    return pre, ft, r, label_of(pd.Series(label), "grade", patients=groups, folds=5), groups


def rows(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    return table[table["stage"] == stage].set_index("cluster")


def test_the_labels_own_cluster_is_found_and_no_other() -> None:
    pre, ft, r, label, groups = plant()
    table = amnesic(pre, {"cls": ft}, r, label, CLUSTERS, groups, settings=SETTINGS)["cls"]
    before, after = rows(table, "pre"), rows(table, "ft")
    assert list(before["finding"]) == ["rests"] + ["not shown"] * 3
    assert before.loc["a", "loss"] > 0.25
    assert before["loss"].drop("a").abs().max() < 0.05
    # After fine-tuning there is little but this factor: other parts as large cost as much.
    assert after.loc["a", "finding"] in ("rests", "large part")
    assert set(after["finding"].drop("a")) == {"not shown"}
    assert after.loc["a", "variance_removed"] > before.loc["a", "variance_removed"]
    np.testing.assert_allclose(before["null_variance"], before["variance_removed"], atol=0.03)
    assert (before["left_linear"] < 0.3 * before["read_linear"]).all()
    delta = rows(table, "delta")
    np.testing.assert_allclose(delta["loss"], after["loss"] - before["loss"])
    assert (delta["loss_low"] <= delta["loss"]).all()
    assert delta[["p", "p_maxt", "rank"]].isna().all(axis=None)


def test_a_label_of_chance_costs_nothing() -> None:
    pre, ft, r, label, groups = plant()
    chance = label._replace(values=np.random.default_rng(5).permutation(label.values))
    table = amnesic(pre, {"cls": ft}, r, chance, CLUSTERS, groups, settings=SETTINGS)["cls"]
    assert set(table["finding"]) == {"not shown", ""}
    assert rows(table, "pre")["p_maxt"].min() > 0.05


def test_values_of_held_out_rows_change_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wild features and labels of the held-out rows of a fold leave its predictions as they are."""
    pre, _, r, label, groups = plant()
    fold = make_folds(groups, 5, 1, 0)[0]
    seen: list[np.ndarray] = []
    heads = module.fit_heads

    def spy(scale, u, covariance, variance, n):
        found = heads(scale, u, covariance, variance, n)
        if len(u) == 1:
            seen.append(found)
        return found

    monkeypatch.setattr(module, "fit_heads", spy)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)  # one thread: a cluster after the other
    rng = np.random.default_rng(3)
    held = fold.test
    wild = np.where(held[:, None], rng.permutation(r) * 100, r)
    other = np.where(held, 1 - label.values, label.values)
    far = np.where(held[:, None], pre + 50 * rng.standard_normal(pre.shape), pre)
    found = {}
    for name, x, features, values in (
        ("as it is", pre, r, label.values),
        ("wild", far, wild, other),
    ):
        seen.clear()
        cohort = Cohort(label._replace(values=values), features, groups, [fold])
        few = Settings(draws=19, bootstraps=20, leftovers=False)
        losses(x, cohort, CLUSTERS, few)
        found[name] = [each.copy() for each in seen]
    assert len(found["wild"]) == 1 + len(CLUSTERS), "nothing erased, and each cluster"
    for one, two in zip(found["as it is"], found["wild"], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-10)


def test_studies_of_a_patient_count_as_one() -> None:
    pre, ft, r, label, groups = plant(n=80)
    doubled = [np.repeat(each, 2, axis=0) for each in (pre, ft, r)]
    twice = label._replace(values=np.repeat(label.values, 2))
    ids = np.repeat(groups, 2)
    few = Settings(draws=19, bootstraps=300, leftovers=False, share=0.2)
    once = amnesic(pre, {"a": ft}, r, label, CLUSTERS[:1], groups, settings=few)["a"]
    found = amnesic(doubled[0], {"a": doubled[1]}, doubled[2], twice, CLUSTERS[:1], ids,
                    settings=few)["a"]  # fmt: skip
    assert found["patients"].iloc[0] == 80
    assert found["rows"].iloc[0] == 160
    width = [(t["score_before_high"] - t["score_before_low"]).iloc[0] for t in (once, found)]
    assert width[1] > 0.8 * width[0], "copies of a study make no interval narrower"


def test_family_wise_p_knows_the_family() -> None:
    rng = np.random.default_rng(0)
    null = [rng.standard_normal(199) for _ in range(30)]
    p, p_maxt = p_values([2.5] + [0.0] * 29, null)
    alone = p_values([2.5], null[:1])
    assert p[0] == alone[0][0] == (1 + (null[0] >= 2.5).sum()) / 200
    assert p_maxt[0] > 5 * alone[1][0], "of thirty clusters one is that large by chance"
    assert (p_maxt >= p).all()
    assert p_values([9.0] + [0.0] * 29, null)[1][0] == 1 / 200
    assert p_values([1.0, 0.5], [np.zeros(0), null[0]])[1][0] == 1.0


def test_without_random_subspaces_as_large_a_large_part_would_be_taken_for_the_cluster() -> None:
    """The other factors' clusters, of an embedding that holds nothing but the label's factor."""
    _, ft, r, label, groups = plant()
    table = amnesic(ft, {"cls": ft}, r, label, CLUSTERS, groups, settings=SETTINGS)["cls"]
    own = rows(table, "ft").loc["a"]
    assert own["null_mean"] > 3 * own["null_rank_mean"], "as large a part costs far more"


def test_a_quantity_and_its_missing_values() -> None:
    pre, ft, r, _, groups = plant()
    values = pd.Series(np.exp(r[:, 0]))
    values[:30] = np.nan
    label = label_of(values, "size", patients=groups, folds=5)
    table = amnesic(pre, {"cls": ft}, r, label, CLUSTERS, groups, settings=SETTINGS)["cls"]
    assert table["rows"].iloc[0] == 130
    assert rows(table, "pre").loc["a", "score_before"] > 0.5
    assert rows(table, "pre").loc["a", "finding"] == "rests"
    assert rows(table, "pre").loc["a", "score_after"] < 0.15
