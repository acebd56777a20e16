"""Sentences and tables on what a study found, for `benchmarks.study_text`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    "low-rank": "fine-tuned by low-rank updates",
    "permuted": "labels permuted (control)",
    "frozen": "encoder frozen (control)",
}

RUNS = {
    "malignancy": "cls", "volume": "reg", "outline": "seg", "low-rank": "lora",
    "permuted": "permuted", "frozen": "frozen",
}  # fmt: skip
"""Task -> how its trainings are called."""

ADJUSTED = {"us": "area", "hip": "volume"}
"""Study -> what its changes are adjusted for."""

SCORES = {"auc": "AUC", "r2": "R2", "dice": "Dice"}


def signed(value: float | None, digits: int = 3) -> str:
    """A change with its sign; a word where there is none."""
    return "not known" if value is None else f"{value:+.{digits}f}"


def change(entry: Found) -> str:
    """A change of R2 with its interval."""
    low, high = signed(entry["delta_r2_low"]), signed(entry["delta_r2_high"])
    return f"{signed(entry['delta_r2'])} [{low}, {high}]"


def trained(found: Found, *tasks: str) -> str:
    """Test scores of the tasks' seeds, and of the controls."""
    told = []
    for name in (*tasks, "low-rank", "permuted", "frozen"):
        if made := runs_of(found, name):
            epochs = max(run["embedded_epoch"] for run in made)
            at = f" after {epochs} epochs" if name == "permuted" else ""
            told += [f"{NAMES[name]}{at}: {each}" for each in seeds_of(found, name)]
    n = runs_of(found, tasks[0])[0]["test"]["n"]
    return f"Scores on the {n} test cases, a number per seed: {'; '.join(told)}."


def seeds_of(found: Found, task: str) -> list[str]:
    """Each test score of a task over its seeds, by its name."""
    made = runs_of(found, task)
    scores = [key for key in SCORES if made and key in made[0]["test"]]
    return [
        f"{SCORES[key]} " + ", ".join(f"{run['test'][key]:.2f}" for run in made) for key in scores
    ]


def runs_of(found: Found, task: str) -> list[Found]:
    made = found["training"]["runs"]
    return [run for name, run in made.items() if name.startswith(f"{RUNS[task]}-")]


def ceilings(found: Found) -> str:
    """What small changes of pose, contour and noise leave of the features."""
    told = found["repeatability"]
    classes = sorted(told["median_icc"].items(), key=lambda pair: -pair[1])
    best, worst = classes[0], classes[-1]
    return (
        f"How well features repeat was measured on {told['patients']} cases, "
        f"{told['versions']} perturbed versions each: median intraclass correlation from "
        f"{best[1]:.2f} ({best[0]}) to {worst[1]:.2f} ({worst[0]})."
    )


