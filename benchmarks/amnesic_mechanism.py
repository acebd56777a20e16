"""Does erasing say what a task rests on, where that is known? On phantoms of a known mechanism.

``python -m benchmarks.amnesic_mechanism --trained T --folder F`` reads what
`benchmarks.mechanism_train` packed and the features that `benchmarks.mechanism` measured. Each
label depends on one factor of the phantoms; every factor is erased from the embeddings by itself,
and by the features that measure it, before and after each fine-tuning. It writes
``benchmarks/results/amnesic_mechanism.json`` and ``docs/evidence-amnesic-mechanism.png``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from benchmarks.mechanism import Config as Judged
from benchmarks.mechanism import Material, read_material
from benchmarks.mechanism_files import unpacked
from benchmarks.mechanism_truth import owners, rate, shares_of_factors, squared_errors
from lens.amnesic.clusters import MOST, Cluster, targets_of
from lens.amnesic.labels import label_of
from lens.amnesic.losses import Settings
from lens.amnesic.table import amnesic
from lens.report.amnesic_text import CHANCE
from lens.verdicts.fold_values import target_values

FACTOR_OF = {
    "lesion_grade": "dwi_contrast",
    "texture_grade": "t2_texture",
    "nodule_grade": "adc_nodularity",
    "volume_ml": "gland_volume",
}
"""The factor that each label depends on, and nothing else."""

KEPT = (
    "label", "erased", "seed", "kind", "cluster", "own", "stage", "score", "rank",
    "variance_removed", "score_before", "score_after", "loss", "loss_low", "loss_high",
    "null_mean", "null_q95", "p_maxt", "p_rank_maxt", "read_linear", "left_linear",
    "left_nonlinear", "finding", "carried",
)  # fmt: skip
"""Columns of the record."""

CARRIED = 0.1
"""R2 from which the features of another factor are said to carry the label's."""

FOUND = {"rests": ("rests",), "costs": ("rests", "large part")}
"""Findings that are counted, by the name of the count."""


@dataclass(frozen=True)
class Config:
    """What is erased, and how."""

    trained: Path = Path("runs/mechanism/packed")
    """Folder with mechanism.npz and mechanism.json."""
    folder: Path = Path("runs/mechanism")
    """Images and features of the judged phantoms."""
    pool: str = "gland"
    """Over what the embeddings were averaged."""
    kinds: tuple[str, ...] = ("full", "noise")
    """Kinds of fine-tunings: on the label, and on permuted labels to the last epoch (noise)."""
    draws: int = 200
    """Random subspaces of each kind."""
    summarise: bool = False
    """Only the rates and the figure anew, from the rows of --out."""
    out: Path = harness.RESULTS / "amnesic_mechanism.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-amnesic-mechanism.png")
    """Where the picture goes."""


def main(config: Config) -> None:
    """Erases every factor for every label and writes the record and the figure."""
    about = json.loads((config.trained / "mechanism.json").read_text())
    with np.load(config.trained / "mechanism.npz") as stored:
        embeddings = unpacked(stored)[config.pool]
    judged = Judged(trained=config.trained, folder=config.folder, pool=config.pool)
    material = read_material(judged, about["phantoms"], embeddings)
    if config.summarise:
        known = json.loads(config.out.read_text())
        table = pd.DataFrame(known["rows"]).drop(columns=["carried"], errors="ignore")
    else:
        known = harness.facts(config, "numpy", "scipy")
        table = erased(config, material)
    table = table.merge(carried(material), on=["erased", "cluster", "label"], validate="m:1")
    known |= {
        "patients": len(material.r),
        "features_by_factor": {c.name: len(c.columns) for c in _what(material)["features"][1]},
        "summary": summary(table),
        "rows": json.loads(table[[*KEPT]].round(4).to_json(orient="records")),
    }
    harness.record(config.out, known)
    _draw(table, config.figure)
    print("\n".join(sentences(known["summary"])))


