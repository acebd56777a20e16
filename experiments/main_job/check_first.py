"""What the main job refuses before its first slow stage: whatever any later stage would refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from encoders.channels import check_channels
from encoders.source_names import check_output_name, is_called
from experiments.common.check_first import (
    check_encoder,
    check_output,
    check_parameters,
    check_regions,
)
from experiments.common.cohorts import read_cohort
from experiments.common.flags import common_and_own, pairs
from experiments.main_job.embedded import ROIS
from experiments.main_job.images import (
    check_different_encoders,
    cohort_split,
    embedding_settings,
    of_layers,
    with_channels,
    with_rois,
)
from experiments.main_job.inputs import check_inputs, table_tasks
from experiments.main_job.layers import check_names as check_layer_names
from experiments.main_job.layers import layer_files
from experiments.main_job.plan import Plan
from lens.cohort import Cohort, parse_labels
from lens.context import read_ceiling, read_exposure, read_labels
from lens.errors import InputError
from lens.files import read_table
from lens.names import check_names
from lens.stages import folds_of
from lens.study.layers import layer_order
from lens.study.load import MIN_PATIENTS
from lens.study.split import read_split
from lens.study.tables import ID_COLUMNS, read_radiomics


def check_first(plan: Plan) -> Cohort | None:
    """Reads what is read fast, and refuses what could not be used later.

    Args:
        plan: of the run.

    Returns:
        The cohort, where images are brought; tables are joined, and so checked, by the analysis.

    Raises:
        InputError: a file, checkpoint, column, region, modality or flag cannot be used.
    """
    check_output(plan.out, "--out", folder=True)
    check_inputs(plan)
    table_tasks(plan.config.tables)
    pairs(plan.config.images.encoder_ft, "--encoder-ft")
    _check_files(plan)
    _check_layers(plan)
    if plan.config.tables.pre:
        return None
    images = plan.config.images
    if images.cohort is None:
        _check_phantoms(plan)
        _check_context(plan, None)
        return None
    cohort = read_cohort(images, label=images.label)
    _check_patients(plan, cohort)
    _check_names(plan, cohort)
    if plan.radiomics is None:
        analysed = with_rois(cohort, plan.config.roi)
        check_parameters(images.parameters, analysed, parse_labels(images.label))
    _check_context(plan, cohort)
    check_channels(plan.channels(cohort), cohort, "--modalities")
    _check_encoders(plan, cohort)
    return cohort


def _check_files(plan: Plan) -> None:
    for path in plan.files():
        if not path.exists():
            raise InputError(f"{path}: no such file")


def _check_layers(plan: Plan) -> None:
    """The files of all layers that flags name have the same ones."""
    flags = plan.config.layers
    if plan.config.tables.pre:
        check_layer_names(layer_files(flags, list(pairs(plan.config.tables.ft, "--ft"))))
    else:
        permuted = [Path(entry.rpartition("=")[2]) for entry in flags.layers_permuted]
        for path in (flags.layers_random, *permuted):
            if path is not None:
                layer_order(path)


def _check_patients(plan: Plan, cohort: Cohort) -> None:
    patients = [files.patient_id for files in cohort.cases]
    count = len(set(patients))
    if count < MIN_PATIENTS:
        raise InputError(
            f"{cohort.path}: {count} patient(s) can be used, at least {MIN_PATIENTS} are needed"
        )
    cohort_split(cohort, plan.settings.seed)
    folds_of(np.array(patients), plan.settings)


def _check_names(plan: Plan, cohort: Cohort) -> None:
    """Regions and modalities that flags name, against the masks and images, or the table."""
    table = plan.radiomics
    check_regions(list(parse_labels(plan.config.images.label)), cohort, "--label")
    if table is None:
        rois = list(dict.fromkeys(roi for files in cohort.cases for roi in files.masks))
        modalities = list(dict.fromkeys(name for files in cohort.cases for name in files.images))
        where = str(cohort.path)
    else:
        names = read_radiomics(table, id_column=plan.settings.id_column).columns.difference(
            list(ID_COLUMNS), sort=False
        )
        rois, modalities = ([*dict.fromkeys(name.split(".")[i] for name in names)] for i in (1, 0))
        where = str(table)
    check_names(plan.config.roi, rois, "region", f"--roi, {where}")
    for task, scope in plan.scopes.items():
        check_names(scope.rois, rois, "region", f"--scope {task}, {where}")
        check_names(scope.modalities, modalities, "modality", f"--scope {task}, {where}")
        check_names(scope.channels, plan.channels(cohort), "modality", f"--channels {task}")
        with_channels(cohort, scope.channels)


def _check_encoders(plan: Plan, cohort: Cohort) -> None:
    """All checkpoints fit the input and each other; then each is read once, values and all."""
    from encoders.cohort_embeddings import check_settings
    from encoders.sources import open_encoder

    flags = plan.config.images
    assert flags.encoder_pre is not None
    tuned = pairs(flags.encoder_ft, "--encoder-ft")
    named = {"--encoder-pre": flags.encoder_pre}
    named |= {f"--encoder-ft {task}": path for task, path in tuned.items()}
    check_output_name(flags.output, *named.values())
    settings = embedding_settings(plan, cohort)
    widths = {}
    for flag, path in named.items():
        header = check_encoder(path, flag, settings=settings, output=flags.output)
        widths[flag] = header.config.features
        try:
            check_settings(header.config, settings)
            if plan.config.layers.layers:
                check_settings(header.config, of_layers(settings))
        except InputError as error:
            raise InputError(f"{flag} {path}: {error}") from error
        if widths[flag] != widths["--encoder-pre"]:
            raise InputError(
                f"{flag} {path}: gives {widths[flag]} numbers, --encoder-pre "
                f"{flags.encoder_pre} {widths['--encoder-pre']}; fine-tuning keeps the width"
            )
    if not plan.config.tables.identical:
        check_different_encoders(flags.encoder_pre, tuned, flags.output)
    for path in dict.fromkeys(named.values()):
        if not is_called(path):
            open_encoder(path)


def _check_phantoms(plan: Plan) -> None:
    from encoders.masked import hidden_patches, patch_grid, patch_sides
    from encoders.settings import MaskingSettings
    from experiments.main_job.embedded_training import layout

    check_names(plan.config.roi, ROIS, "region", "--roi")
    if not plan.scopes:
        raise InputError(f"--roi {' '.join(plan.config.roi)}: no task of the phantoms is left")
    if plan.phantom.patients < MIN_PATIENTS:
        raise InputError(f"--phantoms {plan.phantom.patients}: at least {MIN_PATIENTS} are needed")
    ratio = MaskingSettings().ratio
    try:
        sides = patch_sides(layout(plan.phantom), plan.phantom.patch)
        hidden_patches(patch_grid(plan.shape, sides), ratio)
    except ValueError as error:
        raise InputError(f"--shape: {error}") from error
    folds_of(np.arange(plan.phantom.patients).astype(str), plan.settings)


def _check_context(plan: Plan, cohort: Cohort | None) -> None:
    """The tables around the verdicts, as far as they can be read without a study."""
    flags, tasks = plan.config.context, _tasks(plan)
    labels = flags.labels or plan.config.images.cohort
    if labels is not None and (flags.adjust or flags.site):
        ids = _ids_in(labels, cohort)
        read_labels(labels, ids, flags.adjust)
        read_labels(labels, ids, [flags.site] if flags.site else [], names=True)
    everyone, own = common_and_own(flags.exposure, tasks, "--exposure")
    for path in (everyone, *own.values()):
        if path is not None:
            read_exposure(path, _ids_in(path))
    if flags.repeatability is not None:
        table = read_table(flags.repeatability)
        names = table["column"] if "column" in table else pd.Series(dtype=str)
        read_ceiling(flags.repeatability, names)
    if (split := plan.config.tables.split) is not None:
        patients = _ids_in(split)["patient_id"].tolist()
        read_split(split, patients)
        known = {files.patient_id for files in cohort.cases} if cohort else set(patients)
        if not known & set(patients):
            assert cohort is not None
            raise InputError(
                f"{split}: has none of the patients of {cohort.path}, such as {min(known)}"
            )


def _tasks(plan: Plan) -> list[str]:
    if plan.config.images.cohort is None:
        return list(plan.scopes)
    return list(pairs(plan.config.images.encoder_ft, "--encoder-ft"))


def _ids_in(path: Path, cohort: Cohort | None = None) -> pd.DataFrame:
    """The ids that a table has, those of the cohort's patients alone where it has any.

    What is asked of other patients is told once they are known.
    """
    table = read_table(path)
    keys = [name for name in ID_COLUMNS if name in table.columns]
    if not keys:
        return pd.DataFrame({"patient_id": [""]})
    ids = table[keys].drop_duplicates()
    if cohort is None or "patient_id" not in keys:
        return ids
    shared = ids[ids["patient_id"].isin([files.patient_id for files in cohort.cases])]
    return (shared if len(shared) else ids).reset_index(drop=True)
