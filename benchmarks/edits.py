"""Edits of the study with a known mechanism: does the score follow an edit of the label's factor?

``python -m benchmarks.edits --folder F`` takes the encoders of `benchmarks.edits_train`, edits
phantoms that no training saw, and writes benchmarks/results/edits.json: for each fine-tuning (its
label, or labels exchanged) and edit, the slope of the score before and after with its test. A
fine-tuning on exchanged labels is asked twice: with a head for the label itself, and with one for
the label exchanged among the judged phantoms, which is its task.
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

from benchmarks.edits_alarms import wilson
from benchmarks.harness import RESULTS

OWN = {
    "lesion_grade": "scale of dwi in lesion",
    "texture_grade": "smooth of t2 in gland",
    "volume_ml": "grow of all in gland",
    "level_grade": "scale of adc in gland",
    "nodule_grade": "contrast of adc in gland",
}
"""Label -> the edit of its own factor."""

DOSES = {
    "scale of dwi in lesion": (-0.5, 0.5),
    "smooth of t2 in gland": (2.0, 4.0),
    "grow of all in gland": (-2.0, 2.0),
    "scale of adc in gland": (-0.125, 0.125),
    "contrast of adc in gland": (-0.5, 0.5),
}


@dataclass(frozen=True)
class Config:
    """Which encoders, how many phantoms."""

    folder: Path = Path("runs/mechanism")
    """Of `benchmarks.mechanism_train`, with the pre-trained encoder."""
    encoders: Path | None = None
    """Of `benchmarks.edits_train`; edits/encoders in the other one if not given."""
    work: Path | None = None
    """Images and finished parts; edits in the first folder if not given."""
    judged: int = 300
    """Phantoms to which heads are fitted; none was trained on."""
    edited: int = 48
    """Of these, phantoms that are edited."""
    flips: int = 4999
    """Random signs."""
    out: Path = RESULTS / "edits.json"
    """File of the results."""


def main(config: Config) -> None:
    """Edits, embeds, tests, prints and writes."""
    from encoders import load
    from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort
    from encoders.edited_embeddings import EditSettings, embed_edits
    from lens.cohort import read_manifest
    from lens.cohort.factor_phantom import write_cohort
    from lens.edits.catalogue import Edit, Target
    from lens.files import write_json

    work = config.work or config.folder / "edits"
    kept = config.encoders or config.folder / "edits/encoders"
    manifest = write_cohort(work / "judged", config.judged, 17, 3680, progress=False)
    cohort = read_manifest(manifest)
    targets = []
    for name, doses in DOSES.items():
        edit, _, image, _, roi = name.split()
        targets.append(Target(Edit(edit, doses), roi, image))
    seen = EmbeddingSettings((24, 32, 32), (2.0, 2.0, 2.0), ("t2", "dwi", "adc"), pool="gland")
    settings = EditSettings(tuple(targets), seen, anew=True)
    found = sorted(path.stem for path in kept.glob("*.json"))
    originals, effects = {}, {}
    # One encoder after another, so that a later one adds to what is there.
    for name in ["pretrained", *found]:
        encoder = load(config.folder / name if name == "pretrained" else kept / name)
        rows, _ = embed_cohort(cohort, encoder, settings=seen, batch_size=16, cache=work / "parts")
        originals[name] = rows.embeddings
        effects[name], errors = embed_edits(
            cohort.cases[: config.edited], {name: encoder}, settings,
            batch_size=6, cache=work / "parts",
        )  # fmt: skip
        print(f"{name}: {len(effects[name])} edited, {len(errors)} findings", flush=True)
    labels = pd.DataFrame([files.labels for files in cohort.cases])
    table = pd.concat([
        _asked(config, settings, name, originals, effects, labels) for name in found
    ], ignore_index=True)  # fmt: skip
    rates = summary(table)
    print(rates.to_string(index=False))
    made = {
        "judged": config.judged, "edited": config.edited, "doses": DOSES, "own": OWN,
        "scores": {n: json.loads((kept / f"{n}.json").read_text())["score"] for n in found},
        "rates": rates.to_dict("records"), "rows": table.round(4).to_dict("records"),
    }  # fmt: skip
    write_json(config.out, made)
    print(markdown(made))


def _asked(
    config: Config, settings: Any, name: str, originals: Any, effects: Any, labels: pd.DataFrame
) -> pd.DataFrame:
    """The rows of one fine-tuning."""
    from lens.edits.responses import Moved, Settings, respond
    from lens.edits.versions import ARMS

    label, seed, kind = name.rsplit("-", 2)
    y = labels[label].to_numpy(float)
    heads = {"own": y}
    if kind == "noise":
        heads["exchanged"] = np.random.default_rng([int(seed), 5]).permutation(y)
    x = {"pre": originals["pretrained"], "ft": originals[name]}
    moved = []
    for at, target in enumerate(settings.targets):
        rows = [row for row, made in effects[name].items() if at not in made.refused]
        change = {
            stage: {
                arm: np.stack([effects[who][row].change[who][at][:, place] for row in rows])
                for place, arm in enumerate(ARMS)
            }
            for stage, who in (("pre", "pretrained"), ("ft", name))
        }
        moved.append(Moved(np.array(target.edit.doses), np.array(rows), change))
    tables = []
    for head, values in heads.items():
        table = respond(x, values, moved, Settings(flips=config.flips))[0]
        names = np.array(list(DOSES))
        table.insert(0, "edit", names[table["at"]])
        facts = {"label": label, "seed": int(seed), "kind": kind, "head": head}
        tables.append(table.assign(**facts, own=table["edit"] == OWN[label]).drop(columns="at"))
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Share of rows in which the edit moves the score, by what it is an edit of.

    Before fine-tuning the encoder is one: read for the label itself, its rows count once, whatever
    the seed.
    """
    once = (table["stage"] == "pre") & (table["head"] == "own")
    again = table.duplicated(["kind", "head", "stage", "label", "edit"]) & once
    rows = []
    for key, part in table[~again].groupby(["kind", "head", "stage", "own"], sort=False):
        count, total = int(part["moves"].sum()), len(part)
        low, high = wilson(count, total)
        facts = dict(zip(("kind", "head", "stage", "own"), key, strict=True))
        rows.append(facts | {"moves": count, "of": total, "low": low, "high": high,
                             "median_slope": float(part["slope"].abs().median())})  # fmt: skip
    return pd.DataFrame(rows)


