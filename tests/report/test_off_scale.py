"""No figure is blank, and what lies beyond an axis is drawn at its edge and counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from lens.report.encoding_section import encoding_figure
from lens.report.figures import stage_panels
from lens.report.largest_changes_section import Ranking, feature_changes
from lens.report.map_chart import views
from lens.report.map_section import map_figure
from lens.report.off_scale import Scale, scale, symmetric
from lens.report.power_figure import power_figure
from lens.report.verdicts_section import verdict_figure


def marks(axes: Axes) -> np.ndarray:
    """Places of all marks that lie within the axes."""
    low, high = axes.get_xlim()
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    found = [np.asarray(line.get_xdata(), float) for line in lines]
    found += [
        np.ma.getdata(points.get_offsets())[:, 0]
        for points in axes.collections
        if isinstance(points, PathCollection)
    ]
    places = np.concatenate([*found, np.empty(0)])
    return places[(places >= low) & (places <= high)]


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def groups(value: float) -> pd.DataFrame:
    rows = [
        {"group": group, "roi": "gland", "stage": stage, "n_features": 3}
        for group in ("glcm", "shape")
        for stage in ("pre", "ft", "delta")
    ]
    return pd.DataFrame(rows).assign(r2_median=value, r2_median_low=value, r2_median_high=value)


def features(change: float, r2: float, count: int = 12) -> pd.DataFrame:
    table = pd.DataFrame({"feature": [f"F{index}" for index in range(count)]})
    return table.assign(
        modality="t2", roi="gland", image="original", feature_class="glcm", verdict="absent",
        delta_r2=change, r2_ridge_pre=r2, r2_ridge_ft=r2 + change,
    )  # fmt: skip


@pytest.mark.parametrize("value", [-1000.0, -np.inf, 0.3])
def test_group_medians_are_marks_or_arrows(value: float) -> None:
    (axes,) = stage_panels(groups(value), "group", "roi", "R2").axes
    assert len(marks(axes)) == 4
    assert ("arrows at the edge: 4 below" in axes.get_xlabel()) is (value < -0.5)


def test_a_group_without_a_value_says_so_and_one_without_features_too() -> None:
    (axes,) = stage_panels(groups(np.nan), "group", "roi", "R2").axes
    assert words(axes) == ["no value"] * 4
    assert "without a value: 4" in axes.get_xlabel()
    figure = stage_panels(groups(0.1).assign(n_features=0), "group", "roi", "R2")
    assert [text.get_text() for text in figure.texts] == ["No group has features"]


@pytest.mark.parametrize(
    ("change", "told"), [(-1000.0, "12 below −1.00"), (999.0, "12 above 1.00"), (0.2, "")]
)
def test_changes_beyond_the_axis_are_arrows_with_a_count(change: float, told: str) -> None:
    table = features(change, -1000.0)
    (axes,) = verdict_figure(table, 0.1).axes
    assert len(marks(axes)) == 12
    assert told in axes.get_xlabel()
    assert ("arrows" in axes.get_xlabel()) is bool(told)
    for axes in map_figure(table, views([table], 0.1)).axes:
        assert len(marks(axes)) >= 12
        assert "12 beyond the axes: arrows at the edge" in words(axes)


def test_a_task_without_any_value_says_so() -> None:
    table = features(np.nan, np.nan)
    (axes,) = verdict_figure(table, 0.1).axes
    assert words(axes) == ["no value"]
    for axes in map_figure(table, views([table], 0.1)).axes:
        assert "12 without a value" in words(axes)


def test_shares_and_the_largest_changes_keep_to_the_axis() -> None:
    rows = [
        {"grouping": "class", "group": group, "stage": stage}
        for group in ("glcm", "all", "none")
        for stage in ("pre", "ft", "delta")
    ]
    table = pd.DataFrame(rows).assign(shapley=-1000.0, shapley_low=-2000.0, shapley_high=-1.0)
    (axes,) = encoding_figure(table).axes
    assert len(marks(axes)) == 4
    assert "4 below −0.50" in axes.get_xlabel()
    gains = features(1000.0, -1000.0).assign(delta_r2_split=1000.0)
    gains = gains.assign(delta_r2_split_low=900.0, delta_r2_split_high=1100.0).head(5)
    none = gains.head(0)
    ranking = Ranking(gains, none, none, "delta_r2_split", "Change of test R2")
    (axes,) = feature_changes(ranking).axes
    assert len(marks(axes)) == 5
    assert "5 above 1.00" in axes.get_xlabel()


def test_planted_changes_without_a_loss_have_a_figure() -> None:
    planted = pd.DataFrame({"kind": ["erased"], "detected": [0], "loss": [np.nan]})
    with pytest.MonkeyPatch.context() as patch:
        nothing = (np.array([]), np.array([]))
        patch.setattr("lens.report.power_figure.power_curve", lambda planted: nothing)
        (axes,) = power_figure(planted, None).axes
    assert np.isfinite(axes.get_xlim()).all()


def test_a_scale_is_at_least_and_at_most_what_is_asked() -> None:
    inner, outer = Scale(0.0, 0.1), Scale(-0.5, 1.0)
    assert scale(np.array([np.nan, np.inf]), inner, outer) == inner
    assert scale(np.array([-7.0, 0.4]), inner, outer) == Scale(-0.5, 0.4)
    assert symmetric(np.array([-0.3, np.nan]), 0.1, 1.0) == Scale(-0.3, 0.3)
    assert Scale(-0.31, 0.97).rounded() == Scale(-0.35, 1.0)
    assert Scale(-0.35, 1.0).rounded() == Scale(-0.35, 1.0)
