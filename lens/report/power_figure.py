"""Figure of power against the loss of R2, from planted changes."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lens.report.figures import COLOURS, STYLE
from lens.verdicts.power import POWER, power_curve


def power_figure(planted: pd.DataFrame, detectable: float | None) -> Figure:
    """Expected power by loss of R2, and above it which planted erasures were called lost.

    Args:
        planted: of `lens.verdicts.doctor.Findings`.
        detectable: of `lens.verdicts.doctor_summary.summary`.
    """
    erased = planted[planted["kind"] == "erased"]
    called = erased["detected"] == 1
    loss, power = power_curve(planted)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4))
        axes = figure.subplots()
        axes.plot(np.r_[0, loss], np.r_[0, power], color="black", lw=1.8, zorder=2)
        for mask, level, colour, name in (
            (called, 1.06, COLOURS["loss"], "called lost"),
            (~called, -0.06, COLOURS["stable"], "not called"),
        ):
            axes.scatter(
                erased["loss"][mask], np.full(mask.sum(), level), marker="|", s=60, color=colour,
                label=f"{name} ({mask.sum()})", zorder=3,
            )  # fmt: skip
        axes.axhline(POWER, color="#bbbbbb", lw=0.8, ls="--", zorder=1)
        if detectable is not None:
            axes.axvline(detectable, color="#bbbbbb", lw=0.8, ls="--", zorder=1)
            axes.annotate(
                f"{detectable:.3f}", (detectable, 0.02), xytext=(4, 0), textcoords="offset points"
            )
        least = erased["loss"].min()  # missing where nothing was erased
        axes.set_xlim(left=min(0.0, float(least) - 0.01) if np.isfinite(least) else 0.0)
        axes.set_ylim(-0.12, 1.12)
        axes.set_xlabel("Loss of held-out R2 of the erased cluster")
        axes.set_ylabel("Power (line), planted erasures (ticks)")
        axes.legend(frameon=False, loc="center right")
    return figure
