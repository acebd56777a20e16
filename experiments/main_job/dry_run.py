"""``--dry-run`` of the main job: its stages, which of them are done, and what the others need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from experiments.common.anonymous import private_cache
from experiments.common.check_first import check_parameters
from experiments.common.outlook import UNKNOWN, Outlook, Step, amount
from experiments.common.radiomics_outlook import extraction_step
from experiments.common.rehearsal import Rehearsal
from experiments.main_job.analysis import PartStages, Prepared, parts_of, prepare
from experiments.main_job.config import Config
from experiments.main_job.images import from_cohort, with_rois
from experiments.main_job.inputs import Inputs, from_tables
from experiments.main_job.plan import Plan
from experiments.main_job.sizes import (
    Sizes,
    image_needs,
    sizes_of_images,
    sizes_of_phantoms,
    sizes_of_study,
)
from lens import stages
from lens.anonymise import OPEN, Names
from lens.cohort import Cohort, parse_labels
from lens.radiomics.parts import Reading
from lens.verdicts.held_out import estimate_seconds

SLOW = ("phantoms", "pre-train", "fine-tune", "radiomics", "embed")
"""First words of the stages that make tables of images."""


def outlook(plan: Plan, cohort: Cohort | None, names: Names = OPEN) -> Outlook:
    """What a run would do and need; reads, and writes nothing.

    Args:
        plan: of the run, checked.
        cohort: of `experiments.main_job.check_first.check_first`.
        names: of the patients, as the run would write them.
    """
    record = Rehearsal(plan.out)
    inputs = _rehearse_inputs(plan, record, names)
    prepared = _rehearse_analysis(plan, inputs, record) if inputs else []
    needs: tuple[list[str], dict[str, float]] = ([], {})
    if prepared:
        sizes = max((sizes_of_study(study) for study, _ in prepared), key=lambda s: s.in_memory)
        largest = f", the largest of {len(prepared)} parts" if prepared[1:] else ""
        described = f"{sizes}{largest}"
    else:
        sizes = sizes_of_phantoms(plan) if cohort is None else sizes_of_images(plan, cohort)
        described = f"{sizes}, before any patient is set aside or column left out"
        needs = image_needs(plan, cohort, sizes)
    memory, disk = needs
    steps = record.steps if cohort is None else _with_cases(plan, cohort, record.steps, names)
    return Outlook(
        steps=[*steps, Step("report", note="drawn anew in every run")],
        sizes=[described],
        out=plan.out,
        time=_times(plan, record.steps, sizes, prepared),
        memory=[*memory, _analysis_memory(plan.config, sizes)],
        disk=disk | {"tables and figures": sizes.in_memory},
    )


def _with_cases(plan: Plan, cohort: Cohort, steps: Sequence[Step], names: Names) -> list[Step]:
    """The steps, with the number of cases that an extraction cut off left."""
    flags = plan.config.images
    cache = private_cache() if names.hides else plan.out / "radiomics-cache"

    def detailed(step: Step) -> Step:
        if step.name != "radiomics" or step.reused:
            return step
        labels = parse_labels(flags.label)
        chosen = names.cohort(with_rois(cohort, plan.config.roi))
        parameters = check_parameters(flags.parameters, chosen, labels)
        reading = Reading(plan.spacing, labels)
        found = extraction_step(step.name, chosen, parameters, cache, reading)
        return dataclasses.replace(step, note=found.note)

    return [detailed(step) for step in steps]


def _rehearse_inputs(plan: Plan, record: Rehearsal, names: Names) -> Inputs | None:
    """The tables that the analysis starts from, whether they are there or not."""
    if plan.config.tables.pre:
        return from_tables(plan, names)
    if plan.config.images.cohort is not None:
        return from_cohort(plan, record, names)
    from experiments.main_job.phantoms import are_written, from_phantoms, stage_names

    if are_written(plan):
        record.steps.append(Step("phantoms", reused=True))
        return from_phantoms(plan, record)
    for name in stage_names(plan):
        record.to_do(name)
    return None


def _rehearse_analysis(plan: Plan, inputs: Inputs, record: Rehearsal) -> list[Prepared]:
    """The joined tables of every part; none where some are still to be made."""
    doctor = plan.config.context.doctor
    parts = parts_of(plan, inputs, plan.out).values()
    if not record.all_done or not all(path.exists() for path in inputs.files()):
        for name in (name for part in parts for name in part.stage_names(plan.out, doctor)):
            record.to_do(name)
        return []
    prepared = []
    for part in parts:
        study, context = prepare(plan, inputs, part)
        settings = stages.begin(study, plan.settings)
        PartStages(settings, study, context, part, record, doctor).rehearse(record)
        prepared.append(Prepared(study, context))
    return prepared


def _times(
    plan: Plan, steps: Sequence[Step], sizes: Sizes, prepared: Sequence[Prepared]
) -> list[str]:
    """Of the cross-validation, from one fit timed here; of the others what is known."""
    to_do = [step.name for step in steps if not step.reused]
    if not to_do:
        return ["all is done; to read it and draw the report takes seconds"]
    told = []
    if slow := [name for name in to_do if name.startswith(SLOW)]:
        told.append(f"{', '.join(slow)}: {UNKNOWN}")
    if any(name.startswith("cross-validation") for name in to_do):
        seconds, fits = _seconds_of_folds(plan, sizes, prepared)
        timed = "" if prepared else ", timed on random tables of that size"
        told.append(f"cross-validation: {fits} fits, about {stages.duration(seconds)}{timed}")
    if others := [name for name in to_do if not name.startswith((*SLOW, "cross-validation"))]:
        told.append(f"{', '.join(others)}: {UNKNOWN}")
    return told


def _seconds_of_folds(plan: Plan, sizes: Sizes, prepared: Sequence[Prepared]) -> tuple[float, int]:
    """Seconds and fits of the cross-validation of all parts."""
    settings, total, fits = plan.settings, 0.0, 0
    tables = [
        (study.x_pre, study.observed(), len(study.x_ft), stages.study_folds(study, settings))
        for study, _ in prepared
    ] or [(*sizes.made_up(), sizes.tasks, sizes.folds(settings))]
    for x, r, tasks, folds in tables:
        total += estimate_seconds(x, tasks, r, folds, settings.fitted_to(len(x)).mlp)
        fits += len(folds) * (1 + tasks)
    return total, fits


def _analysis_memory(config: Config, sizes: Sizes) -> str:
    bound = config.analysis.bound / 1e9
    scores = f"scores and bootstrap draws up to {bound:g} GB (--memory)"
    return f"analysis: tables {amount(sizes.in_memory)}, {scores}; fits come on top, not known"
