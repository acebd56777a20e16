"""Section: where in the encoder the features are read, and where fine-tuning changed that."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from lens.report.figures import COLOURS, STAGE_NAMES, STAGES, STYLE
from lens.report.palette import MEANINGS, PAPER, line_mark
from lens.report.section import Need, Report, Section
from lens.report.words import WORDS, number, p_told, short

CHANGED = ("lost", "gained")

CONTROLS = {
    "random": ("random encoder", (0, (5, 2))),
    "permuted": ("fine-tuned on permuted labels", (0, (1, 1.4))),
    "shuffled": ("features of other patients", (0, (6, 2, 1, 2))),
}
"""Controls by their columns: what they are called, and how their lines are drawn."""

INK = "#555555"

WRITTEN = 14
"""Most layers whose cells hold their number."""

PANELS = 9
"""Most classes that get a panel of curves."""

HIDDEN = 0.05
"""R2 of all dimensions above that of the components from which it is said."""


def render(report: Report) -> Markup:
    """Sentences, two figures and a table of one task."""
    (task,) = report.tasks
    layers = task.tables.layers
    return report.fill(
        "layers_section.html",
        task=task,
        said=sentences(layers),
        heat=report.draw(heat_figure(layers), f"{task.name}-layers"),
        curves=report.draw(curve_figure(layers), f"{task.name}-depth"),
        rows=layers.to_dict("records"),
        components=int(layers["components"].iloc[0]),
        cells=len(layers),
        name_of=class_name,
    )


SECTION = Section("layers", (Need("layers"),), render)


def sentences(layers: pd.DataFrame) -> list[str]:
    """What the table says, the answer first.

    Args:
        layers: of `lens.verdicts.layers`, by class.
    """
    whole = layers[layers["group"] == "all"]
    return [_changes(layers), _best(whole), *_controls(whole), *_hidden(whole)]


def class_name(name: str) -> str:
    """A class of features as it is read."""
    if name == "all":
        return "all features"
    return name if name in WORDS else name.upper()


def _changes(layers: pd.DataFrame) -> str:
    """Which classes changed, from which depth on, and where the change is made."""
    classes = layers[layers["group"] != "all"]
    called = classes[classes["verdict"].isin(CHANGED)]
    if called.empty:
        return (
            "No change of a class of features is shown at any depth (one family of "
            f"{len(layers)} tests)."
        )
    parts = []
    for (name, verdict), rows in called.groupby(["group", "verdict"], sort=False):
        first = rows.iloc[0]
        where = ", ".join(rows["layer"])
        parts.append(
            f"{class_name(str(name))} {verdict} at {where} (first {_change(first, 'delta_r2')}, "
            f"{p_told(first['p_maxt'])})"
        )
    steps = classes[classes["p_step"] <= 0.05]
    text = "Shown changes by depth: " + "; ".join(parts) + "."
    if steps.empty:
        return text + " At no single layer is the change shown to differ from that before it."
    at = _largest(steps, steps["step_r2"].abs())
    before = layers.loc[layers["depth"] == at["depth"] - 1, "layer"]
    since = f"that at {before.iloc[0]}" if len(before) else "none in the image"
    return (
        f"{text} The largest step is made at {at['layer']}: the change of "
        f"{class_name(at['group'])} there differs from {since} by {_change(at, 'step_r2')} "
        f"({p_told(at['p_step'])})."
    )


def _best(whole: pd.DataFrame) -> str:
    told = []
    for stage, when in STAGE_NAMES.items():
        row = _largest(whole, whole[f"r2_{stage}"])
        told.append(f"{when} at {row['layer']} (mean R2 {number(row[f'r2_{stage}'])})")
    last = whole.iloc[-1]
    return (
        f"The features are read best {' and '.join(told)}; at the last layer, {last['layer']}, "
        f"with {number(last['r2_pre'])} before and {number(last['r2_ft'])} after."
    )


def _controls(whole: pd.DataFrame) -> list[str]:
    low, high = whole["r2_shuffled"].min(), whole["r2_shuffled"].max()
    told = [
        f"Of features that belong to other patients the same reader finds {_range(low, high)} at "
        "every depth: what it finds is not bought by width."
        if high < HIDDEN
        else f"Of features that belong to other patients the same reader finds {_range(low, high)}:"
        " more than nothing, so that small values in this section mean little."
    ]
    if whole["r2_random"].notna().any():
        beyond = whole["r2_pre"] - whole["r2_random"]
        at = _largest(whole, beyond)
        told.append(
            "A random encoder of this kind tells "
            f"{_range(whole['r2_random'].min(), whole['r2_random'].max())}, which is architecture "
            f"and image and no training; training before fine-tuning adds most at {at['layer']} "
            f"({number(beyond.max())})."
        )
    if whole["r2_permuted"].notna().any():
        moved = whole["r2_permuted"] - whole["r2_pre"]
        told.append(
            "Fine-tuned on permuted labels R2 changes by "
            f"{_range(moved.min(), moved.max())}: as much of a change is training, not the label."
        )
    return told


def _hidden(whole: pd.DataFrame) -> list[str]:
    """What the components leave out, where that is much."""
    hidden = (whole["r2_whole_pre"] - whole["r2_pre"]).clip(lower=0)
    hidden = hidden.combine((whole["r2_whole_ft"] - whole["r2_ft"]).clip(lower=0), max)
    if not hidden.max() >= HIDDEN:
        return []
    at = _largest(whole, hidden)
    return [
        f"The components leave something out: all {int(at['width'])} dimensions of {at['layer']} "
        f"tell {number(at['r2_whole_pre'])} before and {number(at['r2_whole_ft'])} after, the "
        f"{int(at['components'])} components {number(at['r2_pre'])} and {number(at['r2_ft'])}."
    ]


def _largest(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The row with the largest of the values."""
    return rows.iloc[int(np.nanargmax(values.to_numpy(float)))]


