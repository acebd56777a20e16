"""Can this cohort show anything? Plants known changes in your embeddings and counts what is found.

python -m experiments.doctor --pre X.npz --ft cls=Y.npz --radiomics R.parquet --out DIR
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.common.cli import list_set_aside, run

Pairs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


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
    level: float = 0.05
    """Family-wise level of the tests."""
    margin: float = 0.01
    """Smallest change of R2 that is called lost or gained."""
    flips: int = 2000
    """Sign flips of each test."""
    clusters: int = 6
    """Clusters of features to erase, one after another."""
    doses: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Shares of a cluster's subspace to take out."""
    draws: int = 4
    """Rotations, gains and noises to draw, each."""
    noise: float = 0.3
    """Deviation of the noise that each side of an erasure has of its own, over the channel's."""
    mlp: bool = False
    """Also train the MLP before fine-tuning, so that a rotation shows as moved (many times
    slower)."""
    hidden: int = 32
    """Hidden units of the MLP."""
    epochs: int = 200
    """Passes over the train patients for the MLP."""
    seed: int = 0
    """Seed of folds, changes and tests."""
    out: Path = Path("runs/doctor")
    """Folder for the results."""


def job(config: Config) -> int:
    """Runs the job and gives the exit code."""
    from tqdm import tqdm

    from experiments.main_job.plan import pairs
    from lens.errors import InputError
    from lens.report.power import write_findings
    from lens.settings import Rules
    from lens.study.load import load_study
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.doctor import Settings, count_fits, examine, table
    from lens.verdicts.folds import make_folds

    _check(config)
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
    )
    groups = study.ids["patient_id"].to_numpy(str)
    try:
        folds = make_folds(groups, config.folds, config.repeats, config.seed)
    except ValueError as error:
        raise InputError(f"--folds {config.folds}: {error}") from error
    settings = Settings(
        rules=Rules(config.level, config.margin, config.flips, config.seed),
        doses=config.doses,
        clusters=config.clusters,
        draws=config.draws,
        noise=config.noise,
        seed=config.seed,
    )
    clusters = len(cluster_features(study.r).medoids)
    print(
        f"{len(set(groups))} patients, {study.x_pre.shape[1]} dimensions, {study.r.shape[1]} "
        f"features in {clusters} clusters; changes are planted in {config.pre}"
    )
    with tqdm(
        total=count_fits(len(ft), clusters, folds, settings), desc="planted changes", unit="fit"
    ) as bar:
        findings = examine(
            study.x_pre,
            {task: study.x_ft[task] for task in ft},
            study.r,
            study.features["column"].tolist(),
            groups,
            folds,
            settings,
            _mlp(config),
            on_fit=bar.update,
        )
    record = dataclasses.asdict(config) | {"seconds": round(time.perf_counter() - start, 1)}
    content = write_findings(config.out, findings, {"notes": study.notes, "config": record})
    print(table(content).to_string(index=False, header=False, justify="left"))
    print(content["sentence"])
    print(f"written: {config.out / 'doctor.json'}, doctor.csv, doctor-features.csv, doctor.png")
    return list_set_aside(study.set_aside, config.out / "failures.csv")


def _check(config: Config) -> None:
    from lens.errors import InputError

    if min(config.clusters, config.draws, config.flips, config.hidden, config.epochs) < 1:
        raise InputError("--clusters, --draws, --flips, --hidden and --epochs must be positive")
    if not config.doses or not all(0 < dose <= 1 for dose in config.doses):
        raise InputError("--doses must be above 0 and at most 1")
    if not 0 < config.level < 1 or config.noise <= 0 or config.margin < 0:
        raise InputError("--level must be between 0 and 1, --noise positive, --margin not negative")


def _mlp(config: Config):
    """Settings of the MLP with a small grid of penalties, or none."""
    if not config.mlp:
        return None
    from lens.settings import SweepConfig

    return SweepConfig(
        hidden=config.hidden,
        l1=(0.0, 1e-6, 1e-5),
        l2=(0.0, 1e-4),
        epochs=config.epochs,
        seed=config.seed,
    )


if __name__ == "__main__":
    run(Config, job, description=__doc__)
