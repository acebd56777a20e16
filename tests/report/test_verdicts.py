"""The section of the verdicts follows from the features table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.report.verdicts_section import VERDICT_COLOURS, evidence, verdict_figure
from lens.verdicts.rules import UNCHANGED, VERDICTS, with_verdicts


@pytest.fixture
def features() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "column": [f"t2.gland.original_glcm_F{i}" for i in range(8)],
            "modality": ["t2"] * 5 + ["adc"] * 3,
            "roi": "gland",
            "image": "original",
            "feature_class": ["glcm", "glcm", "gldm", "gldm", "gldm", "glcm", "glcm", "ngtdm"],
            "feature": [f"F{i}" for i in range(8)],
            "verdict": ["lost", "lost", "lost", "kept", "gained", "moved", "absent", "kept"],
            "cluster": [0, 0, 1, 2, 3, 4, 5, 6],
            "medoid": [True, False, True, True, True, True, True, True],
            "delta_r2": [-0.5, -0.4, -0.6, -0.002, 0.3, 0.0, np.nan, 0.01],
            "delta_importance": [0.2, 0.1, -0.3, 0.4, 0.5, 0.1, 0.1, -0.1],
            "r2_ceiling": np.nan,
        }
    )
    table["delta_r2_low"], table["delta_r2_high"] = (
        table["delta_r2"] - 1e-3,
        table["delta_r2"] + 1e-3,
    )
    for name in ("r2_pre_pre", "r2_pre_ft"):
        table[name] = rng.uniform(size=8)
    return table


def test_counts_add_up(features: pd.DataFrame) -> None:
    content = evidence(features, 0.05, 0.01)
    rows = {row["name"]: row for row in content["counts"]}
    assert rows["all features"] == {
        "name": "all features", "total": 8,
        "lost": 3, "gained": 1, "moved": 1, "kept": 2, "absent": 1,
    }  # fmt: skip
    assert rows["T2 gland"]["lost"] == 3
    assert rows["gldm"]["total"] == 3
    assert sum(rows[name]["total"] for name in ("T2 gland", "ADC gland")) == 8


def test_a_cluster_is_listed_once_and_the_largest_change_first(features: pd.DataFrame) -> None:
    listed = {
        verdict: (rows, total) for verdict, rows, total in evidence(features, 0.05, 0.01)["changed"]
    }
    rows, total = listed["lost"]
    assert total == 3
    assert [row["delta_r2"] for row in rows] == [-0.6, -0.5]
    assert [row["copies"] for row in rows] == [0, 1]
    assert rows[0]["label"] == "T2 gland, original GLDM F2"


def test_opposite_signs_count_where_the_change_is_sure_and_not_tiny(features: pd.DataFrame) -> None:
    found = evidence(features, 0.05, 0.005)["disagreement"]
    # Two lost near copies with a growing importance, and one that grew by 0.01.
    assert (found["count"], found["of"]) == (3, 5)
    assert [row["delta_r2"] for row in found["examples"]] == [-0.5, 0.01]
    assert evidence(features, 0.05, 0.45)["disagreement"]["count"] == 1


def test_every_verdict_has_a_colour_and_changes_are_listed(features: pd.DataFrame) -> None:
    assert set(VERDICT_COLOURS) == set(VERDICTS)
    listed = [verdict for verdict, _, _ in evidence(features, 0.05, 0.01)["changed"]]
    assert listed == [verdict for verdict in VERDICTS if verdict not in UNCHANGED]


def test_the_figure_holds_every_feature_with_a_value(features: pd.DataFrame) -> None:
    (axes,) = verdict_figure(features).axes
    drawn = np.ma.concatenate([points.get_offsets() for points in axes.collections])
    assert len(drawn) == len(features)
    np.testing.assert_allclose(
        np.sort(np.ma.getdata(drawn)[:, 0]), np.sort(features["delta_r2"]), atol=1e-12
    )
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "ADC glcm", "ADC ngtdm", "T2 glcm", "T2 gldm",
    ]  # fmt: skip
    names = {text.get_text() for text in axes.get_legend().get_texts()}
    assert names == {"lost (3)", "gained (1)", "moved (1)", "kept (2)", "absent (1)"}


def test_the_single_splits_columns_keep_their_values_under_other_names() -> None:
    split = pd.DataFrame(
        {"column": ["a", "b"], "r2_pre": [0.1, 0.2], "delta_r2": [1.0, 2.0],
         "delta_r2_low": [0.5, 1.5], "delta_r2_high": [1.5, 2.5], "p_maxt": [0.1, 0.2],
         "q_bh": [0.3, 0.4]}
    )  # fmt: skip
    own = pd.DataFrame({"column": ["b", "a"], "verdict": ["lost", "kept"], "delta_r2": [7.0, 8.0]})
    table = with_verdicts(split, own)
    assert table["column"].tolist() == ["a", "b"]
    assert table["delta_r2"].tolist() == [8.0, 7.0]
    assert table["delta_r2_split"].tolist() == [1.0, 2.0]
    assert table["delta_r2_split_low"].tolist() == [0.5, 1.5]
    assert {"p_maxt_split", "q_bh_split", "r2_pre"} <= set(table.columns)
