"""Which features a report names: the largest gains and losses, and the most stable."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

COUNT = 5


class Ranking(NamedTuple):
    """Rows of ``features.parquet``, best example first.

    Attributes:
        gains, losses, stable: up to five rows each.
        value: column that ranks.
        value_name: the same for people.
    """

    gains: pd.DataFrame
    losses: pd.DataFrame
    stable: pd.DataFrame
    value: str
    value_name: str

    def blocks(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """The three blocks with their kind."""
        yield from (("gain", self.gains), ("loss", self.losses), ("stable", self.stable))


def rank(features: pd.DataFrame, *, paper: bool) -> Ranking:
    """Ranks by change of R2 on the single split, or by change of importance as the paper does.

    Only features that are explained at all are ranked: the interval of R2 lies above zero after
    fine-tuning (gains), before it (losses), or at both ends (stable). Otherwise the largest changes
    would be those between two useless decoders.
    """
    value = "delta_importance" if paper else "delta_r2_split"
    before, after = features["r2_pre_low"] > 0, features["r2_ft_low"] > 0
    change = features[value]
    gains = features[after & (change > 0)].sort_values(value, ascending=False)
    losses = features[before & (change < 0)].sort_values(value)
    both = features[before & after]
    stable = both.reindex(both[value].abs().sort_values(kind="stable").index)
    name = "Change of importance (paper's score)" if paper else "Change of test R2"
    return Ranking(gains.head(COUNT), losses.head(COUNT), stable.head(COUNT), value, name)


def label(row: Mapping[Hashable, Any]) -> str:
    """A feature's name as a radiologist reads it: ``T2 gland, wavelet-LLH GLCM Idmn``."""
    feature_class = row["feature_class"]
    pretty = feature_class if feature_class in ("firstorder", "shape") else feature_class.upper()
    return f"{row['modality'].upper()} {row['roi']}, {row['image']} {pretty} {row['feature']}"
