"""Do the scores of two real tasks follow edits of the images? The two studies of real images.

``python -m benchmarks.edits_real --ultrasound U --hippocampus H --trained T --edited E`` takes what
`benchmarks.real.train` collected in T (embeddings of the original images) and what
`benchmarks.real.edited` made of edited ones in E (``us.npz``, ``hip.npz``, and a folder of changes
of the embedding beside each), for every seed of full fine-tuning, of low-rank updates and of
permuted labels. It writes ``benchmarks/results/edits_real.json`` and draws
``docs/evidence-edits.png``. Embeddings are of the whole image, as the heads of the trainings read
them; heads are fitted again, to the patients of the test part alone.
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
from benchmarks.real.edited import STUDIES, Edited
from benchmarks.real.pack import Pack, read_pack

TASKS = {
    "us": {"malignancy": "cls", "low-rank": "lora", "permuted": "permuted"},
    "hip": {"volume": "reg", "low-rank": "lora", "permuted": "permuted"},
}
"""Study -> task -> what its runs are called; the first is full fine-tuning."""

TITLES = {"us": "Ultrasound: malignancy", "hip": "Hippocampus: volume"}


@dataclass(frozen=True)
class Config:
    """Where the studies are."""

    ultrasound: Path = Path("runs/ultrasound")
    """Folder of `benchmarks.ultrasound`, with its pack."""
    hippocampus: Path = Path("runs/hippocampus")
    """Folder of `benchmarks.hippocampus`, likewise."""
    trained: Path = Path("runs/trained")
    """Embeddings of both (``collect`` of `benchmarks.real.train`)."""
    edited: Path = Path("runs/edited")
    """Edited images and what encoders make of them (`benchmarks.real.edited`)."""
    flips: int = 4999
    """Random signs."""
    out: Path = harness.RESULTS / "edits_real.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-edits.png")
    """Where the picture goes."""


def main(config: Config) -> None:
    """Tests, writes the record and draws the figure."""
    tables, facts = {}, {}
    for study, folder in (("us", config.ultrasound), ("hip", config.hippocampus)):
        table, about = respond_all(config, study, read_pack(folder / "pack.npz"))
        tables[study], facts[study] = table, about
        print(summary(table).to_string(index=False))
    shown = [
        "task", "seed", "edit", "stage", "n", "slope", "slope_low", "slope_high", "slope_outside",
        "slope_noise", "head_r2", "p_outside", "p_noise", "p", "p_family", "moves",
    ]  # fmt: skip
    harness.record(config.out, {
        **harness.facts(config, "numpy", "scipy"),
        "studies": {
            study: {
                **facts[study],
                "summary": summary(table).round(4).to_dict("records"),
                "table": json.loads(table[shown].round(4).to_json(orient="records")),
            }
            for study, table in tables.items()
        },
    })  # fmt: skip
    draw(tables, config.figure)


def respond_all(config: Config, study: str, pack: Pack) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of every run of a study, and how many patients they are of."""
    from lens.edits.responses import Settings, respond

    about = STUDIES[study]
    with np.load(config.edited / f"{study}.npz") as stored:
        cells = {name: stored[name] for name in ("row", "target", "dose", "arm", "rms", "size")}
    x = dict(np.load(config.trained / f"{study}-global.npz"))
    patients = np.unique(pack.patient_id, return_index=True)[1]
    rows = np.sort(patients[pack.split[patients] == "test"])
    label = _numbers(pack.label[rows])
    changes = {
        path.stem: np.load(path)["change"].astype(float)
        for path in sorted((config.edited / study).glob("*.npz"))
    }
    tables, frame = [], _frame(pack, rows)
    for task, name in TASKS[study].items():
        for run in (run for run in changes if run.rpartition("-")[0] == name):
            moved = _moved(about, cells, rows, {"pre": changes["pre"], "ft": changes[run]})
            sides = {"pre": x["pre"][rows], "ft": x[run][rows]}
            table = respond(sides, label, moved, Settings(flips=config.flips))[0]
            table.insert(0, "edit", np.array(list(about.doses))[table["at"]])
            tables.append(table.assign(task=task, seed=int(run[-1])))
    rms = pd.DataFrame(cells).pivot_table("rms", "target", "arm", aggfunc="median").round(3)
    told = {
        "label": about.label,
        "heads_of": len(rows),
        "edited": len(np.unique(cells["row"])),
        "doses": about.doses,
        "size_of_region_per_unit": _growth(about, cells),
        "label_r2_of_frame": _scores(frame, label)[1],
        "score_r2_of_frame": {
            run: _scores(frame, _scores(x[run][rows].astype(float), label)[0])[1]
            for run in changes
        },
        "rms_of_edit_outside_noise": dict(zip(about.doses, rms.to_numpy().tolist(), strict=True)),
    }  # fmt: skip
    return pd.concat(tables, ignore_index=True), told


def _growth(about: Edited, cells: Mapping[str, np.ndarray]) -> float:
    """Mean slope of the region's size over the dose of ``grow``, as a share of its size."""
    at = list(about.doses).index("grow")
    own = (cells["target"] == at) & (cells["arm"] == 0)
    doses = np.array(about.doses["grow"])[cells["dose"][own]]
    each = pd.DataFrame({
        "row": cells["row"][own], "top": doses * (cells["size"][own] - 1), "bottom": doses**2
    })  # fmt: skip
    sums = each.groupby("row").sum()
    return float((sums["top"] / sums["bottom"]).mean())


