"""Where in the encoder did two real fine-tunings change what is read? The two real studies.

``python -m benchmarks.layers_real --ultrasound U --hippocampus H --trained T`` reads the means of
every stage over the region, as `benchmarks.real.train` collected them in T, for every seed of full
fine-tuning, of low-rank updates and of permuted labels, with the random encoder beside. It writes
``benchmarks/results/layers_real.json`` and draws ``docs/evidence-layers.png``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from benchmarks.edits_real import LOW_RANK, PERMUTED, TASKS, TITLES
from benchmarks.real.gathered import by_layer, gathered

POOLS = {"us": "lesion", "hip": "hippocampus"}

CALLED = ("lost", "gained")


@dataclass(frozen=True)
class Config:
    """Where the studies are."""

    ultrasound: Path = Path("runs/ultrasound")
    """Folder of `benchmarks.ultrasound`, with cohort.csv and features."""
    hippocampus: Path = Path("runs/hippocampus")
    """Folder of `benchmarks.hippocampus`, likewise."""
    trained: Path = Path("runs/trained")
    """Embeddings of both (``collect`` of `benchmarks.real.train`)."""
    folder: Path = Path("runs/layers-real")
    """Finished tables."""
    folds: int = 5
    """Parts of the cross-validation."""
    flips: int = 2000
    """Sign flips of each test."""
    out: Path = harness.RESULTS / "layers_real.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-layers.png")
    """Where the picture goes."""


def main(config: Config) -> None:
    """Reads every layer, writes the record and draws the figure."""
    from lens.report.layers_section import sentences

    tables = {
        "us": profiles(config, "us", config.ultrasound),
        "hip": profiles(config, "hip", config.hippocampus),
    }
    shown = [
        "group", "layer", "n_features", "components", "r2_pre", "r2_ft", "delta_r2",
        "delta_r2_low", "delta_r2_high", "p_maxt", "step_r2", "p_step", "r2_random",
        "r2_permuted", "r2_shuffled", "r2_whole_pre", "r2_whole_ft", "verdict",
    ]  # fmt: skip
    found: dict[str, Any] = {}
    for study, runs in tables.items():
        found[study] = {}
        for run, table in runs.items():
            classes = table[table["group"] != "all"]
            called = classes[classes["verdict"].isin(CALLED)]
            found[study][run] = {
                "sentences": sentences(table),
                "cells": len(classes),
                "called": [f"{row.group} {row.verdict} {row.layer}" for row in called.itertuples()],
                "table": json.loads(table[shown].round(4).to_json(orient="records")),
            }
            print(study, run, len(called), "of", len(classes), found[study][run]["sentences"][0])
    harness.record(config.out, {**harness.facts(config, "numpy", "scipy"), "studies": found})
    draw(tables, config.figure)


def profiles(config: Config, study: str, folder: Path) -> dict[str, pd.DataFrame]:
    """Run -> the table of its classes; finished ones are read."""
    from lens.formulas import read_csv
    from lens.settings import Rules
    from lens.verdicts.folds import make_folds
    from lens.verdicts.layers import layer_profile

    pool = POOLS[study]
    with np.load(config.trained / f"{study}-{pool}.npz") as stored:
        names, some = set(stored.files), stored["pre"]
    rows = gathered(folder, some)
    folds = make_folds(rows.patients, config.folds, 1, 0)

    def layers(name: str) -> dict[str, np.ndarray]:
        return by_layer(config.trained, study, pool, name, rows.rows)

    pre, random = layers("pre"), layers("random")
    wanted = [f"{name}-{seed}" for name in TASKS[study].values() for seed in (0, 1, 2)]
    found = {}
    for name in (name for name in wanted if name in names):
        path = config.folder / f"{study}-{name}.csv"
        if not path.is_file():
            controls = {"random": random}
            permuted = f"permuted-{name[-1]}"
            if permuted in names and permuted != name:
                controls["permuted"] = layers(permuted)
            table = layer_profile(
                pre, layers(name), rows.r, rows.features, rows.patients, folds,
                Rules(flips=config.flips), controls=controls,
            ).classes  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False)
        found[name] = read_csv(path)
    return found


def draw(tables: Mapping[str, Mapping[str, pd.DataFrame]], path: Path) -> None:
    """A row per study, a panel per class: R2 by depth before and after, with the controls."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lens.files import atomic
    from lens.report.figures import COLOURS, STYLE
    from lens.report.layers_section import class_name

    shown = {
        "us": ("all", "shape2D", "firstorder", "gldm"),
        "hip": ("all", "shape", "firstorder", "gldm"),
    }
    dashes = {"r2_random": (0, (5, 2)), "r2_shuffled": (0, (6, 2, 1, 2))}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 5.2), layout="constrained")
        panels = figure.subplots(2, 4, sharex=True, sharey="row")
        for line, (study, runs) in zip(panels, tables.items(), strict=True):
            full, low, permuted = TASKS[study].values()
            colours = {full: COLOURS["ft"], low: LOW_RANK, permuted: PERMUTED}
            for axes, group in zip(line, shown[study], strict=True):
                own = {name: table[table["group"] == group] for name, table in runs.items()}
                for name, table in reversed(own.items()):
                    colour = colours[name.rpartition("-")[0]]
                    axes.plot(table["layer"], table["r2_ft"], color=colour, lw=1.2, alpha=0.9)
                    at = table[table["verdict"].isin(CALLED)]
                    axes.plot(at["layer"], at["r2_ft"], "o", ms=4.5, color=colour)
                first = next(iter(own.values()))
                axes.plot(first["layer"], first["r2_pre"], color=COLOURS["pre"], lw=1.8)
                for column, style in dashes.items():
                    axes.plot(first["layer"], first[column], color="#555555", lw=1, ls=style)
                axes.axhline(0, color="black", lw=0.6)
                axes.set_title(class_name(group))
            line[0].set_ylabel(f"{TITLES[study].partition(':')[0]}\nR2")
        for axes in panels[-1]:
            axes.tick_params(axis="x", rotation=35)
        handles = [Line2D([], [], color=c, lw=1.6, label=text) for text, c in (
            ("before fine-tuning", COLOURS["pre"]), ("fine-tuned, a line per seed", COLOURS["ft"]),
            ("low-rank updates", LOW_RANK), ("permuted labels", PERMUTED))]  # fmt: skip
        handles += [
            Line2D([], [], color="#555555", ls=dashes[c], lw=1, label=text)
            for c, text in (
                ("r2_random", "random encoder"),
                ("r2_shuffled", "features of other patients"),
            )
        ]
        handles.append(
            Line2D([], [], ls="", marker="o", ms=4.5, color="#555555", label="change is shown")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
