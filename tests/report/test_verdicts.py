"""The section of the verdicts follows from the features table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.report.answer import whole_test
from lens.report.answer_caveats import WITHHELD, exposure, withheld_in_words
from lens.report.palette import MEANINGS
from lens.report.verdicts_section import (
    SHAPES,
    VERDICT_COLOURS,
    detectable,
    evidence,
    group_verdicts,
    verdict_figure,
)
from lens.settings import Rules
from lens.verdicts.held_out import RIDGE_VIEWS
from lens.verdicts.rules import NO_CHANGE, VERDICTS, with_verdicts, withheld


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
            "verdict": [
                "lost", "lost", "lost", "unchanged", "gained", "recoded", "absent", "undecided",
            ],
            "withheld": ["", "", "", "", "", "other seeds", "", "learning curve"],
            "cluster": [0, 0, 1, 2, 3, 4, 5, 6],
            "medoid": [True, False, True, True, True, True, True, True],
            "delta_r2": [-0.5, -0.4, -0.6, -0.002, 0.3, 0.0, np.nan, 0.01],
            "delta_importance": [0.2, 0.1, -0.3, 0.4, 0.5, 0.1, 0.1, -0.1],
            "r2_ceiling": np.nan,
            "smallest_loss": [0.2, 0.2, 0.2, 0.05, 0.2, 0.1, 0.1, 0.08],
            "retrained": 1,
            "r2_ridge_pre": 0.7,
            "p_maxt": 0.001,
            "p_recoded": 0.02,
            "q_bh": 0.002,
            "linear_only": [False, False, True, False, False, False, False, False],
            "delta_r2_kernel_low": [-0.4, -0.4, -0.1, np.nan, -0.1, np.nan, np.nan, np.nan],
            "delta_r2_kernel_high": [-0.2, -0.2, 0.1, np.nan, 0.1, np.nan, np.nan, np.nan],
        }
    )  # fmt: skip
    table["delta_r2_low"], table["delta_r2_high"] = (
        table["delta_r2"] - 1e-3,
        table["delta_r2"] + 1e-3,
    )
    for name in ("r2_pre_pre", "r2_pre_ft"):
        table[name] = rng.uniform(size=8)
    return table


def test_counts_add_up(features: pd.DataFrame) -> None:
    content = evidence(features)
    rows = {row["name"]: row for row in content["counts"]}
    assert content["total"] == {
        "name": "all features", "total": 8,
        "lost": 3, "gained": 1, "recoded": 1, "unchanged": 1, "undecided": 1, "absent": 1,
    }  # fmt: skip
    assert rows["T2 gland"]["lost"] == 3
    assert rows["gldm"]["total"] == 3
    assert sum(rows[name]["total"] for name in ("T2 gland", "ADC gland")) == 8


def test_a_cluster_is_listed_once_and_the_largest_change_first(features: pd.DataFrame) -> None:
    rows = [row for row in evidence(features)["changed"] if row["verdict"] == "lost"]
    assert [row["delta_r2"] for row in rows] == [-0.6, -0.5]
    assert [(row["alike"], row["copies"]) for row in rows] == [(0, 0), (1, 1)]
    assert rows[0]["label"] == "T2 gland, original GLDM F2"


def test_a_feature_is_listed_with_a_verdict_that_its_medoid_does_not_share(
    features: pd.DataFrame,
) -> None:
    features.loc[0, "verdict"] = "undecided"
    rows = [row for row in evidence(features)["changed"] if row["verdict"] == "lost"]
    assert [row["feature"] for row in rows] == ["F2", "F1"]
    assert (rows[1]["alike"], rows[1]["copies"]) == (0, 1)


def test_p_of_a_recoded_feature_is_that_of_the_frozen_probe(features: pd.DataFrame) -> None:
    rows = {row["feature"]: row for row in evidence(features)["changed"]}
    assert (rows["F0"]["p"], rows["F0"]["q"]) == (0.001, 0.002)
    assert rows["F5"]["p"] == 0.02
    assert np.isnan(rows["F5"]["q"])


def test_what_the_nonlinear_reader_finds_is_said(features: pd.DataFrame) -> None:
    content = evidence(features)
    found = {row["feature"]: row["reader"] for row in content["changed"]}
    assert found == {"F2": "still there", "F0": "lost too", "F4": "not clear", "F5": ""}
    assert content["nonlinear"] == {"lost": 3, "lost_linear": 1, "gained": 1, "gained_linear": 0}


def test_withheld_changes_are_counted_with_the_verdict_that_they_got(
    features: pd.DataFrame,
) -> None:
    rows = withheld_in_words(features)
    assert [(row["count"], row["verdicts"]) for row in rows] == [
        (1, "1 undecided"), (1, "1 recoded"),
    ]  # fmt: skip
    assert "more patients" in rows[0]["reason"]
    assert "other seeds" in rows[1]["reason"]


def test_every_reason_of_the_rules_has_words() -> None:
    row = {"delta_r2": 0.3, "delta_r2_low": 0.2, "delta_r2_high": 0.4, "p_maxt": 0.001}
    row |= {f"delta_r2_{view}": 0.3 for view in RIDGE_VIEWS[1:]}
    row |= {"delta_r2_extrapolated": 0.0, "p_extrapolated": 1.0, "needs_more": 0}
    row |= {"lasting_share": 1.0}
    row |= {"unseen_low": 0.1, "retrained_low": 0.1, "retrained_high": 0.4}
    evidence = pd.DataFrame([row] * 4)
    evidence.loc[1, "needs_more"] = 1
    evidence.loc[2, "unseen_low"] = -0.1
    evidence.loc[3, "retrained_low"] = -0.1
    found = withheld(evidence, Rules()).tolist()
    assert found[0] == ""
    assert set(found[1:]) == set(WITHHELD)


def test_how_small_a_loss_shows_is_said_of_the_undecided(features: pd.DataFrame) -> None:
    features["smallest_loss"] = [0.3, 0.3, 0.3, 0.1, 0.3, 0.3, 0.3, 0.16]
    features.loc[3, "verdict"] = "undecided"
    assert detectable(features) == (
        "a loss of R2 of 0.13 would have been shown with 80% power (median over them; 0.10 to 0.16)"
    )
    features.loc[3, "smallest_loss"] = np.inf
    assert detectable(features).endswith(
        "; for 1 of them not even the loss of all that is explained would have been shown"
    )
    features.loc[7, "smallest_loss"] = np.inf
    assert detectable(features).startswith("for them not even")
    features["verdict"] = "absent"
    assert detectable(features) == ""


@pytest.mark.parametrize(
    ("columns", "known"),
    [
        ((), "unknown"), (("r2_exposed_pre",), "all"), (("r2_unexposed_pre",), "none"),
        (("r2_exposed_pre", "r2_unexposed_pre"), "some"),
    ],
)  # fmt: skip
def test_whom_fine_tuning_saw_is_known_by_its_columns(
    features: pd.DataFrame, columns: tuple[str, ...], known: str
) -> None:
    assert exposure(features.assign(**dict.fromkeys(columns, 0.5))) == known


def levels(p: float) -> pd.DataFrame:
    rows = [
        ("task", "", "", "all"),
        ("group", "", "gland", "glcm"),
        ("modality", "t2", "gland", "all"),
        ("modality", "t2", "gland", "glcm"),
        ("modality", "adc", "gland", "all"),
    ]
    table = pd.DataFrame(rows, columns=["level", "modality", "roi", "group"])
    return table.assign(p_group=p, verdict="lost", delta_r2_cv=-0.1)  # fmt: skip


def test_the_task_is_answered_by_its_own_test(features: pd.DataFrame) -> None:
    def said(features: pd.DataFrame, p: float) -> str:
        return whole_test(features, levels(p), 0.05).text

    assert said(features, 0.001).startswith("Yes: a change of R2 is shown (")
    assert "p = 0.0010)." in said(features, 0.001)
    nothing = features.assign(verdict="undecided")
    assert said(nothing, 0.001).endswith("no single feature can be called lost or gained, though.")
    assert said(nothing, 0.2).endswith("not to say that there is none.")
    some = said(features, 0.06)
    assert some.startswith("Not as a whole: ")
    assert "; 4 features are shown to change by themselves; 1 feature is read differently" in some


def test_groups_stand_by_modality_and_class() -> None:
    found = group_verdicts(levels(0.01))
    assert found["names"] == ["all", "glcm"]
    assert [row["name"] for row in found["rows"]] == ["T2", "ADC"]
    cells = found["rows"][1]["cells"]
    assert cells[0]["verdict"] == "lost"
    assert cells[1] is None


def test_opposite_signs_count_where_a_loss_or_gain_is_called(features: pd.DataFrame) -> None:
    found = evidence(features)["disagreement"]
    # Two lost near copies with a growing importance; what is not called has no sign to speak of.
    assert (found["count"], found["of"]) == (2, 4)
    assert [row["delta_r2"] for row in found["examples"]] == [-0.5]
    assert evidence(features.assign(verdict="undecided"))["disagreement"]["of"] == 0


def test_every_verdict_has_a_colour_and_changes_are_listed(features: pd.DataFrame) -> None:
    assert [*VERDICT_COLOURS] == [*SHAPES] == [*VERDICTS]
    marks = {(VERDICT_COLOURS[verdict], SHAPES[verdict]) for verdict in VERDICTS}
    assert len(marks) == len(VERDICTS)
    changes = [verdict for verdict in VERDICTS if verdict not in NO_CHANGE]
    drawn = {(SHAPES[verdict], MEANINGS[verdict].hollow) for verdict in changes}
    assert len(drawn) == len(changes), "without colour vision"
    listed = [row["verdict"] for row in evidence(features)["changed"]]
    assert list(dict.fromkeys(listed)) == changes


def test_the_figure_holds_every_feature_with_a_value(features: pd.DataFrame) -> None:
    (axes,) = verdict_figure(features, 0.1).axes
    drawn = np.ma.concatenate([points.get_offsets() for points in axes.collections])
    found = np.sort(np.ma.getdata(drawn)[:, 0])
    np.testing.assert_allclose(found, np.sort(features["delta_r2"].dropna()), atol=1e-12)
    assert "without a value: 1" in axes.get_xlabel()
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "ADC glcm", "ADC ngtdm", "T2 glcm", "T2 gldm",
    ]  # fmt: skip
    names = {text.get_text() for text in axes.get_legend().get_texts()}
    assert names == {
        "lost (3)", "gained (1)", "recoded (1)", "unchanged (1)", "undecided (1)", "absent (1)",
    }  # fmt: skip


def test_the_single_splits_columns_keep_their_values_under_other_names() -> None:
    split = pd.DataFrame(
        {"column": ["a", "b"], "r2_pre": [0.1, 0.2], "delta_r2": [1.0, 2.0],
         "delta_r2_low": [0.5, 1.5], "delta_r2_high": [1.5, 2.5], "p_maxt": [0.1, 0.2],
         "q_bh": [0.3, 0.4]}
    )  # fmt: skip
    own = pd.DataFrame(
        {"column": ["b", "a"], "verdict": ["lost", "absent"], "delta_r2": [7.0, 8.0]}
    )
    table = with_verdicts(split, own)
    assert table["column"].tolist() == ["a", "b"]
    assert table["delta_r2"].tolist() == [8.0, 7.0]
    assert table["delta_r2_split"].tolist() == [1.0, 2.0]
    assert table["delta_r2_split_low"].tolist() == [0.5, 1.5]
    assert {"p_maxt_split", "q_bh_split", "r2_pre"} <= set(table.columns)
