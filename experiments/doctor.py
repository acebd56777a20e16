"""Can this cohort show anything? Plants known changes in your embeddings and counts what is found.

python -m experiments.doctor --pre X.npz --ft cls=Y.npz --radiomics R.parquet --out DIR
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.common.anonymous import anonymously
from experiments.common.cli import list_set_aside, run
from lens.settings import PlantedSettings, Scores, SweepConfig, flat

if TYPE_CHECKING:
    from lens.anonymise import Names
    from lens.study.study import Study
    from lens.verdicts.doctor import Findings

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
    out: Path = Path("runs/doctor")
    """Folder for the results."""
    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table and message."""
    salt: Path | None = None
    """File of the salt (16 characters or more), for --anonymise; by default one of your own is
    drawn once and kept in ~/.config/radiomic-lens/salt. The same salt gives the same hashes."""


def job(config: Config) -> int:
    """Runs the job and gives the exit code."""
    from experiments.common.flags import pairs

    after = {f"--ft {task}": path for task, path in pairs(config.ft, "--ft").items()}
    with anonymously(
        config.anonymise,
        config.salt,
        out=config.out,
        inputs={"--pre": config.pre, "--radiomics": config.radiomics, **after},
    ) as names:
        return _diagnose(config, names)


def _diagnose(config: Config, names: Names) -> int:
    """The steps of the job; what they write calls patients by `names`."""
    from experiments.common.flags import pairs
    from lens.errors import InputError
    from lens.report.results import write_diagnosis
    from lens.study.load import load_study
    from lens.verdicts.doctor_summary import Diagnosis, spectra_of, summary, table

    if problem := _problem(config):
        raise InputError(problem)
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
        names=names,
    )
    findings = _examine(config, study, list(ft))
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


def _examine(config: Config, study: Study, tasks: list[str]) -> Findings:
    """The findings on a study, with a bar over the fits."""
    from lens.errors import InputError
    from lens.progress import tqdm_bar
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.doctor import Settings, count_fits, examine
    from lens.verdicts.folds import make_folds

    groups = study.ids["patient_id"].to_numpy(str)
    try:
        folds = make_folds(groups, config.folds, config.repeats, config.seed)
    except ValueError as error:
        raise InputError(f"--folds {config.folds}: {error}") from error
    clusters = len(cluster_features(study.r).medoids)
    print(
        f"{len(set(groups))} patients, {study.x_pre.shape[1]} dimensions, {study.r.shape[1]} "
        f"features in {clusters} clusters; changes are planted in {config.pre}"
    )
    planted = Settings(**vars(config.planted), seed=config.seed, scores=config.scores)
    total = count_fits(len(tasks), clusters, folds, planted)
    with tqdm_bar(total, "planted changes", "fit") as advance:
        return examine(
            study.x_pre,
            {task: study.x_ft[task] for task in tasks},
            study.observed(),
            study.features["column"].tolist(),
            groups,
            folds,
            planted,
            _mlp(config),
            on_fit=advance,
        )


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    planted, rules = config.planted, config.planted.rules
    counts = (planted.clusters, planted.draws, planted.maps, rules.flips)
    if min(*counts, config.hidden, config.epochs) < 1:
        return "--clusters, --draws, --maps, --flips, --hidden and --epochs must be positive"
    if not planted.doses or not all(0 < dose <= 1 for dose in planted.doses):
        return "--doses must be above 0 and at most 1"
    if not 0 < rules.level < 1 or not planted.noise > 0 or not rules.margin >= 0:
        return "--level must be between 0 and 1, --noise positive, --margin not negative"
    return ""


def _mlp(config: Config) -> SweepConfig | None:
    """Settings of the MLP with a small grid of penalties, or none."""
    if not config.mlp:
        return None
    grid = SweepConfig(l1=(0.0, 1e-6, 1e-5), l2=(0.0, 1e-4))
    return dataclasses.replace(grid, hidden=config.hidden, epochs=config.epochs)


if __name__ == "__main__":
    run(Config, job, description=__doc__)
