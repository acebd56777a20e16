"""By default the features that the embedding explains are ranked; in paper mode, by importance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.report.largest_changes_section import SECTION, feature_changes, rank
from lens.report.page import write_report
from lens.report.section import by_task

FEATURES = pd.DataFrame(
    {
        "column": ["fell", "rose", "stayed", "useless", "vanished"],
        "r2_pre_low": [0.2, -0.1, 0.3, -0.4, 0.1],
        "r2_ft_low": [0.1, 0.2, 0.3, -0.9, -0.2],
        "delta_r2_split": [-0.1, 0.4, 0.01, -0.5, -0.3],
        "delta_importance": [0.3, -0.2, 0.1, 5.0, 0.2],
        "r2_pre": [0.3, 0.1, 0.5, -0.2, 0.4],
        "r2_ft": [0.2, 0.5, 0.5, -0.7, 0.1],
    }
)


def names(table: pd.DataFrame) -> list[str]:
    return table["column"].tolist()


def drawn(k: int, seed: int) -> pd.DataFrame:
    """Features whose importance and R2 have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    pre, ft = rng.normal(0.3, 0.3, size=(2, k))
    return pd.DataFrame(
        {
            "column": [f"f{i}" for i in range(k)],
            "r2_pre": pre, "r2_pre_low": pre - 0.2,
            "r2_ft": ft, "r2_ft_low": ft - 0.2,
            "delta_r2_split": ft - pre,
            "delta_importance": rng.normal(size=k),
        }
    )  # fmt: skip


def test_only_explained_features_are_ranked() -> None:
    ranking = rank(FEATURES, paper=False)
    assert names(ranking.gains) == ["rose", "stayed"]
    assert names(ranking.losses) == ["vanished", "fell"]
    assert names(ranking.stable) == ["stayed", "fell"]


def test_paper_mode_ranks_by_importance_alone() -> None:
    ranking = rank(FEATURES, paper=True)
    assert ranking.value == "delta_importance"
    assert names(ranking.gains) == ["useless", "fell", "vanished", "stayed", "rose"]
    assert names(ranking.losses) == ["rose", "stayed", "vanished", "fell", "useless"]
    assert names(ranking.stable) == ["stayed", "fell"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [11, 40])
def test_paper_mode_against_a_plain_search(k: int, seed: int) -> None:
    features = drawn(k, seed)
    ranking = rank(features, paper=True)
    change = dict(zip(features["column"], features["delta_importance"], strict=True))
    rising = sorted(change, key=lambda name: change[name])
    assert names(ranking.gains) == rising[::-1][:5]
    assert names(ranking.losses) == rising[:5]
    # At or above the median: no more than half of the features are below it.
    good = {
        row["column"]
        for row in features.to_dict("records")
        if (features["r2_pre"] <= row["r2_pre"]).sum() >= k / 2 + (k % 2 == 0)
        and (features["r2_ft"] <= row["r2_ft"]).sum() >= k / 2 + (k % 2 == 0)
    }
    nearest = sorted(good, key=lambda name: abs(change[name]))
    assert names(ranking.stable) == nearest[:5]


def test_paper_mode_stands_features_without_a_value_and_importance_that_only_falls() -> None:
    features = drawn(20, 0)
    features["delta_importance"] = -features["delta_importance"].abs()
    features.loc[3, "delta_importance"] = np.nan
    features.loc[5, ["r2_pre", "r2_ft"]] = np.nan
    ranking = rank(features, paper=True)
    assert [len(rows) for _, rows in ranking.blocks()][:2] == [5, 5]
    listed = pd.concat([rows for _, rows in ranking.blocks()])
    assert listed["delta_importance"].notna().all()
    assert ranking.stable["r2_pre"].notna().all()
    assert ranking.gains["delta_importance"].is_monotonic_decreasing
    assert ranking.gains["delta_importance"].iloc[0] == features["delta_importance"].max()


def section(folder: Path) -> str:
    path = by_task("features", lambda report: report.fill("task.html", task=report.tasks[0]),
                   (SECTION,))  # fmt: skip
    return " ".join(write_report(folder, (path,)).read_text(encoding="utf-8").split())


def in_paper_mode(folder: Path) -> Path:
    run = json.loads((folder / "run.json").read_text())
    run["config"]["mode"] = "paper"
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_the_page_says_which_rule_ranked(folder: Path, undrawn: list[str]) -> None:
    default = section(folder)
    assert "Ranked by the change of R2. Only features that the embedding explains" in default
    assert "importance alone" not in default
    path = folder / "cls" / "features.parquet"
    features = pd.read_parquet(path)
    features["delta_importance"] = np.linspace(-1.0, 0.01, len(features))
    features.to_parquet(path)
    paper = section(in_paper_mode(folder))
    assert "Only features that the embedding explains" not in paper
    assert "Ranked by the change of importance alone, as in the paper" in paper
    before, after = features["r2_pre"].median(), features["r2_ft"].median()
    assert f"both before ({before:.2f}) and after ({after:.2f})" in paper.replace("−", "-")
    risen = int((features["delta_importance"] > 0).sum())
    assert risen < 5
    assert (
        f"Importance rose in {risen} features and fell in {len(features) - risen}, so the list of "
        "gains goes on with the features that fell least."
    ) in paper


def test_the_figure_has_a_row_per_listed_feature(folder: Path) -> None:
    features = pd.read_parquet(folder / "cls" / "features.parquet")
    for paper in (False, True):
        ranking = rank(features, paper=paper)
        (axes,) = feature_changes(ranking).axes
        assert len(axes.get_yticks()) == sum(len(rows) for _, rows in ranking.blocks())