def erased(config: Config, material: Material) -> pd.DataFrame:
    """Rows of ``pre`` and ``ft`` of every label, of the factors and of their features."""
    labels = pd.read_csv(config.folder / "judged/cohort.csv").set_index("patient_id")
    embeddings, tables = material.embeddings, []
    for label in FACTOR_OF:
        column = labels.loc[material.patients, label].reset_index(drop=True)
        values = label_of(column, label, patients=material.patients, folds=5)
        names = [n for n in embeddings if n.split("-")[0] == label]
        after = {n: embeddings[n] for n in names if n.rsplit("-", 1)[1] in config.kinds}
        for kind, (r, clusters) in _what(material).items():
            found = amnesic(
                embeddings["pretrained"], after, r, values, clusters, material.patients,
                settings=Settings(draws=config.draws, seed=0),
            )  # fmt: skip
            for name, table in found.items():
                _, seed, trained = name.split("-")
                tables.append(table.assign(erased=kind, seed=int(seed), kind=trained))
            print(f"{label}, {kind}: {len(found)} fine-tunings", flush=True)
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(own=table["cluster"] == table["label"].map(FACTOR_OF))
    return table[table["stage"] != "delta"]


def _what(material: Material) -> dict[str, tuple[np.ndarray, list[Cluster]]]:
    """Values and clusters: the factors themselves, and the features that measure one of them."""
    factors = material.factors
    owner = owners(shares_of_factors(material.r, factors))
    names = [str(name) for name in factors]
    measured = [Cluster(n, np.flatnonzero(owner == n)) for n in names if (owner == n).any()]
    alone = [Cluster(name, np.array([at])) for at, name in enumerate(names)]
    return {"factors": (factors.to_numpy(), alone), "features": (material.r, measured)}


def carried(material: Material) -> pd.DataFrame:
    """R2 with which what is erased for a cluster reads the label's factor, without any encoder.

    Held-out, by ridge regression from the cluster's components. Above zero for another factor's
    cluster, its features measure the label's factor as well, and erasing them takes that along.
    """
    everyone, rows = np.ones(len(material.r), bool), []
    y = material.factors[[*FACTOR_OF.values()]].to_numpy()
    for kind, (r, clusters) in _what(material).items():
        values = target_values(r, everyone)
        for cluster in clusters:
            z = targets_of(values[:, cluster.columns], everyone, MOST).z
            errors = squared_errors(z, y).sum(axis=0)
            for at, label in enumerate(FACTOR_OF):
                r2 = float(1 - errors[at] / np.square(y[:, at] - y[:, at].mean()).sum())
                rows.append(
                    {"erased": kind, "cluster": cluster.name, "label": label, "carried": r2}
                )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Rates by what is erased and from which embeddings, of the label's own factor and of others.

    Before fine-tuning there is one embedding per label; its rows are counted once.
    """
    found: dict[str, Any] = {}
    for kind, rows in table.groupby("erased"):
        before = rows[rows["stage"] == "pre"].drop_duplicates(["label", "cluster"])
        parts = {"before": before}
        for trained, after in rows[rows["stage"] == "ft"].groupby("kind"):
            parts[f"after, {trained}"] = after
        found[str(kind)] = {name: _rates(part) for name, part in parts.items()}
    return found


def _rates(rows: pd.DataFrame) -> dict[str, Any]:
    units = [
        {"label": label, **_counts(part)} for (label, _), part in rows.groupby(["label", "seed"])
    ]
    names = [f"{who}_{what}" for who in ("own", "others") for what in FOUND]
    rates: dict[str, Any] = {"embeddings": len(units)}
    rates |= {name: rate(units, name, f"{name.partition('_')[0]}_erased") for name in names}
    own = rows[rows["own"]]
    above = own["score_before"] - own["score"].map(CHANCE)
    rates["own_share_lost_median"] = float((own["loss"] / above).median())
    rates["own_loss_median"] = float(own["loss"].median())
    others = rows[~rows["own"]]
    for name, part in (
        ("carry", others[others["carried"] >= CARRIED]),
        ("carry_not", others[others["carried"] < CARRIED]),
    ):
        hits = part["finding"].isin(FOUND["costs"])
        rates[f"others_that_{name}"] = {"costs": int(hits.sum()), "of": len(part)}
    rates["others_loss_median"] = float(others["loss"].median())
    rates["others_loss_largest"] = float(others["loss"].max())
    rates["own_costs_most"] = int(sum(unit["own_first"] for unit in units))
    return rates


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    counts: dict[str, int] = {}
    for who, part in (("own", rows[rows["own"]]), ("others", rows[~rows["own"]])):
        counts[f"{who}_erased"] = len(part)
        for what, findings in FOUND.items():
            counts[f"{who}_{what}"] = int(part["finding"].isin(findings).sum())
    counts["own_first"] = int(rows["own"].to_numpy()[rows["loss"].to_numpy().argmax()])
    return counts


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The rates in words."""
    lines = []
    for kind, parts in found.items():
        for name, rates in parts.items():
            carry, rest = rates["others_that_carry"], rates["others_that_carry_not"]
            lines += [
                f"{kind} erased, {name} ({rates['embeddings']} embeddings):",
                f"  the label's own costs it: {_said(rates['own_costs'])}; beyond its variance: "
                f"{_said(rates['own_rests'])}; median loss {rates['own_loss_median']:.2f}, "
                f"{rates['own_share_lost_median']:.0%} of what is above chance; it costs most in "
                f"{rates['own_costs_most']}",
                f"  others cost it: {_said(rates['others_costs'])}; beyond their variance: "
                f"{_said(rates['others_rests'])}; median loss {rates['others_loss_median']:.3f}, "
                f"at most {rates['others_loss_largest']:.2f}; of those that carry the label's "
                f"factor {carry['costs']} of {carry['of']}, of the rest {rest['costs']} of "
                f"{rest['of']}",
            ]
    return lines


