"""Edits images inside a region and measures how encoders respond.

``python -m experiments.edit --cohort cohort.csv --encoder-pre A --encoder-ft cls=B --out DIR``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from encoders.settings import Pool, Tokens
from experiments.common.anonymous import Hidden, private_cache
from experiments.common.cli import DONE, alone, list_set_aside, run
from lens.lock import of_folder
from lens.settings import NiftiForm

if TYPE_CHECKING:
    from lens.anonymise import Names

Pairs = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Config:
    """Edits images by formulas, in doses, and tests whether the task score follows.

    Writes OUT/edits.csv (a row per task, edit and stage), edits-doses.csv, edits-patients.csv,
    edits-features.csv, edits.json and edits-sheet.json. With --out RUN/edits, where RUN is a run
    folder, experiments.report RUN shows them. Patients that cannot be edited are set aside and
    listed in OUT/failures.csv (exit code 3); a second run goes on where the first one was.
    """

    cohort: Path
    """Manifest of images, masks and labels."""
    encoder_pre: Path
    """The encoder before fine-tuning: a checkpoint, module:function or file.py:function of your own
    code, which is run, or .onnx."""
    encoder_ft: Pairs
    """TASK=ENCODER after fine-tuning; repeat for several tasks."""
    labels: Pairs = ()
    """TASK=COLUMN of the manifest with the task's label; by default the column of the task's name.
    Numbers count as such, two names as 0 and 1, more names as a task each."""
    out: Path = Path("runs/edits")
    """Folder for the results."""
    edits: tuple[str, ...] = ()
    """shift, scale, contrast, gamma, smooth, sharpen, texture:MM, wavelet:BAND (HHH) or grow;
    default shift contrast smooth sharpen texture:2 grow."""
    doses: tuple[str, ...] = ()
    """EDIT=DOSE,DOSE in place of an edit's own: of shift and texture in standard deviations of the
    image about the regions, of smooth and grow in mm, of sharpen a factor, of the others in
    doublings."""
    region: tuple[str, ...] = ()
    """Regions that are edited; by default the last one of the cohort."""
    images: tuple[str, ...] = ()
    """Modalities that are edited, each by itself; by default all that the encoders see."""
    edge: float = 0.0
    """Distance from the contour (mm) over which an edit rises to its full size inside; 0 is a hard
    edge. Edits that move the contour have none."""
    standardise: Literal["original", "edited"] = "original"
    """By what an edited image is standardised where its kind asks for it (docs/intensities.md): by
    the original, so that the edit stays in its region, or by itself, as a real image would be."""
    patients: int = 60
    """Patients that are edited, drawn from those with a label. Heads are fitted to all of them."""
    part: Literal["all", "train", "val", "test"] = "all"
    """Use the patients of this part of the manifest's split alone: test, where the encoder was
    fine-tuned on the others."""
    features: bool = True
    """Measure radiomic features again after each edit; --no-features leaves them out."""
    parameters: tuple[str, ...] = ()
    """PyRadiomics parameter files, FILE or MODALITY=FILE; without any, those of the package."""
    sheet: bool = True
    """Keep pictures of edited images of one patient for the report; --no-sheet leaves them out, as
    --anonymise does."""
    shape: tuple[int, int, int] | None = None
    """Depth, height and width of the encoders' input, in voxels; default 64 224 224, of single
    slices 1 224 224."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size along x, y, z, in mm; default 0.5 0.5 1.0, of single slices 1 1 1."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, as in gland=1,2 lesion=3; every value above 0 by default."""
    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform."""
    modalities: tuple[str, ...] = ()
    """Columns with images, as the encoders' channels in order; none gives zeros."""
    rois: tuple[str, ...] = ()
    """Columns with masks."""
    kind: tuple[str, ...] = ()
    """What the numbers of a modality mean where its name does not say: NAME=mr, ct, 8-bit or
    units."""
    pool: Pool = "global"
    """Average over the whole crop, or over this region, which stays that of the original image."""
    tokens: Tokens | None = None
    """Of a ViT: its class token, or the mean of its patches."""
    output: str | None = None
    """Of .onnx files with several outputs, which to take."""
    folds: int = 5
    """Parts of the cross-fitting of heads, by patient."""
    flips: int = 4999
    """Random signs over patients."""
    seed: int = 0
    """Of the choice of patients, of folds, noise and signs."""
    batch_size: int = 8
    """Volumes per pass."""
    cache: Path | None = None
    """Folder of finished patients; OUT/parts if not given, with --anonymise in ~/.cache."""
    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""
    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table and message."""
    salt: Path | None = None
    """File of the salt (16 characters or more), for --anonymise; by default one of your own is
    drawn once and kept in ~/.config/radiomic-lens/salt."""


def parts(config: Config) -> Path:
    """The folder of finished patients."""
    return config.cache or (private_cache() if config.anonymise else config.out / "parts")


def hidden(config: Config) -> Hidden:
    """What is asked to be hidden."""
    from encoders.source_names import named_file

    given = {"--encoder-pre": config.encoder_pre}
    given |= {
        f"--encoder-ft {entry.partition('=')[0]}": Path(entry.partition("=")[2])
        for entry in config.encoder_ft
    }
    files = {flag: file for flag, path in given.items() if (file := named_file(path))}
    return Hidden(config.anonymise, config.salt, config.out, {"--cohort": config.cohort} | files)


@alone(lambda config: of_folder(config.out, parts(config)), hidden)
def job(config: Config, names: Names) -> int:
    """Manifest to tables of responses, under the names that may be written; the exit code."""
    from experiments.common import edit_stages as stages

    plan = stages.check(config, names, parts(config))
    if config.dry_run:
        print(stages.outlook(plan, parts(config)))
        return DONE
    originals, errors = stages.embed_originals(plan, parts(config))
    effects, measured, more = stages.edit(plan, originals, parts(config))
    tables = stages.tables(plan, originals, effects, measured)
    tables.write(config.out, stages.facts(plan, names, tables))
    stages.write_sheet(plan, effects, names)
    stages.tell(tables, config.out)
    return list_set_aside(names.errors([*errors, *more]), config.out / "failures.csv")


if __name__ == "__main__":
    run(Config, job, description=__doc__)
