"""Can this cohort show anything? Plants known changes in your embeddings and counts what is found.

python -m experiments.doctor --pre X.npz --ft cls=Y.npz --radiomics R.parquet --out DIR
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from experiments.common.anonymous import Hidden
from experiments.common.check_first import check_output
from experiments.common.cli import DONE, alone, list_set_aside, run
from lens.lock import of_folder
from lens.settings import (
    DEFAULTS,
    PlantedSettings,
    PoolTokens,
    Scores,
    SweepConfig,
    changed,
    flat,
)

if TYPE_CHECKING:
    from experiments.common.outlook import Outlook
    from lens.anonymise import Names
    from lens.study.study import Study
    from lens.verdicts.doctor import Findings
    from lens.verdicts.doctor import Settings as Planting
    from lens.verdicts.folds import Fold

Pairs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Config:
    """False alarms, power by effect size and the smallest loss of R2 that this cohort shows.

    Changes are planted in the embeddings before fine-tuning, whose truth is then known, and go
    through the folds, probes and tests of the main job. Writes OUT/doctor.json, doctor.csv (a row
    per planted change) and doctor.png.
    """

    pre: Path
    """Embeddings before fine-tuning: .npz (patient_id, embeddings), .parquet or .csv."""
    radiomics: Path
    """Radiomics table, .parquet or .csv."""
    ft: Pairs = ()
    """TASK=FILE, embeddings after fine-tuning: tells the smallest change that would show there."""
    roi: tuple[str, ...] = ()
    """Regions of interest (gland, lesion); default all."""
    modality: tuple[str, ...] = ()
    """Modalities (t2, dwi, adc); default all."""
    folds: int = 5
    """Parts of the cross-validation by patient."""
    repeats: int = 1
    """Repeats of the cross-validation, each with other parts."""
    scores: Scores = "normal"
    """What is judged: normal scores of the features, or their own (raw) values."""
    planted: PlantedSettings = field(default_factory=PlantedSettings)
    """What is planted, and how it is judged."""
    mlp: bool = False
    """Also train the MLP before fine-tuning, so that a rotation shows as recoded (many
    times slower)."""
    hidden: int = 32
    """Hidden units of the MLP."""
    epochs: int = 200
    """Passes over the train patients for the MLP."""
    seed: int = 0
    """Seed of folds, changes and tests."""
    allow_partial: bool = False
    """Go on where fewer than half of the patients are in all tables; the others are set aside."""
    any_columns: bool = False
    """Take every column of a table of embeddings as a dimension, also one whose name breaks the run
    of names (a label, say)."""
    id_column: str | None = None
    """Column of patients in tables that do not call it patient_id, such as Patient."""
    pool_tokens: PoolTokens | None = None
    """How embeddings of tokens (patients, tokens, dimensions) become one per patient."""
    out: Path = Path("runs/doctor")
    """Folder for the results."""
    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""
    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table and message."""
    salt: Path | None = None
    """File of the salt (16 characters or more), for --anonymise; by default one of your own is
    drawn once and kept in ~/.config/radiomic-lens/salt. The same salt gives the same hashes."""


def hidden(config: Config) -> Hidden:
    """What is asked to be hidden."""
    after = [entry.rpartition("=") for entry in config.ft]
    inputs = {"--pre": config.pre, "--radiomics": config.radiomics}
    inputs |= {f"--ft {task}": Path(path) for task, _, path in after}
    return Hidden(config.anonymise, config.salt, config.out, inputs, config.id_column)


@alone(lambda config: of_folder(config.out), hidden)
def job(config: Config, names: Names) -> int:
    """The steps of the job, under the names that may be written; gives the exit code."""
    from experiments.common.flags import as_flag, pairs
    from lens.errors import InputError
    from lens.report.writing import write_diagnosis
    from lens.study.load import load_study
    from lens.verdicts.doctor_summary import Diagnosis, spectra_of, summary, table

    if problem := _problem(config):
        raise InputError(as_flag(problem))
    check_output(config.out, "--out", folder=True)
    start = time.perf_counter()
    ft = pairs(config.ft, "--ft")
    # A study needs a fine-tuned side; without one the embeddings stand in for themselves.
    study = load_study(
        config.pre,
        ft or {"none": config.pre},
        config.radiomics,
        rois=config.roi,
        modalities=config.modality,
        seed=config.seed,
        allow_partial=config.allow_partial,
        any_columns=config.any_columns,
        id_column=config.id_column,
        pool_tokens=config.pool_tokens,
        names=names,
    )
    plan = _plan(config, study, list(ft))
    if config.dry_run:
        print(_outlook(config, study, plan))
        return DONE
    findings = _examine(config, study, list(ft), plan)
    flags = {name: names.setting(value) for name, value in flat(config).items()}
    record = flags | {"seconds": round(time.perf_counter() - start, 1)}
    x_ft = {task: study.x_ft[task] for task in ft}
    content = summary(findings, spectra_of(study.x_pre, x_ft))
    facts = {"notes": study.notes, "config": record}
    write_diagnosis(config.out, Diagnosis(content, findings), facts)
    print(table(content).to_string(index=False, header=False, justify="left"))
    print(content["sentence"])
    print(f"written: {config.out / 'doctor.json'}, doctor.csv, doctor-features.csv, doctor.png")
    return list_set_aside(names.errors(study.set_aside), config.out / "failures.csv")


