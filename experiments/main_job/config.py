"""The command line of the main job: a group of flags for each source of input, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from encoders.settings import Tokens
from experiments.common.anonymous import PrivacyFlags
from lens.settings import DoctorForm, NiftiForm, Settings

Pairs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
Lists = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]

GROUPS = {
    "input: tables": ("tables",),
    "input: images": ("images",),
    "input: phantoms": ("phantom",),
    "input: layers": ("layers",),
    "analysis: regions": ("roi", "scope"),
    "analysis": ("analysis",),
    "analysis: context": ("context",),
    "output: privacy": ("privacy",),
    "output: page": ("page",),
    "output": ("out", "dry_run"),
}
"""Titles in ``--help`` and the fields of `Config` below each; other single flags go to the last."""

EXAMPLES = """
  the embedded phantoms, to see what comes out (under four minutes on two cores):
    {program}

  tables of your own, first as a rehearsal that writes nothing:
    {program} --pre before.npz --ft cls=after.npz --radiomics radiomics.csv --dry-run
    {program} --pre before.npz --ft cls=after.npz --radiomics radiomics.csv --out runs/mine

  PyRadiomics' own output, a table per modality and region:
    {program} --pre before.npz --ft cls=after.npz \\
        --radiomics t2.gland=t2.csv dwi.gland=dwi.csv --id-column Patient --out runs/mine

  images of your own; encoders are checkpoints, .onnx files or functions of your code:
    {program} --cohort cohort.csv --encoder-pre encode.py:before \\
        --encoder-ft cls=encode.py:after --out runs/mine

  three seeds of the fine-tuning, and whom it saw:
    {program} --pre before.npz --ft cls=after-0.npz --retrained cls=after-1.npz \\
        --retrained cls=after-2.npz --exposure patients.csv \\
        --radiomics radiomics.csv --out runs/seeds
"""
"""What ``--help`` ends with."""


@dataclass(frozen=True)
class TableFlags:
    """Tables of your own."""

    pre: Pairs = ()
    """Embeddings before fine-tuning: .npz (patient_id, embeddings), .parquet, .csv, and .npy, .pt,
    .h5, .h5ad or a folder of a file per case (docs/tables.md). TASK=FILE where a task starts from
    other ones (from T2 alone, say)."""
    ft: Pairs = ()
    """TASK=FILE, embeddings after fine-tuning; repeat the flag for several tasks."""
    retrained: Pairs = ()
    """TASK=FILE, embeddings of an encoder that was fine-tuned on a task of --ft again, from another
    seed; repeat the flag (two or more). A change then counts only beyond the spread of seeds."""
    identical: bool = False
    """Allow embeddings after fine-tuning that are those before it, and copies in --retrained."""
    radiomics: Lists = ()
    """Radiomics table, .parquet, .csv, .tsv or .xlsx; or one for each modality and region, whose
    columns then need no prefix: t2.gland=T2.csv dwi.gland=DWI.csv. With --cohort it replaces the
    extraction."""
    split: Path | None = None
    """Table of patient_id, split (train, val, test). Without it: the manifest's, or 7:1:2."""


