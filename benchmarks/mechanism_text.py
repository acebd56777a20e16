"""The text on the study with a known mechanism for docs/evidence.md, every number from its results.

python -m benchmarks.mechanism_text benchmarks/results/mechanism.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.mechanism_figure import AIMS

Found = Mapping[str, Any]

KINDS = {
    "full": "fine-tuned",
    "scratch": "the same from the random start",
    "noise": "permuted labels, last epoch",
    "permuted": "permuted labels, epoch by validation",
    "frozen": "encoder frozen",
}
"""Kind of a fine-tuning -> what the text calls it, in order."""


def text(found: Found) -> str:
    """The section, from the record of `benchmarks.mechanism`."""
    parts = (_design, _answer, _controls, _labels, _rates, _limits)
    return "\n\n".join(part(found) for part in parts) + "\n"


def _design(found: Found) -> str:
    trained, summary = found["trained"], found["summary"]
    phantoms, settings, made = trained["phantoms"], trained["settings"], trained["pretraining"]
    owned = {k.replace("_", " "): v for k, v in found["features_by_factor"].items() if v}
    counts = ", ".join(f"{name} {count}" for name, count in owned.items())
    part, choosing = phantoms["finetune"] // 7, phantoms["pretrain"] // 16
    return (
        "## Phantoms: the mechanism is known\n\n"
        "![What fine-tuning did to each factor, and what the lens said](evidence-mechanism.png)\n\n"
        f"*{found['patients']} phantoms that no training saw; a panel per label, a row per factor. "
        "Black: the change of the factor's R2, a point per seed with its 95% interval over "
        "phantoms. Bars: the share of the features that measure the factor which the lens calls "
        "lost or gained, seeds together. Below, left: how often it is right, with 95% intervals "
        "that draw whole labels; middle: a point per fine-tuning and factor; right: a pair of "
        "points per fine-tuning.*\n\n"
        f"**What was done.** Phantoms whose eight factors are drawn independently of each other. A "
        f"ConvNeXt V2 ({_numbers(settings['widths'])} channels) is pre-trained on "
        f"{phantoms['pretrain'] - choosing:,} of them, {choosing} more choosing the epoch "
        f"({made['epochs']} epochs; loss on validation phantoms "
        f"{made['start']:.2f} to {made['validation'][made['best_epoch']]:.2f}), then fine-tuned "
        f"for labels that depend on one factor each, with {phantoms['finetune'] - 2 * part:,} "
        f"phantoms to train on, {part} to choose the epoch and {part} to score, by "
        f"{len({r['seed'] for r in found['runs']})} seeds. The lens judges {found['patients']} "
        f"phantoms that no training saw, {found['features']} features of the original image; the "
        f"median R2 before fine-tuning is {summary['full']['median_r2_before']:.2f} over those "
        "that can be read. The truth does not go through the lens: the change of each factor's own "
        "held-out R2, by scikit-learn's ridge regression. A feature is one of a factor that "
        f"explains half or more of it ({counts}; the others belong to none and are not counted). "
        f"The lens ran without its MLP, so that nothing is called recoded, with one round of "
        f"{found['config']['folds']} folds and {found['config']['flips']:,} sign flips, each "
        "fine-tuning by itself."
    )


def _answer(found: Found) -> str:
    full = found["summary"]["full"]
    called, assessed = full["called"], full["false_alarms"]["of"]
    calls = sum(row["called"] for row in found["runs"] if row["kind"] == "full")
    return (
        f"**What was found.** Of the features whose factor changed by 0.1 or more, the lens calls "
        f"{_share(full['sensitivity'])} in the right direction. It makes {calls:,} calls (of "
        f"{called['of']:,}), {assessed:,} of them on a feature that has a factor: "
        f"{_share(full['false_alarms'])} are of a factor that did not change that way, and "
        f"{_share(full['alarms_of_small_changes'])} of one that did, by less than 0.1; of the "
        f"other {calls - assessed:,} nothing is known. Of the features whose factor stayed, "
        f"{_share(full['stayed_called'])} are called. Over features the change that the factors "
        "foretell and the one measured correlate at "
        f"{full['correlation_with_expected']:.2f} (median of the fine-tunings)."
    )


def _controls(found: Found) -> str:
    permuted, noise, frozen = (found["summary"][kind] for kind in ("permuted", "noise", "frozen"))
    moved = permuted["runs"] - permuted["same_encoder"]
    minutes = sum(row["seconds"] for row in found["runs"] if row["seconds"]) / 60
    return (
        f"**Controls.** An encoder that is frozen is the encoder it was, {frozen['same_encoder']} "
        f"times of {frozen['runs']}: {_count(frozen['called'])} features are called, a check of "
        "the code and no more. Labels exchanged among patients, the epoch chosen by validation as "
        f"ever: {permuted['same_encoder']} of {permuted['runs']} kept the very encoder they began "
        f"with, where nothing can be called either; in the other {moved} validation took an epoch "
        f"by luck, whose encoder had changed, and {_bare(permuted['called_of_moved'])} are called "
        f"({_bare(permuted['called'])} over all {permuted['runs']}). Of these calls "
        f"{_bare(permuted['false_alarms'])} with a factor are of one that had not changed that "
        f"way and {_bare(permuted['alarms_of_small_changes'])} of one that had by less than 0.1. "
        "Where the last epoch of such a training is taken, against all advice, "
        f"{_share(noise['called'])} are called, and {_share(noise['false_alarms'])} of the calls "
        "are wrong in that sense: learning noise by heart does make an encoder forget. So labels "
        "that mean nothing are no control in which nothing changes; encoders that moved and lost "
        "nothing are among the cohorts of the [calibration](benchmarks.md). All fine-tunings took "
        f"{minutes:.0f} minutes of one CPU core."
    )


def _labels(found: Found) -> str:
    head = (
        "| trained for | score by seed (area under the curve, R2) | R2 of that factor, before to "
        "after | its features: gained (lost) of all, by seed | factors that lost 0.1 or more, by "
        "seed | features lost, by seed |"
    )
    lines = [head, "|---|---|---|---|---|---|"]
    full = [row for row in found["runs"] if row["kind"] == "full"]
    for label in dict.fromkeys(row["label"] for row in full):
        rows = [row for row in full if row["label"] == label]
        aims = [_factor(row, AIMS[label]) for row in rows]
        fallen = [
            [f["factor"] for f in row["factors"] if f["state"] == "changed" and f["sign"] < 0]
            for row in rows
        ]
        cells = [
            AIMS[label].replace("_", " "),
            ", ".join(f"{row['score']:.2f}" for row in rows),
            ", ".join(f"{f['r2_before']:.2f} to {f['r2_after']:.2f}" for f in aims),
            ", ".join(f"{f['gained']} ({f['lost']}) of {f['features']}" for f in aims),
            ", ".join(str(len(names)) for names in fallen),
            ", ".join(str(row["lost"]) for row in rows),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rates(found: Found) -> str:
    head = (
        "| | fine-tunings | all features called | right, of features of changed factors | "
        "wrong, of calls | of features of factors that stayed, called |"
    )
    lines = [head, "|---|---|---|---|---|---|"]
    for kind, name in KINDS.items():
        if each := found["summary"].get(kind):
            rates = ("called", "sensitivity", "false_alarms", "stayed_called")
            told = _count if each["same_encoder"] == each["runs"] else _share
            cells = [name, str(each["runs"]), *(told(each[rate]) for rate in rates)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _limits(found: Found) -> str:
    return (
        "**Limits.** Intervals draw whole labels, and four are few: they may be too narrow. All "
        "fine-tunings start from one pre-trained encoder and are judged on the same phantoms. What "
        "happened to a factor and what the lens says are both read by ridge regression from the "
        "same embeddings of these: they share what is peculiar to this sample, and would agree "
        "less on two. Phantoms have few ways to differ, and the encoder is small. A factor that is "
        "read nearly whole before (DWI contrast, gland volume) cannot gain much by being trained "
        "for. A feature of a factor that stayed may still change by itself, as its factor explains "
        "it in part.\n\n"
        f"Commands: `python -m benchmarks.mechanism_train --folder F --kinds {_kinds(found)}`, the "
        "same with `--pack F/packed`, and `python -m benchmarks.mechanism --trained F/packed "
        "--folder F`."
    )


def _kinds(found: Found) -> str:
    return " ".join(found["trained"]["settings"]["kinds"])


def _factor(row: Found, name: str) -> Found:
    return next(f for f in row["factors"] if f["factor"] == name)


def _count(entry: Found) -> str:
    """``0 of 540``; a dash where there was nothing to count."""
    if entry["share"] is None:
        return "– (none)"
    return f"{round(entry['share'] * entry['of']):,} of {entry['of']:,}"


def _bare(entry: Found) -> str:
    """``82.0% of 540``: of too few fine-tunings for an interval."""
    return "none" if entry["share"] is None else f"{100 * entry['share']:.1f}% of {entry['of']:,}"


def _numbers(values: Sequence[int]) -> str:
    return f"{values[0]} to {values[-1]}"


def _share(entry: Found) -> str:
    """``82.0% [70.1%, 91.3%] of 540``; a dash where there was nothing to count."""
    if entry["share"] is None:
        return "– (none)"
    share, low, high = (f"{100 * entry[key]:.1f}%" for key in ("share", "low", "high"))
    return f"{share} [{low}, {high}] of {entry['of']:,}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    print(text(json.loads(parser.parse_args().record.read_text())), end="")
