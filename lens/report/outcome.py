"""The result in a few lines for a terminal: what was lost, gained and unchanged, by modality."""

from __future__ import annotations

import pandas as pd

from lens.report.results import Results
from lens.report.verdicts_section import answer
from lens.report.words import literal, modality_name, number
from lens.verdicts.rules import VERDICTS


def outcome(results: Results) -> str:
    """A block of lines per task: did anything change, then a line per modality and region.

    Args:
        results: of a finished run.

    Returns:
        The lines; an empty text without a cross-validation. A verdict is that of the mean change of
        R2 over the features of a modality and region; how many of these have the same one by
        themselves stands beside it.
    """
    blocks = []
    for task, tables in results.tasks.items():
        if tables.levels["verdict"].isin([*VERDICTS]).any():
            said = answer(tables.features, tables.levels, results.run["config"]["level"])
            head = f"{literal(task)}: did anything change? {said}"
            blocks += [head, *_lines(tables.features, tables.levels)]
    return "\n".join(blocks)


def _lines(features: pd.DataFrame, levels: pd.DataFrame) -> list[str]:
    """Modalities and regions in the order of the verdicts, the largest changes first."""
    rows = levels[(levels["level"] == "modality") & (levels["group"] == "all")]
    order = {verdict: place for place, verdict in enumerate(VERDICTS)}
    rows = rows.assign(place=rows["verdict"].map(order), size=-rows["delta_r2_cv"].abs())
    rows = rows.sort_values(["place", "size"], kind="stable")
    names = [
        f"{modality_name(str(m))} {r}" for m, r in zip(rows["modality"], rows["roi"], strict=True)
    ]
    width = max(map(len, names), default=0)
    lines = []
    for name, row in zip(names, rows.to_dict("records"), strict=True):
        own = features[(features["modality"] == row["modality"]) & (features["roi"] == row["roi"])]
        count = int((own["verdict"] == row["verdict"]).sum())
        low, high = number(row["delta_r2_cv_low"]), number(row["delta_r2_cv_high"])
        lines.append(
            f"  {row['verdict']:9}  {literal(name):{width}}  R2 {number(row['delta_r2_cv']):>5} "
            f"[{low}, {high}], {count} of {len(own)} features {row['verdict']}"
        )
    return lines