def _change(row: pd.Series, name: str) -> str:
    low, high = number(row[f"{name}_low"]), number(row[f"{name}_high"])
    return f"R2 {number(row[name])} [{low}, {high}]"


def _range(low: float, high: float) -> str:
    shown = number(low), number(high)
    return f"R2 {shown[0]}" if shown[0] == shown[1] else f"R2 {shown[0]} to {shown[1]}"


def heat_figure(layers: pd.DataFrame) -> Figure:
    """Class by depth: R2 before, after, and its change with marks where one is shown."""
    names, depths = list(dict.fromkeys(layers["group"])), list(dict.fromkeys(layers["layer"]))
    edge = max(0.1, float(layers["delta_r2"].abs().quantile(0.98)))
    top = max(0.2, float(layers[["r2_pre", "r2_ft"]].max().max()))
    white = PAPER["light"]
    maps = {
        "r2_pre": ("Before", [white, COLOURS["pre"]], (0.0, top)),
        "r2_ft": ("After fine-tuning", [white, COLOURS["ft"]], (0.0, top)),
        "delta_r2": ("Change", [COLOURS["loss"], white, COLOURS["gain"]], (-edge, edge)),
    }
    wide = max(2.2, 0.42 * len(depths))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.3 + 3 * wide, 1.5 + 0.3 * len(names)), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (column, (title, colours, limits)) in zip(panels, maps.items(), strict=True):
            table = layers.pivot_table(
                index="group", columns="layer", values=column, sort=False, dropna=False
            ).loc[names, depths]
            shades = LinearSegmentedColormap.from_list(column, colours)
            values = table.to_numpy(float)
            drawn = axes.imshow(values, aspect="auto", cmap=shades, vmin=limits[0], vmax=limits[1])
            figure.colorbar(drawn, ax=axes, location="bottom", label="R2", shrink=0.9)
            axes.set_title(title)
            _write(axes, values, limits, layers if column == "delta_r2" else None)
            _ticks(axes, depths)
        panels[0].set_yticks(range(len(names)), [short(class_name(name)) for name in names])
    return figure


def _write(
    axes: Axes, values: np.ndarray, limits: tuple[float, float], layers: pd.DataFrame | None
) -> None:
    """Numbers in the cells where they fit, and the mark of a shown change."""
    verdicts = None if layers is None else layers["verdict"].to_numpy(str)
    for row, column in np.ndindex(*values.shape):
        value = float(values[row, column])
        mark = ""
        if verdicts is not None:
            verdict = verdicts[column * values.shape[0] + row]
            mark = MEANINGS[verdict].glyph if verdict in CHANGED else ""
        text = number(value) if values.shape[1] <= WRITTEN else ""
        deep = abs(value) > 0.6 * max(map(abs, limits))
        axes.text(
            column, row, f"{text}{mark}", ha="center", va="center", fontsize=7,
            color="white" if deep else "black",
        )  # fmt: skip


def curve_figure(layers: pd.DataFrame) -> Figure:
    """R2 by depth, a panel per class, with the controls."""
    names = list(dict.fromkeys(layers["group"]))[:PANELS]
    depths = list(dict.fromkeys(layers["layer"]))
    columns = min(3, len(names))
    tall = -(-len(names) // columns)
    low = max(-0.3, min(-0.05, float(layers["r2_pre_low"].min())))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * columns + 0.6, 2.0 * tall + 0.7), layout="constrained")
        panels = figure.subplots(tall, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, name in zip(panels, names, strict=False):
            _curves(axes, layers[layers["group"] == name])
            axes.set_title(short(class_name(name)))
            axes.set_ylim(low, 1.0)
            _ticks(axes, depths)
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        panels[0].set_ylabel("R2")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _curves(axes: Axes, rows: pd.DataFrame) -> None:
    x = np.arange(len(rows))
    for stage, meaning in STAGES.items():
        value = rows[f"r2_{stage}"].to_numpy(float)
        ends = rows[[f"r2_{stage}_low", f"r2_{stage}_high"]].to_numpy(float)
        axes.fill_between(x, *np.clip(ends, -1, 1).T, color=COLOURS[stage], alpha=0.15, lw=0)
        axes.plot(x, value, lw=1.4, ms=4, label=STAGE_NAMES[stage], **line_mark(meaning))
    for name, (label, dashes) in CONTROLS.items():
        value = rows[f"r2_{name}"].to_numpy(float)
        if np.isfinite(value).any():
            axes.plot(x, value, color=INK, lw=1.1, ls=dashes, label=label)
    axes.axhline(0, color="black", lw=0.6)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)


def _ticks(axes: Axes, depths: list[str]) -> None:
    """Names of the layers, some of many left out."""
    step = -(-len(depths) // WRITTEN)
    at = range(0, len(depths), step)
    axes.set_xticks(
        at, [short(depths[number]) for number in at], rotation=40, ha="right", fontsize=7
    )