def _frame(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """Lengths of each image's edges, and their product: what is told without its content."""
    found = []
    for volume in pack.volumes[rows, ..., 0]:
        shown = np.nonzero(volume)
        found.append([np.ptp(places) + 1 for places in shown])
    edges = np.array(found, float)
    return np.column_stack([edges, edges.prod(axis=1)])


def _scores(x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, float]:
    """Held-out scores of a head for the label, standardised, and how much of it they explain."""
    from lens.edits.heads import fit_heads, make_folds

    fold = make_folds(len(label), 5, 0)
    heads, scores = fit_heads(x, (label - label.mean()) / label.std(), fold), np.empty(len(label))
    for each, head in enumerate(heads.fitted):
        scores[fold == each] = head.predict(x[fold == each])[:, 0]
    return scores, float(heads.r2)


def _numbers(label: np.ndarray) -> np.ndarray:
    """Numbers as they are, of two classes the second in the alphabet as 1."""
    if label.dtype.kind == "f":
        return label.astype(float)
    return (label == np.unique(label)[1]).astype(float)


def _moved(
    about: Edited,
    cells: Mapping[str, np.ndarray],
    rows: np.ndarray,
    changes: Mapping[str, np.ndarray],
) -> list[Any]:
    """Changes of the embedding as `lens.edits.responses` takes them, by edit."""
    from lens.edits.responses import Moved
    from lens.edits.versions import ARMS

    found = []
    for at, doses in enumerate(about.doses.values()):
        own = np.flatnonzero(cells["target"] == at)
        edited = np.unique(cells["row"][own])
        places = np.searchsorted(edited, cells["row"][own])
        change = {}
        for stage, values in changes.items():
            full = np.full((len(edited), len(doses), len(ARMS), values.shape[1]), np.nan)
            full[places, cells["dose"][own], cells["arm"][own]] = values[own]
            change[stage] = {arm: full[:, :, place] for place, arm in enumerate(ARMS)}
        found.append(Moved(np.array(doses), np.searchsorted(rows, edited), change))
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By task, edit and stage: in how many runs the edit moves the score, and its slopes.

    Before fine-tuning the seeds are of one encoder, and are told once.
    """
    rows = []
    for (task, edit, stage), part in table.groupby(["task", "edit", "stage"], sort=False):
        part = part[:1] if stage == "pre" else part
        slopes = part["slope"].to_numpy()
        rows.append({
            "task": task, "edit": edit, "stage": stage, "moves": int(part["moves"].sum()),
            "of": len(part), "lowest": slopes.min(), "highest": slopes.max(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def draw(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """A panel per study: slopes by edit before, after, with low-rank updates, and permuted."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lens.files import atomic
    from lens.report.figures import COLOURS, STYLE

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.9), layout="constrained")
        for axes, (study, table) in zip(figure.subplots(1, 2), tables.items(), strict=True):
            edits = list(STUDIES[study].doses)
            full, low, permuted = TASKS[study]
            kinds = [
                (full, "pre", COLOURS["pre"], 1), (full, "ft", COLOURS["ft"], None),
                (low, "ft", LOW_RANK, None), (permuted, "ft", PERMUTED, None),
            ]  # fmt: skip
            for place, edit in enumerate(edits):
                y = place - 0.36
                for task, stage, colour, most in kinds:
                    own = (table["edit"] == edit) & (table["task"] == task)
                    for row in table[own & (table["stage"] == stage)][:most].itertuples():
                        axes.plot(
                            [row.slope_low, row.slope_high], [y, y], color=colour, lw=1.2, alpha=0.6
                        )
                        axes.plot(row.slope, y, "o", ms=4.5, color=colour,
                                  mfc=colour if row.moves else "white")  # fmt: skip
                        y += 0.075
            axes.axvline(0, color="#bbbbbb", lw=0.8, zorder=0)
            axes.set_yticks(range(len(edits)), [_named(study, edit) for edit in edits])
            axes.set_ylim(len(edits) - 0.4, -0.6)
            axes.set_title(TITLES[study])
            axes.set_xlabel("Change of the task score (SD of the label) per unit of dose")
        handles = [Line2D([], [], color=c, marker="o", ms=4.5, label=text) for text, c in (
            ("before fine-tuning", COLOURS["pre"]), ("fine-tuned, a mark per seed", COLOURS["ft"]),
            ("low-rank updates", LOW_RANK), ("permuted labels", PERMUTED))]  # fmt: skip
        handles.append(
            Line2D([], [], ls="", marker="o", mfc="white", color="#555555", ms=4.5,
                   label="hollow: not beyond both controls")
        )  # fmt: skip
        figure.legend(
            handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8
        )
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png")


LOW_RANK, PERMUTED = "#b8860b", "#858585"
"""Colours of controls and of low-rank updates."""

UNITS = {"shift": "SD", "contrast": "doubling", "smooth": "mm", "texture": "SD", "grow": "mm"}


def _named(study: str, edit: str) -> str:
    """An edit with the unit of its dose."""
    unit = UNITS[edit.partition(":")[0]]
    return f"{edit.partition(':')[0]}\nper {'pixel' if study == 'us' and unit == 'mm' else unit}"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
