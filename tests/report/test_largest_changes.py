"""Ranked are features that the embedding explains, by the size of their change."""

from __future__ import annotations

import pandas as pd

from lens.report.largest_changes_section import rank

FEATURES = pd.DataFrame(
    {
        "column": ["fell", "rose", "stayed", "useless", "vanished"],
        "r2_pre_low": [0.2, -0.1, 0.3, -0.4, 0.1],
        "r2_ft_low": [0.1, 0.2, 0.3, -0.9, -0.2],
        "delta_r2_split": [-0.1, 0.4, 0.01, -0.5, -0.3],
        "delta_importance": [0.3, -0.2, 0.1, 5.0, 0.2],
    }
)


def names(table: pd.DataFrame) -> list[str]:
    return table["column"].tolist()


def test_only_explained_features_are_ranked() -> None:
    ranking = rank(FEATURES, paper=False)
    assert names(ranking.gains) == ["rose", "stayed"]
    assert names(ranking.losses) == ["vanished", "fell"]
    assert names(ranking.stable) == ["stayed", "fell"]


def test_paper_mode_ranks_by_importance() -> None:
    ranking = rank(FEATURES, paper=True)
    assert ranking.value == "delta_importance"
    assert names(ranking.gains) == ["fell", "stayed"]
    assert names(ranking.losses) == []
