"""A study in one picture: the change of R2 by feature class, controls in the same frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TASKS = {
    "malignancy": ("fine-tuned for malignancy", "#c0392b", "o"),
    "volume": ("fine-tuned for volume", "#c0392b", "o"),
    "outline": ("fine-tuned to outline", "#2471a3", "s"),
    "low-rank": ("low-rank updates", "#b8860b", "^"),
    "permuted": ("control: labels permuted", "#7f8c8d", "D"),
    "frozen": ("control: encoder frozen", "#000000", "|"),
}
"""Name in the legend, colour and marker of a task."""

CLASSES = {
    "shape2D": "shape",
    "shape": "shape",
    "firstorder": "first order",
    "glcm": "GLCM",
    "glrlm": "GLRLM",
    "glszm": "GLSZM",
    "gldm": "GLDM",
    "ngtdm": "NGTDM",
}
"""Feature classes in the order of the rows, as the picture calls them."""

TITLES = {"us": "Breast ultrasound", "hip": "Hippocampus MR"}
"""What a study is of."""

POOLS = {
    "lesion": "embedding of the lesion",
    "hippocampus": "embedding of the hippocampus",
    "global": "embedding of the whole image",
}
DECIDED = ("lost", "gained", "recoded", "unchanged", "undecided", "absent")


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draws the picture of a study.

    Args:
        found: from `benchmarks.real.results.findings`.
        path: of the PNG.
    """
    pools = found["pools"]
    rows = _rows(next(iter(next(iter(pools.values())).values()))["groups"])
    height = 2.6 + 0.42 * len(rows) + 0.2 * len(next(iter(pools.values())))
    with mpl.rc_context({"font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(13, height), layout="constrained")
        axes = figure.subplots(1, len(pools), sharey=True, sharex=True, squeeze=False)[0]
        for axis, (pool, tasks) in zip(axes, pools.items(), strict=True):
            _panel(axis, rows, tasks)
            axis.set_title(f"{POOLS[pool]}\n{_verdicts(tasks)}", fontsize=9, loc="left")
        regions = {roi for roi, _ in rows}
        axes[0].set_yticks(range(len(rows)), [_label(row, len(regions) > 1) for row in rows])
        axes[0].invert_yaxis()
        title = f"{TITLES[found['study']]}, {found['cohort']['rows']} cases"
        figure.suptitle(title, fontsize=13, x=0.01, ha="left")
        figure.supxlabel(
            "change of R2 (after minus before), mean over the class's features, first seed; bar: "
            "95% interval over patients; cross: mean of three seeds\n"
            "gray: changes below 0.04, which are not called; right of a frame: median R2 before "
            "and after, of the first task",
            fontsize=9,
        )
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=9)
        figure.savefig(path, dpi=110)


def _rows(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Region and class of each row."""
    order = list(CLASSES)
    found = [(str(each["roi"]), str(each["class"])) for each in groups]
    return sorted(found, key=lambda row: (order.index(row[1]), row[0]))


def _label(row: tuple[str, str], several: bool) -> str:
    roi, name = row
    return f"{CLASSES[name]}, {roi}" if several else CLASSES[name]


def _panel(axis: Axes, rows: Sequence[tuple[str, str]], tasks: Mapping[str, Any]) -> None:
    """Changes of all tasks in one pool."""
    step = 0.7 / len(tasks)
    axis.axvspan(-0.04, 0.04, color="0.93", zorder=0)
    axis.axvline(0, color="0.5", linewidth=0.8)
    for index, (task, result) in enumerate(tasks.items()):
        title, colour, marker = TASKS[task]
        by_row = {(each["roi"], each["class"]): each for each in result["groups"]}
        there = [row for row in rows if row in by_row]
        y = [rows.index(row) + (index - (len(tasks) - 1) / 2) * step for row in there]
        values = [by_row[row] for row in there]
        x = [each["delta_r2"] or 0.0 for each in values]
        spread = [
            [a - (each["delta_r2_low"] or 0.0) for a, each in zip(x, values, strict=True)],
            [(each["delta_r2_high"] or 0.0) - a for a, each in zip(x, values, strict=True)],
        ]
        bars = {"fmt": marker, "color": colour, "markersize": 5, "linewidth": 1.4, "label": title}
        axis.errorbar(x, y, xerr=spread, **bars)
        seeds = [(each.get("delta_r2_seeds"), at) for each, at in zip(values, y, strict=True)]
        crosses = [(value, at) for value, at in seeds if value is not None]
        if crosses:
            axis.plot(*zip(*crosses, strict=True), "x", color=colour, markersize=6, zorder=4)
    for row, each in _of_rows(rows, next(iter(tasks.values()))):
        pair = (each["r2_ridge_pre_median"], each["r2_ridge_ft_median"])
        told = " to ".join("-" if value is None else f"{value:.2f}" for value in pair)
        axis.text(1.01, row, told, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    for row in range(1, len(rows)):
        axis.axhline(row - 0.5, color="0.9", linewidth=0.6)


def _of_rows(
    rows: Sequence[tuple[str, str]], result: Mapping[str, Any]
) -> list[tuple[int, Mapping[str, Any]]]:
    """Number of each row that a task has, and what it has there."""
    return [(rows.index((each["roi"], each["class"])), each) for each in result["groups"]]


def _verdicts(tasks: Mapping[str, Any]) -> str:
    """Verdict counts of each task, a line each."""
    lines = []
    for task, result in tasks.items():
        told = [f"{n} {name}" for name in DECIDED if (n := result["verdicts"].get(name))]
        withheld = result["withheld"].get("other seeds", 0)
        seeds = f"; withheld for other seeds: {withheld}" if withheld else ""
        lines.append(f"{TASKS[task][0].removeprefix('control: ')}: {', '.join(told)}{seeds}")
    return "\n".join(lines)
