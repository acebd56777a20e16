"""The picture of the study with a known mechanism: what happened beside what the lens said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens.cohort.factor_phantom import GRADES

LOST, GAINED, TRUTH, OTHER, AIM = "#D55E00", "#0072B2", "#222222", "#BBBBBB", "#F3E9A6"
"""Colours that the colour-blind tell apart (Okabe and Ito)."""

AIMS = {"volume_ml": "gland_volume", **GRADES}
"""Label -> the factor that it is made of."""

CONTROLS = {
    "full": "fine-\ntuned",
    "scratch": "from a\nrandom\nstart",
    "noise": "permuted\nlabels,\nlast epoch",
    "permuted": "permuted\nlabels, epoch\nby validation",
    "frozen": "encoder\nfrozen",
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draws the figure: a panel per label, below it the rates and the controls.

    Args:
        result: of `benchmarks.mechanism.summarise`.
        path: of the PNG.
    """
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    full = [row for row in result["runs"] if row["kind"] == "full"]
    labels = list(dict.fromkeys(row["label"] for row in full))
    figure = plt.figure(figsize=(3.1 * max(len(labels), 4) + 1.4, 8.4), layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.6, 1))
    upper, lower = parts[0, 0], parts[1, 0]
    upper.suptitle(
        f"What fine-tuning did to each factor of {result['patients']} phantoms (black: each seed, "
        "with 95% interval over phantoms), and what the lens said of the features that measure it "
        "(bars: all seeds)",
        fontsize=11,
    )
    axes = upper.subplots(1, max(len(labels), 1), sharey=True, squeeze=False)[0]
    for axis, label in zip(axes, labels, strict=False):
        _panel(axis, [row for row in full if row["label"] == label], str(label))
    upper.legend(handles=_legend(), loc="outside lower center", ncols=4, fontsize=8)
    left, middle, right = lower.subplots(1, 3, width_ratios=(1, 1, 1.35))
    _rates(left, result["summary"])
    _doses(middle, full)
    _controls(right, result["runs"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]], label: str) -> None:
    """Factors down the axis: change of R2 as points with intervals, shares of verdicts as bars."""
    names = [f["factor"] for f in rows[0]["factors"]]
    places = np.arange(len(names))[::-1]
    for at, name in zip(places, names, strict=True):
        if name == AIMS.get(label):
            axis.axhspan(at - 0.5, at + 0.5, color=AIM, zorder=0)
        own = [next(f for f in row["factors"] if f["factor"] == name) for row in rows]
        count = sum(f["features"] for f in own)
        if count:
            lost, gained = (sum(f[kind] for f in own) / count for kind in ("lost", "gained"))
            axis.barh(at, gained, height=0.7, color=GAINED, alpha=0.55, zorder=1)
            axis.barh(at, -lost, height=0.7, color=LOST, alpha=0.55, zorder=1)
        for number, f in enumerate(own):
            shift = 0.2 * (number - (len(own) - 1) / 2)
            axis.plot([f["low"], f["high"]], [at + shift] * 2, color=TRUTH, lw=1.2, zorder=3)
            axis.plot(f["change"], at + shift, "o", color=TRUTH, ms=3.2, zorder=3)
    axis.axvline(0, color=TRUTH, lw=0.8)
    for edge in (-0.1, 0.1):
        axis.axvline(edge, color=OTHER, lw=0.8, ls=":")
    axis.set_yticks(places, [name.replace("_", " ") for name in names], fontsize=8)
    axis.set_xlim(-1.02, 1.02)
    axis.set_xticks([-1, -0.5, 0, 0.5, 1])
    axis.set_ylim(-0.6, len(names) - 0.4)
    aim = AIMS.get(label, label).replace("_", " ")
    axis.set_title(f"trained for {aim}, {len(rows)} seeds", fontsize=9)
    axis.set_xlabel("points: change of the factor's R2\nbars: share of its features", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)


def _rates(axis: Any, summary: Mapping[str, Any]) -> None:
    """Sensitivity and false alarms of the fine-tunings, with intervals."""
    wanted = (
        ("sensitivity", "features of a changed\nfactor, called rightly", GAINED),
        ("false_alarms", "calls whose factor did\nnot change that way", LOST),
        ("stayed_called", "features of a factor\nthat stayed, called", LOST),
    )
    found = summary.get("full", {})
    for place, (key, _, colour) in enumerate(wanted):
        entry = found.get(key) or {}
        if entry.get("share") is None:
            continue
        at = len(wanted) - place
        axis.barh(at, entry["share"], color=colour, alpha=0.55, height=0.6)
        axis.plot([entry["low"], entry["high"]], [at, at], color=TRUTH, lw=1.5)
        axis.text(1.0, at + 0.36, f"{entry['share']:.0%} of {entry['of']}", ha="right", fontsize=8)
    axis.set_yticks([3, 2, 1], [text for _, text, _ in wanted], fontsize=8)
    axis.set_ylim(0.4, 3.6)
    axis.set_xlim(0, 1)
    axis.set_xlabel("share, 95% interval over labels", fontsize=8)
    axis.set_title("Does the lens find what happened?", fontsize=9)


def _doses(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Share of a factor's features called gained, less those called lost, over what changed."""
    for row in rows:
        for f in row["factors"]:
            if f["features"]:
                share = (f["gained"] - f["lost"]) / f["features"]
                axis.plot(f["change"], share, "o", color=TRUTH, ms=3.5, alpha=0.5)
    for edge in (-0.1, 0.1):
        axis.axvline(edge, color=OTHER, lw=0.8, ls=":")
    axis.axhline(0, color=OTHER, lw=0.8)
    axis.axvline(0, color=OTHER, lw=0.8)
    axis.set_ylim(-1.05, 1.05)
    axis.set_xlabel("change of the factor's R2", fontsize=8)
    axis.set_ylabel("features called gained, less lost", fontsize=8)
    axis.set_title("A point per fine-tuning and factor", fontsize=9)


def _controls(axis: Any, runs: Sequence[Mapping[str, Any]]) -> None:
    """Share of all features called, a point per fine-tuning, by kind."""
    kinds = [kind for kind in CONTROLS if any(row["kind"] == kind for row in runs)]
    for place, kind in enumerate(kinds):
        own = [row for row in runs if row["kind"] == kind]
        spread = np.linspace(-0.18, 0.18, len(own)) if len(own) > 1 else np.zeros(1)
        for shift, row in zip(spread, own, strict=True):
            axis.plot(place + shift, row["lost"] / row["features"], "v", color=LOST, ms=5)
            axis.plot(place + shift, row["gained"] / row["features"], "^", color=GAINED, ms=5)
    axis.set_xticks(range(len(kinds)), [CONTROLS[kind] for kind in kinds], fontsize=8)
    axis.set_ylim(-0.02, 1)
    axis.grid(axis="y", color=OTHER, lw=0.5)
    axis.set_ylabel("share of all features called", fontsize=8)
    axis.set_title("Controls: each fine-tuning, lost (▼) and gained (▲)", fontsize=9)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], color=TRUTH, marker="o", ms=3.2, lw=1.2, label="change of the factor's R2"),
        Patch(color=GAINED, alpha=0.55, label="features called gained"),
        Patch(color=LOST, alpha=0.55, label="features called lost"),
        Patch(color=AIM, label="the factor trained for"),
    ]
