"""What do two real tasks rest on? Erasure on the run folders of the two real studies.

``python -m benchmarks.amnesic_real --ultrasound U --hippocampus H`` runs ``experiments.amnesic`` on
copies of the run folders that `benchmarks.ultrasound` and `benchmarks.hippocampus` leave, each as
it was fine-tuned and with permuted labels. It writes ``benchmarks/results/amnesic_real.json`` and
draws ``docs/evidence-amnesic.png``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from benchmarks import harness
from benchmarks.real.jobs import job
from lens.formulas import read_csv
from lens.report.amnesic_text import sentences

STUDIES = {
    "ultrasound": ("diagnosis", {"lesion-malignancy": "malignancy", "lesion-permuted": "permuted"}),
    "hippocampus": (
        "volume_ml",
        {"hippocampus-volume": "volume", "hippocampus-permuted": "permuted"},
    ),
}
"""Study -> label, and the tasks by run folder; the first is the one that is drawn."""


@dataclass(frozen=True)
class Config:
    """Where the studies are."""

    ultrasound: Path = Path("runs/ultrasound")
    """Folder of `benchmarks.ultrasound`, with its runs and cohort.csv."""
    hippocampus: Path = Path("runs/hippocampus")
    """Folder of `benchmarks.hippocampus`, likewise."""
    folder: Path = Path("runs/amnesic")
    """Copies of the run folders."""
    draws: int = 200
    """Random subspaces of each kind."""
    out: Path = harness.RESULTS / "amnesic_real.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-amnesic.png")
    """Where the picture goes."""


def main(config: Config) -> None:
    """Erases, and writes the record and the figure."""
    found: dict[str, Any] = {}
    tables: dict[str, pd.DataFrame] = {}
    for study, (label, runs) in STUDIES.items():
        place = getattr(config, study)
        for run, task in runs.items():
            copy = config.folder / study / run
            if not copy.is_dir():
                shutil.copytree(place / "runs" / run, copy)
            if not (copy / task / "amnesic.json").is_file():
                words = ("--label", f"{place / 'cohort.csv'}:{label}", "--draws", config.draws)
                job("amnesic", copy, *words, "--no-page")
            table = read_csv(copy / task / "amnesic.csv")
            facts = json.loads((copy / task / "amnesic.json").read_text())
            found[f"{study}, {task}"] = _told(table, facts)
            tables.setdefault(study, table)
    harness.record(config.out, {**harness.facts(config, "numpy", "scipy"), "studies": found})
    _draw(tables, config.figure)
    for name, content in found.items():
        print(f"{name}: {' '.join(content['sentences'])}")


def _told(table: pd.DataFrame, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Sentences and rows of a task."""
    shown = [
        "cluster", "stage", "n_features", "rank", "variance_removed", "score_before",
        "score_after", "loss", "loss_low", "loss_high", "null_mean", "null_q95", "p_maxt",
        "p_rank_maxt", "read_linear", "left_linear", "read_nonlinear", "left_nonlinear", "finding",
    ]  # fmt: skip
    return {
        "label": facts["labels"][0],
        "score": str(table["score"].iloc[0]),
        "patients": int(table["patients"].iloc[0]),
        "rows": int(table["rows"].iloc[0]),
        "clusters": int(table["cluster"].nunique()),
        "seconds": facts["seconds"],
        "sentences": sentences(table),
        "table": json.loads(table[shown].round(4).to_json(orient="records")),
    }


def _draw(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """The figure of the page, a panel per study."""
    from lens.files import atomic
    from lens.report.amnesic_section import amnesic_figure

    both = pd.concat([t.assign(label=f"{n}: {t['label'].iloc[0]}") for n, t in tables.items()])
    with atomic(path) as temporary:
        amnesic_figure(both).savefig(temporary, dpi=160, format="png")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
