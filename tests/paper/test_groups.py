"""The rows of the paper's tables, against a plain count and NumPy's median and percentile."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.paper.groups import by_feature_group, by_modality, group_masks

PAPER_ROWS = [
    "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "original", "wavelet",
]  # fmt: skip
NAMES = [
    "t2.gland.original_glcm_Idm",
    "t2.gland.original_firstorder_Mean",
    "adc.gland.log-sigma-2_glcm_Idm",
    "t2.lesion.original_shape_Volume",
    "t2.lesion.wavelet-LLH_glszm_Zone",
    "t2.lesion.wavelet-HHH_glszm_Zone",
]
SCORES = ("r2", "mse", "mse_z")


def table_of(names: list[str]) -> pd.DataFrame:
    rows = []
    for name in names:
        modality, roi, rest = name.split(".")
        image, feature_class, feature = rest.split("_")
        rows.append((name, modality, roi, image, feature_class, feature))
    columns = ["column", "modality", "roi", "image", "feature_class", "feature"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    table, rng = table_of(NAMES), np.random.default_rng(3)
    for score in SCORES:
        for stage in ("pre", "ft"):
            table[f"{score}_{stage}"] = rng.normal(size=len(table))
    return table


@pytest.fixture(scope="module")
def samples() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(4)
    return {
        stage: {score: rng.normal(size=(60, len(NAMES))).astype(np.float32) for score in SCORES}
        for stage in ("pre", "ft", "delta")
    }


def belongs(name: str, roi: str, group: str) -> bool:
    """By the spelling of the column alone."""
    return name.startswith(("t2." + roi, "adc." + roi)) and (
        f"_{group}_" in name or f".{group}_" in name or f".{group}-" in name
    )


def test_all_rows_of_the_papers_table_are_there_in_every_roi_and_others_follow(
    features: pd.DataFrame, samples: dict[str, dict[str, np.ndarray]]
) -> None:
    table = by_feature_group(features, samples, complete=True)
    assert list(table["roi"].unique()) == ["gland", "lesion"]
    rows = {roi: part["group"].unique().tolist() for roi, part in table.groupby("roi")}
    assert rows == {"gland": [*PAPER_ROWS, "log"], "lesion": [*PAPER_ROWS, "shape"]}
    assert (table.groupby(["roi", "group"])["stage"].agg(list).map(len) == 3).all()


def test_counts_medians_and_intervals_of_a_complete_table(
    features: pd.DataFrame, samples: dict[str, dict[str, np.ndarray]]
) -> None:
    table = by_feature_group(features, samples, complete=True)
    for row in table.to_dict("records"):
        inside = [i for i, name in enumerate(NAMES) if belongs(name, row["roi"], row["group"])]
        assert row["n_features"] == len(inside), (row["roi"], row["group"])
        columns = [f"{s}_{kind}{end}" for s in SCORES for kind in ("median", "mean")
                   for end in ("", "_low", "_high")]  # fmt: skip
        assert np.isnan([row[name] for name in columns]).all() == (not inside)
        if not inside:
            continue
        pre, ft = (features[f"r2_{stage}"].to_numpy()[inside] for stage in ("pre", "ft"))
        value = {"pre": pre, "ft": ft, "delta": ft - pre}[row["stage"]]
        np.testing.assert_allclose(row["r2_median"], np.median(value))
        drawn = np.median(samples[row["stage"]]["r2"][:, inside], axis=1)
        expected = np.quantile(drawn, [0.025, 0.975])
        # The samples are float32.
        np.testing.assert_allclose([row["r2_median_low"], row["r2_median_high"]], expected, 1e-5)


def test_without_asking_only_groups_with_features_are_there(
    features: pd.DataFrame, samples: dict[str, dict[str, np.ndarray]]
) -> None:
    table = by_feature_group(features, samples)
    rows = {roi: part["group"].unique().tolist() for roi, part in table.groupby("roi")}
    assert rows == {
        "gland": ["firstorder", "glcm", "original", "log"],
        "lesion": ["glszm", "shape", "original", "wavelet"],
    }
    assert (table["n_features"] > 0).all()
    assert (by_modality(features, samples)["n_features"] > 0).all()
    shared = by_feature_group(features, samples, complete=True)
    shared = shared[shared["n_features"] > 0]
    keys = ["roi", "group", "stage"]
    pd.testing.assert_frame_equal(
        shared.sort_values(keys, ignore_index=True), table.sort_values(keys, ignore_index=True)
    )


def test_a_table_that_has_every_group_is_the_same_either_way() -> None:
    every = table_of(
        [
            f"t2.gland.{image}_{name}_F"
            for name in PAPER_ROWS[:6]
            for image in ("original", "wavelet-LLL")
        ]
    )
    plain, complete = group_masks(every), group_masks(every, complete=True)
    assert list(plain) == list(complete) == [("gland", name) for name in PAPER_ROWS]
    for labels, mask in plain.items():
        np.testing.assert_array_equal(mask, complete[labels])
