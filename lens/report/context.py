"""What a report says around the verdicts: confounds, and what of the embedding is radiomics."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lens.report.figures import COLOURS, STAGE_NAMES, STYLE

CONFOUNDS = {
    "adjusted": "given the columns adjusted for (partial R2)",
    "site": "at sites that no probe was fitted at",
    "unexposed": "patients whom fine-tuning did not see",
    "exposed": "patients whom fine-tuning saw",
}


def confounds(features: pd.DataFrame) -> list[dict[str, Any]]:
    """A row per confound that was looked at: R2, its change, and what becomes of the verdicts.

    A lost (gained) feature stands if its R2 falls (rises) beyond the interval there as well.

    Args:
        features: rows of ``features.parquet``.
    """
    rows = []
    for name, text in CONFOUNDS.items():
        if f"delta_r2_{name}" not in features:
            continue
        low, high = features[f"delta_r2_{name}_low"], features[f"delta_r2_{name}_high"]
        verdicts = features["verdict"]
        present = features[verdicts != "absent"]
        lost, gained = verdicts == "lost", verdicts == "gained"
        rows.append(
            {
                "text": text,
                "features": len(present),
                "plain": _median(present, "r2_ridge_pre", "r2_ridge_ft", "delta_r2"),
                "there": _median(
                    present, f"r2_{name}_pre", f"r2_{name}_ft", f"delta_r2_{name}"
                ),
                "lost": int(lost.sum()),
                "gained": int(gained.sum()),
                "still_lost": int((lost & (high < 0)).sum()),
                "still_gained": int((gained & (low > 0)).sum()),
            }
        )  # fmt: skip
    return rows


def encoding_rows(encoding: pd.DataFrame) -> list[dict[str, Any]]:
    """A row per grouping and group with its stages beside each other; none without a table."""
    if encoding.empty:
        return []
    return [
        {"grouping": grouping, "group": group, "n_features": int(rows["n_features"].iloc[0])}
        | {row["stage"]: row for row in rows.to_dict("records")}
        for (grouping, group), rows in encoding.groupby(["grouping", "group"], sort=False)
    ]


def encoding_figure(encoding: pd.DataFrame) -> Figure:
    """Shapley shares of an embedding's variance before and after, a panel per grouping."""
    groupings = list(dict.fromkeys(encoding["grouping"]))
    shares = encoding[encoding["group"] != "none"]
    sizes = [shares.loc[shares["grouping"] == name, "group"].nunique() for name in groupings]
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
                value = rows["shapley"].to_numpy()
                ends = np.abs(rows[["shapley_low", "shapley_high"]].to_numpy().T - value)
                axes.errorbar(
                    value, np.arange(len(names)) + shift, xerr=ends, fmt="o", ms=4, lw=1.2,
                    color=COLOURS[stage], label=STAGE_NAMES[stage],
                )  # fmt: skip
            axes.axvline(0, color="black", lw=0.8)
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(f"By {grouping}")
            axes.grid(axis="x", color="#dddddd", lw=0.6)
            axes.set_axisbelow(True)
        panels[-1].set_xlabel("Share of the embedding's variance explained (Shapley)")
        panels[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return figure


def _median(features: pd.DataFrame, *names: str) -> list[float]:
    return [float(features[name].median()) for name in names]