HEADS = {
    ("full", "own"): "fine-tuned for the label",
    ("noise", "own"): "fine-tuned on exchanged labels, a head for the label itself",
    ("noise", "exchanged"): "fine-tuned on exchanged labels, a head for exchanged ones",
}


def markdown(record: Mapping[str, Any]) -> str:
    """The two tables of docs/edits.md: rates, and slopes of each label's own edit."""
    rates = {
        tuple(row[k] for k in ("kind", "head", "own", "stage")): row for row in record["rates"]
    }
    lines = ["| encoder, head | edit of | before | after | the change |", "|---|---|---|---|---|"]
    for (kind, head), told in HEADS.items():
        for own, whose in ((True, "the label's factor"), (False, "other factors")):
            cells = []
            for stage in ("pre", "ft", "change"):
                row = rates[kind, head, own, stage]
                ends = f"{abs(row['low']):.2f} to {row['high']:.2f}"
                cells.append(f"{row['moves']} of {row['of']} ({ends})")
            lines.append(f"| {told} | {whose} | {' | '.join(cells)} |")
    table = pd.DataFrame(record["rows"])
    own = table[table["own"] & (table["head"] == "own")]
    lines += [
        "",
        "| label: edit of its factor | before | fine-tuned for it, by seed | on exchanged labels |",
        "|---|---|---|---|",
    ]
    for label, edit in OWN.items():
        part = own[own["label"] == label]
        first = part[part["stage"] == "pre"].iloc[0]
        ends = f"[{first['slope_low']:.2f}, {first['slope_high']:.2f}]"
        cells = [f"{first['slope']:.2f} {ends}{_star(first)}"]
        for kind in ("full", "noise"):
            seeds = part[(part["kind"] == kind) & (part["stage"] == "ft")].sort_values("seed")
            cells.append(
                ", ".join(f"{row['slope']:.2f}{_star(row)}" for _, row in seeds.iterrows())
            )
        lines.append(f"| {label.replace('_', ' ')}: {edit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _star(row: pd.Series) -> str:
    return " *" if row["moves"] else ""


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
