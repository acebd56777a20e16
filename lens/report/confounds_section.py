"""Section: R2 with confounds ruled out: covariates adjusted for, other sites, patients not seen."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from lens.report.answer_caveats import exposure
from lens.report.section import Need, Report, Section

CONFOUNDS = {
    "adjusted": "given the columns adjusted for (partial R2)",
    "site": "at sites that no probe was fitted at",
    "unexposed": "patients whom fine-tuning did not see",
    "exposed": "patients whom fine-tuning saw",
}


def render(report: Report) -> Markup:
    """A table of the confounds of one task."""
    (task,) = report.tasks
    features = task.tables.features
    return report.fill(
        "confounds_section.html", task=task, confounds=confounds(features),
        exposure=exposure(features),
    )  # fmt: skip


SECTION = Section(
    "confounds", (Need("features", tuple(f"delta_r2_{name}" for name in CONFOUNDS)),), render
)


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


def _median(features: pd.DataFrame, *names: str) -> list[float]:
    return [float(features[name].median()) for name in names]
