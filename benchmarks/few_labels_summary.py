"""What the runs of the benchmark of pre-training say: differences within a seed, and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

TARGETS = {
    "lesion_grade": "classification",
    "volume_ml": "regression",
    "lesion": "segmentation",
    "texture_grade": "classification",
}
"""What is learnt -> its task."""

SCORES = {"classification": "auc", "regression": "r2", "segmentation": "dice"}
"""Task -> its score; higher is better."""

MAIN = ("lesion_grade", "volume_ml", "lesion")
"""The three tasks of the question: grade, volume and outline."""

STARTS = ("random", "pretrained")
WAYS = {"full": "", "frozen": "-frozen"}
"""All parameters or the head alone -> how a part of that way ends."""

Runs = Mapping[str, Mapping[str, Any]]


class Part(NamedTuple):
    """One training: what is learnt, from how many labels, from which start, and whether the encoder
    is trained too."""

    target: str
    count: int
    start: str
    way: str


def plan(counts: Sequence[int]) -> list[Part]:
    """All trainings of a seed, the most telling first, the two starts of each side by side."""
    first, *others = counts
    main = [(count, target) for count in others for target in MAIN]
    rest = [(count, target) for count in others for target in TARGETS if target not in MAIN]
    order = [*((first, target) for target in TARGETS), *main, *rest]
    return [
        Part(target, count, start, way)
        for way in WAYS
        for count, target in order
        for start in STARTS
    ]


def part_name(seed: int, target: str, count: int, start: str, way: str) -> str:
    """``seed-0/lesion-120-random``, and with ``-frozen`` where the head alone was trained."""
    return f"seed-{seed}/{target}-{count}-{start}{WAYS[way]}"


def merged(records: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and runs of records of several seeds.

    Raises:
        SystemExit: they were made with other settings, or have a run in common.
    """
    facts = {k: v for k, v in records[0].items() if k not in ("summary", "runs")}
    runs: dict[str, Any] = {}
    for record in records:
        known, own = (
            {k: v for k, v in each["config"].items() if k != "seeds"} for each in (facts, record)
        )
        if json.loads(json.dumps(known)) != json.loads(json.dumps(own)):
            raise SystemExit("these records were made with different settings")
        if common := set(runs) & set(record["runs"]):
            raise SystemExit(f"two of the records have {min(common)}")
        runs |= record["runs"]
    facts["config"] = {
        **facts["config"],
        "seeds": [s for r in records for s in r["config"]["seeds"]],
    }
    return facts, runs


def summarise(runs: Runs, counts: Sequence[int]) -> dict[str, Any]:
    """Scores over seeds, and what pre-training adds within each seed.

    Args:
        runs: result of each part by its name; a part that was not made may be missing.
        counts: numbers of labels.

    Returns:
        ``pretraining`` (masked losses), ``targets`` (target -> way -> count -> ``seeds``,
        ``random``, ``pretrained``, ``difference`` and the number of seeds that it ``helped``; only
        seeds with both starts) and ``main``: way -> count -> of the three tasks those that it
        ``helped_in_every_seed`` (all seeds that were made) and how many in each seed.
    """
    seeds = sorted({int(name.split("/")[0].removeprefix("seed-")) for name in runs})
    made = [runs[f"seed-{s}/pretraining"] for s in seeds if f"seed-{s}/pretraining" in runs]
    targets = {
        target: {"score": SCORES[task], "chance": _chance(runs, target)}
        | {way: _by_count(runs, seeds, target, way, counts) for way in WAYS}
        for target, task in TARGETS.items()
    }
    return {
        "pretraining": {
            key: spread([run[key] for run in made])
            for key in ("masked_loss_start", "masked_loss_end", "epochs")
            if made
        },
        "targets": targets,
        "main": {way: _main(targets, seeds, way, counts) for way in WAYS},
    }


def _by_count(
    runs: Runs, seeds: Sequence[int], target: str, way: str, counts: Sequence[int]
) -> dict[str, Any]:
    found = {}
    for count in sorted(counts):
        names = {
            seed: [part_name(seed, target, count, start, way) for start in STARTS] for seed in seeds
        }
        whole = [seed for seed in seeds if all(name in runs for name in names[seed])]
        if whole:
            random, pretrained = (
                np.array([runs[names[seed][i]]["score"] for seed in whole]) for i in range(2)
            )
            found[str(count)] = {
                "seeds": whole,
                "random": spread(random),
                "pretrained": spread(pretrained),
                "difference": spread(pretrained - random),
                "helped": int((pretrained > random).sum()),
            }
    return found


def _main(
    targets: Mapping[str, Any], seeds: Sequence[int], way: str, counts: Sequence[int]
) -> dict[str, Any]:
    found = {}
    for count in map(str, sorted(counts)):
        entries = {t: targets[t][way][count] for t in MAIN if count in targets[t][way]}
        if not entries:
            continue
        by_seed = {
            str(seed): sum(
                entry["difference"]["values"][entry["seeds"].index(seed)] > 0
                for entry in entries.values()
                if seed in entry["seeds"]
            )
            for seed in seeds
        }
        every = [
            target
            for target, entry in entries.items()
            if entry["helped"] == len(seeds) == len(entry["seeds"])
        ]
        found[count] = {"helped_in_every_seed": every, "helped_of_three": by_seed}
    return found


def _chance(runs: Runs, target: str) -> dict[str, Any] | None:
    known = {
        name.split("/")[0]: run["chance"]
        for name, run in sorted(runs.items())
        if name.split("/")[1].startswith(f"{target}-")
    }
    return spread(list(known.values())) if known else None


def without_looking(task: str, labels: Any, test: np.ndarray) -> float:
    """The score of a constant; for masks, the better of marking nothing and everything."""
    if task == "segmentation":
        shares = labels[test].mean(axis=(1, 2, 3))
        return float(np.mean([2 * s / (1 + s) for s in shares if s > 0]))
    return {"classification": 0.5, "regression": 0.0}[task]


def spread(values: Any) -> dict[str, Any]:
    """Mean, standard deviation (None for one value) and the values."""
    values = np.asarray(values, float)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "sd": sd, "values": values.round(4).tolist()}


def table(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown, a row per target, way and number of labels."""
    lines = [
        "| task (score; chance) | trained | labels | random start | pre-trained | difference "
        "| by seed | helped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target, entry in summary["targets"].items():
        for way in WAYS:
            for count, row in entry[way].items():
                each = ", ".join(f"{value:+.3f}" for value in row["difference"]["values"])
                lines.append(
                    f"| {target} ({entry['score']}; {entry['chance']['mean']:.2f}) | {way} "
                    f"| {count} | {_shown(row['random'])} | {_shown(row['pretrained'])} "
                    f"| {_shown(row['difference'], '+')} | {each} "
                    f"| {row['helped']} of {len(row['seeds'])} |"
                )
    lines.append("")
    for way, by_count in summary["main"].items():
        for count, row in by_count.items():
            every = ", ".join(row["helped_in_every_seed"]) or "none"
            numbers = ", ".join(str(number) for number in row["helped_of_three"].values())
            lines.append(
                f"{way}, {count} labels: of {', '.join(MAIN)} it helps {every} in every seed; "
                f"by seed {numbers} of 3"
            )
    for key, value in summary["pretraining"].items():
        lines.append(f"{key}: {_shown(value)}")
    return "\n".join(lines)


def _shown(entry: Mapping[str, Any], sign: str = "") -> str:
    sd = "" if entry["sd"] is None else f" ± {entry['sd']:.3f}"
    return f"{entry['mean']:{sign}.3f}{sd}"