def verdict_table(found: Found) -> str:
    lines = [
        "**Verdicts** (5 folds, all patients, also those of fine-tuning; number of features):",
        "",
        "| embedding | encoder | seeds | " + " | ".join(DECIDED) + " | held back by other seeds | "
        "median R2 before | after | mean change [95% interval] |",
        "|---|---|" + "---|" * (len(DECIDED) + 5),
    ]
    for pool, task, result in each_result(found):
        verdicts = [str(result["verdicts"][name]) for name in DECIDED]
        held, median = result["withheld"].get("other seeds", 0), result["median"]
        cells = [
            POOLS[pool], NAMES[task], str(result["retrained"]), *verdicts, str(held),
            f"{median['r2_ridge_pre']:.2f}", f"{median['r2_ridge_ft']:.2f}", change(result),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def each_result(found: Found) -> Iterable[tuple[str, str, Found]]:
    for pool, tasks in found["pools"].items():
        for task, result in tasks.items():
            yield pool, task, result


def class_table(found: Found, task: str) -> str:
    pool = found["paper"]["pool"]
    groups = found["pools"][pool][task]["groups"]
    adjusted = groups[0]["r2_adjusted_pre_median"] is not None
    lines = [
        f"By feature class, embedding of the {POOLS[pool]}, {NAMES[task]}:",
        "",
        "| class | features | median R2 before | after | mean change [95% interval] | "
        "mean of the seeds | "
        + f"beyond the {ADJUSTED[found['study']]}: median R2 before, after | " * adjusted
        + "lost or gained | recoded |",
        "|---|---|---|---|---|---|---|---|" + "---|" * adjusted,
    ]
    for each in sorted(groups, key=lambda group: -(group["delta_r2"] or 0)):
        beyond = (
            f"{each['r2_adjusted_pre_median']:.2f}, {each['r2_adjusted_ft_median']:.2f} | "
            if adjusted
            else ""
        )
        name = each["class"] if len({g["roi"] for g in groups}) == 1 else named(each)
        lines.append(
            f"| {name} | {each['n_features']} | {each['r2_ridge_pre_median']:.2f} | "
            f"{each['r2_ridge_ft_median']:.2f} | {change(each)} | "
            f"{signed(each.get('delta_r2_seeds'))} | {beyond}"
            f"{each['verdicts']['lost'] + each['verdicts']['gained']} | "
            f"{each['verdicts']['recoded']} |"
        )
    ends = ("r2_adjusted_pre_median", "r2_adjusted_ft_median")
    if adjusted and any(each[end] < 0 for each in groups for end in ends):
        lines += ["", f"Below zero, nothing is read beyond the {ADJUSTED[found['study']]}."]
    return "\n".join(lines)


def named(group: Found) -> str:
    return f"{group['class']}, {group['roi']}"


def answer(found: Found, task: str) -> str:
    """What was found, in sentences."""
    lines = [f"**What was found: {NAMES[task]}.**"]
    for pool, tasks in found["pools"].items():
        result = tasks[task]
        lines.append(
            f"Embedding of the {POOLS[pool]}: of {result['n_features']} features "
            f"{verdicts_told(result)}; the mean change of R2 is {change(result)}, that of "
            "the median feature in patients whom fine-tuning did not see "
            f"{signed(result['median']['delta_r2_unexposed'])}."
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
                "of these patients; of another draw of them it says nothing."
            )
    lines += classes_beyond_zero(found, task)
    lines.append(f"The tool itself on what these patients can show, {can_show(found, task)}")
    return " ".join(lines)


def classes_beyond_zero(found: Found, task: str) -> list[str]:
    """Feature classes whose own interval excludes zero, beside the same of the control."""
    lines = []
    for pool, tasks in found["pools"].items():
        control = {named(each): each for each in tasks.get("permuted", {}).get("groups", ())}
        told = [
            f"{named(each)} {change(each)}"
            + (f" (permuted labels {change(control[named(each)])})" if control else "")
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


def can_show(found: Found, task: str) -> str:
    """The doctor's sentence on each embedding."""
    return " ".join(
        f'embedding of the {POOLS[pool]}: "{tasks[task]["doctor"]}"'
        for pool, tasks in found["pools"].items()
    )


def verdicts_told(result: Found) -> str:
    """How many features were called what."""
    return ", ".join(f"{result['verdicts'][name] or 'none'} {name}" for name in CALLED)


def meaning(found: Found, task: str) -> str:
    """What the verdicts come to, in words."""
    results = [tasks[task] for tasks in found["pools"].values()]
    lost, gained, recoded = (sum(r["verdicts"][name] for r in results) for name in CALLED)
    score = "; ".join(seeds_of(found, task))
    lines = []
    if not lost and not gained:
        lines.append(
            f"So an encoder that has learnt its task ({score}) is not shown to hold more, or less, "
            "of any of these features than before: what it uses is not one of them, was there "
            "already, or changed by less than these patients can show."
        )
    if note := head_alone(found, task):
        lines.append(note)
    if recoded:
        lines.append(
            "Recoded means that the reader which was trained before fine-tuning finds the feature "
            "less well, mostly because the embedding moved and not because it holds less."
        )
    return " ".join(lines)


def head_alone(found: Found, task: str) -> str:
    """How a head on the frozen encoder does beside fine-tuning, where that was trained."""
    frozen, tuned = runs_of(found, "frozen"), runs_of(found, task)
    if not frozen:
        return ""
    key = next(name for name in SCORES if name in frozen[0]["test"])
    if key not in tuned[0]["test"]:
        return ""
    alone, seeds = frozen[0]["test"][key], [run["test"][key] for run in tuned]
    where = "within the range of" if min(seeds) <= alone <= max(seeds) else "outside the range of"
    return (
        f"A head on the frozen encoder reaches {SCORES[key]} {alone:.2f}, {where} the fine-tuned "
        "ones."
    )


def controls(found: Found) -> str:
    """What the controls say."""
    lines = ["**Controls.**"]
    for pool, tasks in found["pools"].items():
        if frozen := tasks.get("frozen"):
            calls = called_count(frozen)
            lines.append(
                f"Frozen encoder, {POOLS[pool]}: {calls} of {frozen['n_features']} features called"
                + (", as it must be." if calls == 0 else ", which is an error of the method.")
            )
        if permuted := tasks.get("permuted"):
            calls, held = called_count(permuted), permuted["withheld"].get("other seeds", 0)
            told = f", {held} held back by other seeds" if held else ""
            lines.append(
                f"Permuted labels, {POOLS[pool]}: {verdicts_told(permuted)}{told}, mean change "
                f"{change(permuted)}. "
                + (
                    "Training itself, on labels that mean nothing, moves the embedding: a change "
                    "is the task's only as far as it goes beyond this."
                    if calls or (permuted["delta_r2_low"] or 0) > 0 or shows_loss(permuted)
                    else "Training on labels that mean nothing changed nothing that is shown."
                )
            )
    if there(found, "permuted"):
        last = max(run["embedded_epoch"] for run in runs_of(found, "permuted"))
        first = next(name for name in RUNS if name in next(iter(found["pools"].values())))
        best = ", ".join(str(run["embedded_epoch"]) for run in runs_of(found, first))
        lines.append(
            f"The control of permuted labels is taken after its last epoch ({last}), the task at "
            f"the epoch that validation chose ({best}): it shows what such training can do, not "
            "what a user would get."
        )
    else:
        lines.append(
            "A control of permuted labels has not been trained: how much of a change is that of "
            "any training on these pictures cannot be told."
        )
    return " ".join(lines)


def shows_loss(result: Found) -> bool:
    return (result["delta_r2_high"] or 0) < 0


def called_count(result: Found) -> int:
    return sum(result["verdicts"][name] for name in CALLED)


def there(found: Found, task: str) -> bool:
    return any(task in tasks for tasks in found["pools"].values())


def caption(found: Found) -> str:
    """What the picture of a study shows."""
    first = next(name for name in NAMES if name in next(iter(found["pools"].values())))
    return (
        f"*{found['cohort']['rows']} cases in 5 folds, those of fine-tuning among them. Change of "
        "R2, mean over the features of a class: of the first seed with its 95% interval over "
        "patients, cross: mean of the seeds. Gray: changes below 0.04, which are not called. Right "
        f"of a frame: median R2 before and after, {NAMES[first]}.*"
    )


def paper_beside(found: Found, task: str) -> str:
    """What the paper's own analysis says beside the verdicts, and where they disagree."""
    paper = found["paper"]
    real, result = paper["tasks"][task], found["pools"][paper["pool"]][task]
    n = runs_of(found, task)[0]["test"]["n"]
    lines = [
        f"**The paper's own analysis** (single split, embedding of the {POOLS[paper['pool']]}, a "
        f"width that fits the patients, four pairs of penalties), {NAMES[task]}. It reads the "
        f"change of importance: up in {real['importance_up']} and down in "
        f"{real['importance_down']} of {real['n_features']} features (95% intervals), median "
        f"{signed(real['delta_importance_median'])}. Of these {real['moved_and_called'] or 'none'} "
        "are lost or gained by the verdicts. Its sign is opposite to that of the cross-validated "
        f"change of R2 in {real['opposite_signs']} of {real['n_features']} features, and in "
        f"{real['readable_opposite']} of the {real['readable']} that are not absent."
    ]
    lines.append(
        f"Its R2 on {n} test cases goes from {signed(real['r2_pre_median'], 2)} to "
        f"{signed(real['r2_ft_median'], 2)} in the median. {groups_beyond_zero(real)}"
    )
    if real["r2_groups"]:
        lines.append(
            "That R2 reads both embeddings through a layer trained on the one before; the verdicts "
            "train a reader for each. A loss to the first alone is what they call recoded: "
            f"{result['verdicts']['recoded'] or 'no'} features here."
        )
    if min(real["r2_pre_median"], real["r2_ft_median"]) < 0:
        lines.append(
            "An R2 below zero is that of a reader worse than the mean of the patients: down there "
            "it tells of the reader's noise, not of information."
        )
    if control := paper["tasks"].get("permuted"):
        called = found["pools"][paper["pool"]]["permuted"]["verdicts"]
        lines.append(
            "With permuted labels, which can teach nothing true, importance moves in "
            f"{control['importance_up'] + control['importance_down']} of {control['n_features']} "
            f"features, median {signed(control['delta_importance_median'])}, its sign is opposite "
            f"in {control['opposite_signs']}, and {called['lost'] + called['gained'] or 'none'} "
            "are called lost or gained."
        )
    lines.append(
        "Where the two disagree, these patients do not decide who is right; "
        "[experiments with a known answer](importance.md), in which the sign of importance turns "
        "over while no information changes, do."
    )
    return " ".join(lines)


def groups_beyond_zero(scores: Found) -> str:
    """Groups of features whose R2 changed beyond its interval in the paper's analysis."""
    told = [
        f"{each['group']}, {each['roi']} {signed(each['value'])} "
        f"[{signed(each['low'])}, {signed(each['high'])}]"
        for each in scores["r2_groups"]
    ]
    return (
        f"Of {scores['r2_groups_seen']} groups of features the interval of this change excludes "
        f"zero for {len(told) or 'none'}{': ' if told else ''}{'; '.join(told)}."
    )
