"""The main job: what did fine-tuning change, in radiomic features?

The embedded phantom cohort, end to end; tables of your own; images of your own:

python -m experiments.sweep

python -m experiments.sweep --pre X.npz --ft cls=Y.npz --radiomics R.parquet --out DIR

python -m experiments.sweep --cohort cohort.csv --encoder-pre A --encoder-ft cls=B --out DIR
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.common.cli import list_set_aside, run
from experiments.main_job.plan import settle

Pairs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Config:
    """What fine-tuning changed in an image encoder, in radiomic features.

    Without --pre and without --cohort the job runs on an embedded cohort of phantoms.
    """

    pre: Pairs = ()
    """Embeddings before fine-tuning: .npz (patient_id, embeddings), .parquet or .csv. TASK=FILE
    where a task starts from other ones (from T2 alone, say)."""
    ft: Pairs = ()
    """TASK=FILE, embeddings after fine-tuning; repeat the flag for several tasks."""
    retrained: Pairs = ()
    """TASK=FILE, embeddings of an encoder that was fine-tuned on a task of --ft again, from another
    seed; repeat the flag (two or more). A change then counts only beyond the spread of seeds."""
    radiomics: Path | None = None
    """Radiomics table, .parquet or .csv; with --cohort it replaces the extraction."""
    cohort: Path | None = None
    """Cohort manifest (cohort.csv) of images and masks."""
    encoder_pre: Path | None = None
    """Checkpoint of the encoder before fine-tuning (with --cohort)."""
    encoder_ft: Pairs = ()
    """TASK=CHECKPOINT of a fine-tuned encoder (with --cohort); repeat for several tasks."""
    split: Path | None = None
    """Table of patient_id, split (train, val, test). Without it: the manifest's, or 7:1:2."""
    out: Path | None = None
    """Run folder; default runs/<name of the input>."""
    mode: Literal["default", "paper"] = "default"
    """paper: its grid, its loss sums, no intercept, embeddings unscaled."""
    roi: tuple[str, ...] = ()
    """Regions of interest to analyse (gland, lesion); default all."""
    scope: Pairs = ()
    """TASK=[MODALITY.]ROI, what a task is read against where that is not --roi, as in reg=t2.gland
    or seg=lesion; names are joined by +."""
    channels: Pairs = ()
    """TASK=MODALITY, what the encoders of a task see, as in reg=t2; the other channels are zeros
    (with --cohort)."""
    hidden: int | None = None
    """Width of the projected embedding (hidden units); default 128, for the phantoms 8."""
    l1: tuple[float, ...] = ()
    """Grid of L1 penalties (unitless); default 0 to 1e-5 in six steps."""
    l2: tuple[float, ...] = ()
    """Grid of squared L2 penalties (unitless); default 0 to 1e-3 in four steps."""
    epochs: int = 200
    """Passes over the train patients for each MLP."""
    batch: int = 64
    """Patients per optimiser step."""
    seed: int = 0
    """Seed of the split, the MLPs and the bootstrap."""
    seeds: int = 1
    """MLPs per penalty pair, each from its own seed."""
    bootstraps: int = 1000
    """Bootstrap samples of the test patients for the intervals."""
    flips: int = 5000
    """Sign flips over patients for the p and q values."""
    folds: int | None = None
    """Parts of the cross-validation by patient behind the verdicts; 0 uses the split alone, in a
    fraction of the time. Default 5, 3 with --quick."""
    repeats: int | None = None
    """Repeats of the cross-validation; default 2, for the phantoms 1."""
    level: float = 0.05
    """Family-wise error rate of the verdicts."""
    margin: float = 0.01
    """Smallest change of R2 that is called lost, gained or moved."""
    labels: Path | None = None
    """Table of patient_id and label columns for --adjust and --site; default the manifest."""
    adjust: tuple[str, ...] = ()
    """Columns of --labels to adjust for, such as volume_ml: partial R2 beside the verdicts."""
    site: str | None = None
    """Column of --labels that names the site: every site is held out in turn."""
    exposure: Pairs = ()
    """FILE or TASK=FILE, patients whom fine-tuning saw, who are scored apart: patients.csv of
    experiments.finetune, or a table of patient_id, split. Default: --split."""
    doctor: bool = False
    """Also plant known changes in the embeddings before fine-tuning, and say in the report what
    this cohort can show (minutes)."""
    repeatability: Path | None = None
    """Table of column, icc (as from experiments.radiomics --perturb): the R2 that a feature's
    repeatability allows, beside the verdicts."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size x y z after resampling (mm); default 0.5 0.5 1.0, for the phantoms 1 1 2."""
    shape: tuple[int, int, int] | None = None
    """Input of the encoder, D H W (voxels); default 64 224 224, for the phantoms 32 48 48."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by
    default (with --cohort)."""
    parameters: Pairs = ()
    """PyRadiomics parameter file for all modalities, or MODALITY=FILE; repeat for several."""
    workers: int | None = None
    """Processes for radiomics; default one per core."""
    memory: float | None = None
    """GB of memory for scores (patients times features) and bootstrap draws; what is more goes to
    unnamed files in the run folder. Tables and fits come on top. Default: no bound."""
    quick: bool = False
    """A small embedded default without the segmentation, to see it work in under three minutes."""
    phantoms: int | None = None
    """Patients in the embedded phantom cohort; default 104, 32 with --quick."""
    pretrain_epochs: int | None = None
    """Passes over the train patients when the embedded encoder is pre-trained; default 9 or 2."""
    finetune_epochs: int | None = None
    """Passes over the train patients when it is fine-tuned; default 5 or 2."""


def job(config: Config) -> int:
    """Runs the job and gives the exit code."""
    plan = settle(config)

    # Imported here so that --help and wrong usage do not wait for JAX.
    from experiments.common.run_record import RunRecord
    from experiments.main_job.analysis import analyse
    from experiments.main_job.inputs import from_cohort, from_tables

    record = RunRecord(plan.out, dataclasses.asdict(config) | plan.settled())
    if config.pre:
        inputs = from_tables(plan)
    elif config.cohort is not None:
        inputs = from_cohort(plan, record)
    else:
        from experiments.main_job.phantoms import from_phantoms

        inputs = from_phantoms(plan, record)
    set_aside = analyse(plan, inputs, record)
    print(f"report: {plan.out / 'report.html'}")
    return list_set_aside(set_aside, plan.out / "failures.csv")


if __name__ == "__main__":
    run(Config, job, description=__doc__)
