"""Figure: what the embeddings told of single patients, for a few features, with pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from lens.report.figures import STAGE_NAMES, STAGES, STYLE
from lens.report.palette import line_mark
from lens.report.pictures import LOOKS, Picture
from lens.report.words import modality_name, short

ROWS = 3
"""Features of the figure: the first of each kind."""

SIDES = ("high", "low")
"""Of a feature's values: a patient with a picture is shown for each."""

NOT_SHOWN = {"lower": "lower, not shown", "higher": "higher, not shown"}

MANY = 200
"""Points beyond which a cloud is drawn as pixels."""


def patients_figure(
    patients: pd.DataFrame,
    features: Sequence[dict[str, Any]],
    pictures: Sequence[Picture],
    looks: Mapping[str, tuple[str, str]],
) -> Figure | None:
    """Predicted against observed values of every held-out patient, and a patient high and low.

    Args:
        patients: rows of `lens.verdicts.patients`, of one task.
        features: as `lens.report.patients_section` lists them.
        pictures: by the numbers that their cards have.
        looks: region -> colour and dashes of its contour.

    Returns:
        A row per feature, the first of each kind; None without any.
    """
    firsts = list({feature["kind"]: feature for feature in reversed(features)}.values())
    rows = sorted(firsts, key=features.index)[:ROWS]
    if not rows:
        return None
    chosen = [_examples(feature) for feature in rows]
    count = len(SIDES) if any(card for cards in chosen for card in cards) else 0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2 if count else 3.6, 0.5 + 2.6 * len(rows)))
        grid = figure.subplots(
            len(rows), 1 + count, squeeze=False, width_ratios=[1.15, *([1.0] * count)]
        )
        for axes, feature, examples in zip(grid, rows, chosen, strict=True):
            _cloud(axes[0], patients[patients["column"] == feature["column"]], feature)
            for side, card, place in zip(SIDES, examples, axes[1:], strict=False):
                place.set_axis_off()
                if card is None:
                    place.text(0.5, 0.5, f"no picture of a {side} one", ha="center", fontsize=7)
                else:
                    _example(place, feature, card, pictures, looks)
        grid[0][0].legend(frameon=False, fontsize=7, loc="upper left", handletextpad=0.2)
        figure.subplots_adjust(hspace=0.75, wspace=0.25)
    return figure


def _examples(feature: dict[str, Any]) -> list[dict[str, Any] | None]:
    """A patient with a picture for each of `SIDES`, None without one."""
    pictured = [card for card in feature["cards"] if card["picture"] is not None]
    return [next((card for card in pictured if card["side"] == side), None) for side in SIDES]


def _cloud(axes: Axes, rows: pd.DataFrame, feature: dict[str, Any]) -> None:
    ends = rows[["observed", "predicted_pre", "predicted_ft"]].to_numpy()
    low, high = float(ends.min()), float(ends.max())
    axes.plot([low, high], [low, high], color="#999999", lw=0.8)
    for stage in ("ft", "pre"):
        axes.plot(
            rows["observed"], rows[f"predicted_{stage}"], ls="", ms=2.5, mew=0.5, alpha=0.6,
            label=STAGE_NAMES[stage], rasterized=len(rows) > MANY, **line_mark(STAGES[stage]),
        )  # fmt: skip
    # Above the titles of the pictures beside it, which it would run into.
    kind = NOT_SHOWN.get(feature["kind"], feature["kind"])
    axes.set_title(short(f"{feature['label']}: {kind}"), fontsize=8, pad=22)
    axes.set_xlabel("value (SD)", fontsize=8)
    axes.set_ylabel("predicted (SD)", fontsize=8)
    axes.tick_params(labelsize=7)


def _example(
    axes: Axes,
    feature: dict[str, Any],
    card: dict[str, Any],
    pictures: Sequence[Picture],
    looks: Mapping[str, tuple[str, str]],
) -> None:
    """The middle slice of the feature's own image with the contours."""
    picture = pictures[card["picture"]]
    name = feature["first"] if feature["first"] in picture.strips else next(iter(picture.strips))
    columns, rows = picture.size
    with Image.open(io.BytesIO(picture.strips[name])) as strip:
        pixels = np.asarray(strip.convert("L"))
    width, at = pixels.shape[1] // picture.slices, picture.middle
    axes.imshow(
        pixels[:, at * width : (at + 1) * width], cmap="gray", vmin=0, vmax=255,
        extent=(0, columns, rows, 0), aspect=picture.spacing_mm[1] / picture.spacing_mm[0],
    )  # fmt: skip
    for region, lines in picture.contours.items():
        colour, _ = looks.get(region, LOOKS[0])
        ends = [[(x, y), (x + dx, y + dy)] for place, x, y, dx, dy in lines if place == at]
        axes.add_collection(LineCollection(ends, colors=colour, linewidths=0.8))
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    who = short("/".join(filter(None, (card["patient"], card["study"]))))
    numbers = (card["observed"], card["predicted_pre"], card["predicted_ft"])
    told = "{:.1f} SD; predicted {:.1f}, then {:.1f}".format(*numbers).replace("-", "−")
    axes.set_title(
        f"{who}, {modality_name(name)}\n{card['side']}: {told}", fontsize=6.5, fontweight="normal"
    )