class _Plan(NamedTuple):
    """What is planted, and in which folds.

    Attributes:
        folds: of the cross-validation.
        settings: what is planted, and how it is judged.
        clusters: of near copies among the features.
        fits: of all folds and changes.
    """

    folds: tuple[Fold, ...]
    settings: Planting
    clusters: int
    fits: int


def _plan(config: Config, study: Study, tasks: list[str]) -> _Plan:
    """The plan; refuses folds that the patients are too few for."""
    from lens.errors import InputError
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.doctor import Settings, count_fits
    from lens.verdicts.folds import make_folds

    groups = study.ids["patient_id"].to_numpy(str)
    try:
        folds = make_folds(groups, config.folds, config.repeats, config.seed)
    except ValueError as error:
        raise InputError(f"--folds {config.folds}: {error}") from error
    planted = Settings(**vars(config.planted), seed=config.seed, scores=config.scores)
    clusters = len(cluster_features(study.r).medoids)
    return _Plan(folds, planted, clusters, count_fits(len(tasks), clusters, folds, planted))


def _sizes(config: Config, study: Study, plan: _Plan) -> str:
    return (
        f"{study.ids['patient_id'].nunique()} patients, {study.x_pre.shape[1]} dimensions, "
        f"{study.r.shape[1]} features in {plan.clusters} clusters; changes are planted in "
        f"{config.pre}"
    )


def _outlook(config: Config, study: Study, plan: _Plan) -> Outlook:
    """The fits and, from one of them timed here, how long they take."""
    from experiments.common.outlook import Outlook, Step, amount
    from lens.stages import duration
    from lens.verdicts.held_out import estimate_seconds

    one = estimate_seconds(study.x_pre, 0, study.observed(), plan.folds[:1], _mlp(config))
    tables = study.r.nbytes * 2 + study.x_pre.nbytes * (1 + len(study.x_ft))
    return Outlook(
        steps=[Step("planted changes", note=f"{plan.fits} fits")],
        sizes=[_sizes(config, study, plan)],
        out=config.out,
        time=[
            f"at most about {duration(one * plan.fits)}, from one fit of all features timed here"
        ],
        memory=[f"tables {amount(tables)}; fits come on top, not known"],
    )


def _examine(config: Config, study: Study, tasks: list[str], plan: _Plan) -> Findings:
    """The findings on a study, with a bar over the fits."""
    from lens.progress import tqdm_bar
    from lens.verdicts.doctor import examine

    print(_sizes(config, study, plan))
    with tqdm_bar(plan.fits, "planted changes", "fit") as advance:
        return examine(
            study.x_pre,
            {task: study.x_ft[task] for task in tasks},
            study.observed(),
            study.features["column"].tolist(),
            study.ids["patient_id"].to_numpy(str),
            plan.folds,
            plan.settings,
            _mlp(config),
            on_fit=advance,
        )


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    mlp = {"hidden": config.hidden, "epochs": config.epochs}
    counts = {"folds": config.folds, "repeats": config.repeats, "seed": config.seed}
    settings = changed(DEFAULTS, **mlp, **counts, scores=config.scores)
    if config.folds == 0:
        return "folds is 0: the doctor needs folds, at least 2"
    return settings.problem() or config.planted.problem()


def _mlp(config: Config) -> SweepConfig | None:
    """Settings of the MLP with a small grid of penalties, or none."""
    if not config.mlp:
        return None
    grid = SweepConfig(l1=(0.0, 1e-6, 1e-5), l2=(0.0, 1e-4))
    return dataclasses.replace(grid, hidden=config.hidden, epochs=config.epochs)


if __name__ == "__main__":
    run(Config, job, description=__doc__)
