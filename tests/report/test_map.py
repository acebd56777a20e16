"""The map's data are the table's, small; its charts are what Vega-Lite says a chart is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import vl_convert

from lens.report.map_chart import charts, views
from lens.report.map_data import VALUES, WORDS, map_data
from lens.report.results import read_results
from lens.report.section import Report
from lens.report.words import label


@pytest.fixture
def report(finished: Path, tmp_path: Path) -> Report:
    return Report(read_results(finished), tmp_path)


def test_the_data_are_those_of_the_table(report: Report) -> None:
    data = json.loads(json.dumps(map_data(report.tasks)))
    assert len(data["listings"]) == 1, "two tasks share their features"
    (listing,) = data["listings"]
    for task, shown in zip(report.tasks, data["tasks"], strict=True):
        features = task.tables.features
        names = [data["verdicts"][code]["name"] for code in shown["verdict"]]
        assert names == features["verdict"].tolist()
        assert shown["cluster"] == features["cluster"].tolist()
        assert listing["column"] == features["column"].tolist()
        assert listing["label"] == [label(row) for row in features.to_dict("records")]
        for name in WORDS[1:]:
            words = [listing["words"][name][code] for code in listing["codes"][name]]
            assert words == features[name].tolist()
        for name in VALUES:
            values = np.array(shown["values"][name], float) / data["unit"]
            np.testing.assert_allclose(values, features[name], atol=0.51 / data["unit"])


def test_missing_and_infinite_values_are_numbers_or_nothing(report: Report) -> None:
    task = report.tasks[0]
    wild = task.tables.features.copy()
    wild.loc[wild.index[:3], "delta_r2"] = [np.nan, -np.inf, -1000.0]
    changed = dataclasses.replace(task.tables, features=wild)
    (shown,) = map_data([task._replace(tables=changed)])["tasks"]
    assert shown["values"]["delta_r2"][:3] == [None, -(10**12), -(10**9)]


def test_a_feature_costs_few_bytes(report: Report) -> None:
    task = report.tasks[0]
    count = len(task.tables.features)
    alone = len(json.dumps(map_data([task]), separators=(",", ":")))
    six = len(json.dumps(map_data([task] * 6), separators=(",", ":")))
    assert (six - alone) / 5 / count < 95, "of a further task"


@pytest.mark.parametrize("wild", [0.0, -1000.0])
def test_the_charts_are_vega_lite_and_draw_their_rows(report: Report, wild: float) -> None:
    features = report.tasks[0].tables.features.assign(r2_ridge_ft=wild, delta_r2=wild)
    for chart in charts(views([features], 0.1)):
        (low, high), (bottom, top) = chart["limits"]
        assert low < high <= 1
        assert -1 <= bottom < top <= 1
        spec = json.loads(json.dumps(chart["spec"]))
        rows = [
            {"x": low, "y": top, "shape": "circle", "fill": "#ff0000", "stroke": "#ff0000",
             "size": 900, "angle": 0, "fillOpacity": 1, "feature": "F"}
        ]  # fmt: skip
        spec |= {"datasets": {"features": rows, "pointed": rows}, "width": 300}
        svg = vl_convert.vegalite_to_svg(spec)
        assert svg.count('fill="#ff0000"') == 1
        assert chart["spec"]["layer"][1]["encoding"]["x"]["title"] in svg
        line = pd.DataFrame(spec["layer"][0]["data"]["values"])
        assert line["x"].between(low - 0.001, high + 0.001).all()
        assert len(line) == 6