@dataclass(frozen=True)
class ImageFlags:
    """Images and encoders of your own."""

    cohort: Path | None = None
    """Cohort manifest (cohort.csv) of images and masks."""
    encoder_pre: Path | None = None
    """The encoder before fine-tuning (with --cohort): a checkpoint; module:function or
    file.py:function of your own code, which is run; or .onnx."""
    encoder_ft: Pairs = ()
    """TASK=ENCODER after fine-tuning (with --cohort); repeat for several tasks."""
    tokens: Tokens | None = None
    """Of a ViT: its class token, or the mean of its patches; as its checkpoint says if not given,
    else class (with --cohort)."""
    output: str | None = None
    """Of .onnx files with several outputs, which to take (with --cohort)."""
    modalities: tuple[str, ...] = ()
    """Columns with images, as the encoders' channels in order (none gives zeros); by default t2,
    dwi and adc, or those recognised as images (with --cohort)."""
    rois: tuple[str, ...] = ()
    """Columns with masks, such as tumour; by default gland and lesion, or those recognised as masks
    (with --cohort). --roi chooses among them."""
    kind: tuple[str, ...] = ()
    """What the numbers of a modality mean where its name does not say: NAME=mr (arbitrary units),
    NAME=ct (Hounsfield units), NAME=8-bit (ultrasound, X-ray) or NAME=units (a map)."""
    channels: Pairs = ()
    """TASK=MODALITY, what the encoders of a task see, as in reg=t2; the other channels are zeros
    (with --cohort)."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size x y z after resampling (mm); default 0.5 0.5 1.0, for single slices 1 1 1 (pixels
    where the files have no pixel size), for the phantoms 2 2 2, with --full 1 1 2."""
    shape: tuple[int, int, int] | None = None
    """Input of the encoder, D H W (voxels); default 64 224 224, for single slices 1 224 224, for
    the phantoms 24 32 32, with --full 32 48 48."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by default.
    Where there is one column with masks, names of your own make several regions of it: anterior=1
    posterior=2 (with --cohort)."""
    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused (with --cohort)."""
    parameters: Pairs = ()
    """PyRadiomics parameter file for all modalities, or MODALITY=FILE; repeat for several."""
    workers: int | None = None
    """Processes for radiomics; default one per core."""


@dataclass(frozen=True)
class LayerFlags:
    """Every layer of the encoders: where in them features are read, and where that changed."""

    layers: bool = False
    """Embed every stage of the encoders, and look at each (with --cohort, and on the phantoms)."""
    layers_pre: Pairs = ()
    """Embeddings of every layer before fine-tuning (with --pre): .npz of experiments.embed --stage
    all, or blocks. TASK=FILE where a task starts from other ones."""
    layers_ft: Pairs = ()
    """TASK=FILE, the same after fine-tuning; repeat for several tasks."""
    layers_random: Path | None = None
    """The same of the encoder at its random start, shown beside."""
    layers_permuted: Pairs = ()
    """FILE or TASK=FILE, the same of an encoder fine-tuned on permuted labels, shown beside."""


@dataclass(frozen=True)
class ContextFlags:
    """What is looked at around the verdicts."""

    labels: Path | None = None
    """Table of patient_id and label columns for --adjust and --site; default the manifest."""
    adjust: tuple[str, ...] = ()
    """Columns of --labels to adjust for, such as volume_ml: partial R2 next to the verdicts."""
    site: str | None = None
    """Column of --labels that names the site: every site is held out in turn."""
    exposure: Pairs = ()
    """FILE or TASK=FILE, patients whom fine-tuning saw, who are scored apart: patients.csv of
    experiments.finetune, or a table of patient_id, split. Default: --split."""
    repeatability: Path | None = None
    """Table of column, icc (as from experiments.radiomics --perturb): the R2 that a feature's
    repeatability allows, next to the verdicts."""
    doctor: DoctorForm = "short"
    """What the report says of what this cohort can show. short: read off the verdicts. full: from
    known changes planted in the embeddings before fine-tuning, with false alarms (minutes)."""


@dataclass(frozen=True)
class PageFlags:
    """What the page shows."""

    images: bool = True
    """Show pictures of single patients on the page (with --cohort, and of the phantoms);
    --no-images leaves them out, as --anonymise does."""


@dataclass(frozen=True)
class PhantomFlags:
    """The embedded default: phantoms."""

    quick: bool = False
    """The same on fewer phantoms, to see it work in a minute and a half: an encoder at its random
    start and fine-tuned, without the control."""
    full: bool = False
    """The four settings of the paper's Table 1 on phantoms of whole anatomy instead: an encoder
    fine-tuned for grade, volume and outline."""
    phantoms: int | None = None
    """Patients that the encoders are compared on; default 400, 160 with --quick, 104 with
    --full."""
    pretrain_epochs: int | None = None
    """Passes over the training patients when the embedded encoder is pre-trained; default 7, 9 with
    --full, none with --quick."""
    finetune_epochs: int | None = None
    """Passes over the training patients when it is fine-tuned; default 6, 5 with --quick and
    --full."""


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Config:
    """What fine-tuning changed in an image encoder, in radiomic features.

    Without --pre and without --cohort the job runs on an embedded cohort of phantoms.
    """

    tables: TableFlags = field(default_factory=TableFlags)
    """Tables of your own."""
    images: ImageFlags = field(default_factory=ImageFlags)
    """Images and encoders of your own."""
    layers: LayerFlags = field(default_factory=LayerFlags)
    """Every layer of the encoders."""
    analysis: Settings = field(default_factory=Settings)
    """How the encoders are compared."""
    context: ContextFlags = field(default_factory=ContextFlags)
    """What is looked at around the verdicts."""
    privacy: PrivacyFlags = field(default_factory=PrivacyFlags)
    """What the results say of patients and files."""
    page: PageFlags = field(default_factory=PageFlags)
    """What the page shows."""
    phantom: PhantomFlags = field(default_factory=PhantomFlags)
    """The embedded default."""
    out: Path | None = None
    """Run folder; default runs/<name of the input>."""
    roi: tuple[str, ...] = ()
    """Regions of interest to analyse; default all."""
    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""
    scope: Pairs = ()
    """TASK=[MODALITY.]ROI, what a task is read against where that is not --roi, as in reg=t2.gland
    or seg=lesion; names are joined by +."""