def _said(value: Mapping[str, Any]) -> str:
    return f"{value['share']:.2f} [{value['low']:.2f}, {value['high']:.2f}] of {value['of']}"


def _draw(table: pd.DataFrame, path: Path) -> None:
    """Losses by factor, a panel per label: the median over the fine-tunings and their range."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from lens.files import atomic
    from lens.report.figures import COLOURS, STYLE
    from lens.report.palette import line_mark

    part = table[table["kind"] == "full"]
    factors: Sequence[str] = list(dict.fromkeys(part["cluster"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 6.2), layout="constrained")
        panels = figure.subplots(2, len(FACTOR_OF), sharey=True, sharex="col")
        for line, kind in zip(panels, ("factors", "features"), strict=True):
            for axes, (label, own) in zip(line, FACTOR_OF.items(), strict=True):
                for shift, stage, look, name in (
                    (-0.15, "pre", "before", "before"), (0.15, "ft", "after", "after fine-tuning"),
                ):  # fmt: skip
                    rows = part[(part["label"] == label) & (part["erased"] == kind)]
                    loss = rows[rows["stage"] == stage].groupby("cluster")["loss"]
                    ends = loss.agg(["median", "min", "max"]).loc[factors]
                    height = np.arange(len(factors)) + shift
                    axes.hlines(height, ends["min"], ends["max"], color=COLOURS[stage], lw=1.4)
                    axes.plot(ends["median"], height, ls="", ms=4.5, label=name, **line_mark(look))
                axes.axvline(0, color="black", lw=0.8)
                axes.set_yticks(range(len(factors)), factors)
                axes.set_ylim(len(factors) - 0.5, -0.5)
                at = factors.index(own)
                axes.axhspan(at - 0.45, at + 0.45, color=COLOURS["stable"], alpha=0.15, lw=0)
                if kind == "factors":
                    axes.set_title(label)
                else:
                    axes.set_xlabel(f"Loss of {'R2' if label == 'volume_ml' else 'concordance'}")
            line[0].set_ylabel("the factor erased" if kind == "factors" else "its features erased")
        handles, texts = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, frameon=False, loc="outside lower center", ncols=2)
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=160, format="png")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
