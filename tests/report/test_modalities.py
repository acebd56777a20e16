"""The best class of the paper's Figure 2 is that of the embedding after fine-tuning."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lens.report.figures import stage_panels
from lens.report.modalities_section import best_class, modality_dumbbells


def rows(roi: str, scores: dict[tuple[str, str], tuple[float, float]]) -> pd.DataFrame:
    """Of ``(modality, class)``: its R2 before and after."""
    return pd.DataFrame(
        [
            {
                "modality": modality, "roi": roi, "group": group, "stage": stage, "n_features": 3,
                "r2_median": value, "r2_median_low": value - 0.1, "r2_median_high": value + 0.1,
            }
            for (modality, group), pair in scores.items()
            for stage, value in zip(("pre", "ft", "delta"), (*pair, pair[1] - pair[0]), strict=True)
        ]
    )  # fmt: skip


GLAND = rows(
    "gland",
    {
        ("t2", "all"): (0.9, 0.9),
        ("t2", "glcm"): (0.8, 0.1),  # the best before
        ("t2", "glrlm"): (0.2, 0.5),  # the best after, on average
        ("t2", "ngtdm"): (0.1, 0.6),  # gains the most, and is best in one modality
        ("adc", "all"): (0.9, 0.9),
        ("adc", "glcm"): (0.8, 0.2),
        ("adc", "glrlm"): (0.2, 0.5),
        ("adc", "ngtdm"): (0.0, 0.3),
    },
)


def test_the_best_class_is_the_best_after_fine_tuning() -> None:
    assert best_class(GLAND) == "glrlm"


def test_a_class_without_an_r2_is_not_the_best() -> None:
    table = GLAND.copy()
    table.loc[table["group"] == "glrlm", "r2_median"] = np.nan
    assert best_class(table) == "ngtdm"
    table["r2_median"] = np.nan
    assert best_class(table) == ""
    assert best_class(GLAND[GLAND["group"] == "all"]) == ""


def test_each_roi_has_a_panel_of_its_own_best_class() -> None:
    lesion = rows("lesion", {("t2", "all"): (0.1, 0.2), ("t2", "glszm"): (0.1, 0.2)})
    figure = modality_dumbbells(pd.concat([GLAND, lesion]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "gland: all features", "gland: best class, glrlm",
        "lesion: all features", "lesion: best class, glszm",
    ]  # fmt: skip


def test_rows_without_features_are_not_drawn() -> None:
    empty = GLAND[(GLAND["group"] == "glcm") & (GLAND["modality"] == "t2")].assign(
        n_features=0, r2_median=np.nan, r2_median_low=np.nan, r2_median_high=np.nan
    )
    table = GLAND[GLAND["modality"] == "t2"]
    table = pd.concat([empty, table[table["group"] != "glcm"], empty.assign(roi="lesion")])
    figure = stage_panels(table, "group", "roi", "R2")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["all", "glrlm", "ngtdm"]
    assert np.isfinite(axes.get_xlim()).all()


def test_a_median_below_the_axis_is_an_arrow_at_its_end() -> None:
    table = rows("liver", {("ct", "glcm"): (-3.0, 0.2), ("ct", "glrlm"): (-0.4, 0.1)})
    (axes,) = stage_panels(table, "group", "roi", "R2").axes
    points = [line for line in axes.lines if line.get_marker() in ("<", "o")]
    drawn = [(line.get_marker(), float(line.get_xdata()[0])) for line in points]
    assert drawn == [("<", -0.5), ("o", 0.2), ("o", -0.4), ("o", 0.1)]
    assert axes.get_xlim()[0] < -0.5
    assert axes.get_xlabel() == "R2, with 95% interval; arrows at the edge: 1 below −0.50"
    (axes,) = stage_panels(rows("liver", {("ct", "all"): (0.1, 0.2)}), "group", "roi", "R2").axes
    assert axes.get_xlabel() == "R2, with 95% interval"


def test_modalities_are_named_as_they_are_written() -> None:
    figure = modality_dumbbells(
        rows("liver", {("ct", "all"): (0.1, 0.2), ("image", "all"): (0, 0)})
    )
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["CT", "image"]
