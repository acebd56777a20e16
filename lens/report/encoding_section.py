"""Section: the part of the embedding's variance that each group of radiomic features explains."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.report.figures import STYLE, stage_marks
from lens.report.off_scale import Scale, scale
from lens.report.rows import by_stage
from lens.report.section import Need, Report, Section
from lens.report.words import modality_name, short
from lens.verdicts.encoding import MAX_ROWS


def render(report: Report) -> Markup:
    """A figure and a table of one task."""
    (task,) = report.tasks
    encoding = named(task.tables.encoding)
    return report.fill(
        "encoding_section.html",
        task=task,
        figure=report.draw(encoding_figure(encoding), f"{task.name}-encoding"),
        encoding=by_stage(encoding, ["grouping", "group"]),
        limit=MAX_ROWS,
    )


SECTION = Section("encoding", (Need("encoding"),), render)


def named(encoding: pd.DataFrame) -> pd.DataFrame:
    """With groups by modality as they are read: ``T2 gland`` for ``t2 gland``."""
    modality = r"^(?!all$|none$)\S+"
    read = encoding["group"].str.replace(modality, lambda m: modality_name(m.group()), regex=True)
    return encoding.assign(group=read.where(encoding["grouping"] == "modality", encoding["group"]))


def encoding_figure(encoding: pd.DataFrame) -> Figure:
    """Shapley shares of an embedding's variance before and after, a panel per grouping."""
    groupings = list(dict.fromkeys(encoding["grouping"]))
    shares = encoding[encoding["group"] != "none"]
    sizes = [shares.loc[shares["grouping"] == name, "group"].nunique() for name in groupings]
    columns = ["shapley", "shapley_low", "shapley_high"]
    ends = shares.loc[shares["stage"] != "delta", columns].to_numpy(float)
    bounds = scale(ends.ravel(), Scale(0.0, 0.1), Scale(-0.5, 1.0))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.0 + 0.42 * sum(sizes)), layout="constrained")
        panels = figure.subplots(
            len(groupings), 1, sharex=True, squeeze=False, height_ratios=sizes
        )[:, 0]  # fmt: skip
        for axes, grouping in zip(panels, groupings, strict=True):
            part = shares[shares["grouping"] == grouping]
            names = list(dict.fromkeys(part["group"]))
            for shift, stage in ((-0.14, "pre"), (0.14, "ft")):
                rows = part[part["stage"] == stage].set_index("group").loc[names]
                height = np.arange(len(names)) + shift
                stage_marks(axes, rows, "shapley", height, stage, bounds)
            axes.axvline(0, color="black", lw=0.8)
            axes.set_yticks(range(len(names)), [short(name) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(f"By {short(grouping)}")
            axes.grid(axis="x", color="#dddddd", lw=0.6)
            axes.set_axisbelow(True)
        told = bounds.told(shares.loc[shares["stage"] != "delta", "shapley"].to_numpy(float))
        panels[-1].set_xlabel(f"Share of the embedding's variance explained (Shapley){told}")
        panels[-1].set_xlim(bounds.low - 0.02, bounds.high + 0.02)
        panels[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return figure
