"""From images and embeddings to verdicts, by the package's own jobs, a run folder per pool.

Radiomics of all patients, perturbed versions of some of them, then for each pool of the embeddings
the main job twice: as it is, and as the paper has it (``--mode paper``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.real.cohorts import subset
from benchmarks.real.jobs import job
from lens.files import write_arrays, write_table
from lens.settings import default_width

VERSIONS = 4
"""Perturbed versions of a patient."""


GRID = ("--l1", "0", "1e-6", "--l2", "1e-4", "1e-3")
"""Penalties of the shared MLP: four of the 24 pairs, where a study has a dozen runs."""

REPEATS = 1
"""Of the five folds, for the same reason."""


@dataclass(frozen=True)
class Study:
    """What is judged, and how.

    Attributes:
        name: of the study, and of its files.
        folder: of everything that is made; ``cohort.csv`` is there.
        parameters: file of PyRadiomics.
        pools: of the embeddings.
        tasks: name -> encoders, the first of which is judged and the others are its retraining.
        paper: the pool and the tasks that the paper's analysis is made of.
        images: flags of the jobs that read images.
        adjust: columns of the manifest, to adjust for.
        perturbed: patients of whom perturbed versions are made.
        doctor: form of the doctor.
    """

    name: str
    folder: Path
    parameters: Path
    pools: Sequence[str]
    tasks: Mapping[str, Sequence[str]]
    paper: tuple[str, Sequence[str]]
    images: Sequence[str] = ()
    adjust: Sequence[str] = ()
    perturbed: int = 100
    doctor: str = "short"

    @property
    def cohort(self) -> Path:
        """The manifest."""
        return self.folder / "cohort.csv"

    @property
    def features(self) -> Path:
        """The radiomics table."""
        return self.folder / "features" / "R.parquet"

    @property
    def ceilings(self) -> Path:
        """How well each feature repeats."""
        return self.folder / "perturbed" / "R-repeatability.csv"

    def run(self, pool: str, task: str, *, paper: bool = False) -> Path:
        """The run folder of a task in a pool."""
        return self.folder / "runs" / f"{pool}-{task}{'-paper' if paper else ''}"

    def results(self, pool: str, task: str, *, paper: bool = False) -> Path:
        """The task's tables in its run folder."""
        return self.run(pool, task, paper=paper) / task


def measure(study: Study) -> None:
    """Radiomics of all patients, and how well each feature repeats in some of them."""
    images = ("--parameters", study.parameters, *study.images)
    job("radiomics", "--cohort", study.cohort, *images, "--out", study.features)
    some = study.folder / "some.csv"
    subset(study.cohort, some, study.perturbed)
    out = study.folder / "perturbed" / "R.parquet"
    job("radiomics", "--cohort", some, *images, "--perturb", VERSIONS, "--out", out)


def judge(study: Study, embeddings: Path) -> None:
    """Verdicts for each pool and task, and the paper's analysis for some.

    A task of which there is no encoder yet is passed over, and the frozen encoder is judged in one
    pool. Tasks begin from the encoder ``pre``, or from ``pre-<task>`` where there is one.

    Args:
        study: measured.
        embeddings: folder of ``<name>-<pool>.npz``, with an array per encoder in the manifest's
            order.
    """
    cohort = pd.read_csv(study.cohort, dtype={"patient_id": str, "study_id": str})
    split = study.folder / "split.csv"
    write_table(cohort[["patient_id", "split"]].drop_duplicates(), split)
    around = ["--exposure", split, "--repeatability", study.ceilings, "--doctor", study.doctor]
    if study.adjust:
        around += ["--labels", study.cohort, "--adjust", *study.adjust]
    for pool in study.pools:
        tables = _tables(study, cohort, embeddings / f"{study.name}-{pool}.npz", pool)
        common = ["--radiomics", study.features, "--split", split, *GRID]
        for task, names in study.tasks.items():
            there = [tables[name] for name in names if name in tables]
            if not there or (task == "frozen" and pool != study.paper[0]):
                continue
            pre = tables.get(f"pre-{task}", tables["pre"])
            words = ["--pre", pre, *common, "--ft", f"{task}={there[0]}"]
            if pool == study.paper[0] and task in study.paper[1]:
                # Its own 128 units would follow the noise of so few patients.
                width = default_width(int((cohort["split"] != "test").sum()))
                alone = ("--mode", "paper", "--hidden", width, "--folds", 0, "--doctor", "off")
                job("sweep", *words, *alone, "--out", study.run(pool, task, paper=True))
            # Two encoders are too few for a band over the seeds.
            for other in there[1:] if len(there) > 2 else ():
                words += ["--retrained", f"{task}={other}"]
            words += ["--repeats", REPEATS]
            job("sweep", *words, "--identical", *around, "--out", study.run(pool, task))


def _tables(study: Study, cohort: pd.DataFrame, made: Path, pool: str) -> dict[str, Path]:
    """A file of embeddings per encoder, with ids, as users have them."""
    ids = {
        name: cohort[name].to_numpy(str) for name in ("patient_id", "study_id") if name in cohort
    }
    paths = {}
    for name, rows in np.load(made).items():
        paths[name] = study.folder / "embeddings" / pool / f"{name}.npz"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        write_arrays(paths[name], embeddings=rows, **ids)
    return paths
