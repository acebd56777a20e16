"""What the doctor found, written down: tables, and a figure of power against the loss of R2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lens.files import write_json, write_table
from lens.report.figures import COLOURS, STYLE, save
from lens.verdicts.doctor import Findings
from lens.verdicts.doctor_summary import summary
from lens.verdicts.power import POWER, power_curve


def write_findings(folder: Path, findings: Findings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``doctor.json``, ``doctor.csv``, ``doctor-features.csv`` and the figure.

    Args:
        folder: where to.
        findings: of `lens.verdicts.doctor.examine`.
        facts: what else to keep in ``doctor.json``.

    Returns:
        The summary.
    """
    content = summary(findings)
    write_table(findings.planted, folder / "doctor.csv")
    write_table(findings.features, folder / "doctor-features.csv")
    save(power_figure(findings.planted, content["detectable"]), folder, "doctor")
    write_json(folder / "doctor.json", {**content, **facts})
    return content


def power_figure(plants: pd.DataFrame, detectable: float | None) -> Figure:
    """Expected power by loss of R2, and above it which planted erasures were called lost.

    Args:
        plants: of `lens.verdicts.doctor.Findings`.
        detectable: of `lens.verdicts.doctor_summary.summary`.
    """
    erased = plants[plants["kind"] == "erased"]
    called = erased["detected"] == 1
    loss, power = power_curve(plants)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4))
        axes = figure.subplots()
        axes.plot(np.r_[0, loss], np.r_[0, power], color=COLOURS["pre"], lw=1.8, zorder=2)
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
        axes.set_xlim(left=min(0.0, float(erased["loss"].min()) - 0.01) if len(erased) else 0.0)
        axes.set_ylim(-0.12, 1.12)
        axes.set_xlabel("Loss of held-out R2 of the erased cluster")
        axes.set_ylabel("Power (line), planted erasures (ticks)")
        axes.legend(frameon=False, loc="center right")
    return figure
