"""Embeds a cohort: a row of numbers per study, from an encoder.

``python -m experiments.embed --cohort cohort.csv --encoder A --out E.npz``
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from encoders.settings import INPUT_SHAPE, SPACING_MM, Layers, Pool, Tokens, grid_problem
from encoders.source_names import check_output_name, named_file
from experiments.common.anonymous import Hidden, private_cache
from experiments.common.check_first import check_encoder, check_output, check_regions
from experiments.common.cli import DONE, alone, list_set_aside, run
from experiments.common.flags import as_flag
from lens.allocator import freed_memory_kept
from lens.lock import Claim, of_file
from lens.ranges import COUNT, Check, first_problem
from lens.settings import NiftiForm

if TYPE_CHECKING:
    from encoders.cohort_embeddings import EmbeddingSettings
    from encoders.encoder import Encoder
    from encoders.functions import FunctionEncoder
    from encoders.headers import Header
    from experiments.common.outlook import Outlook
    from lens.anonymise import Names
    from lens.cohort import Cohort
    from lens.cohort.shares import Share
    from lens.errors import CaseError

log = logging.getLogger(__name__)

_LAYERS: dict[str, Layers] = {"all": "stages", "blocks": "blocks"}


@dataclass(frozen=True)
class Config:
    """Embeds every patient of a cohort; an interrupted run goes on where it was."""

    cohort: Path
    """The manifest, cohort.csv."""
    encoder: Path
    """A checkpoint folder, a PyTorch file or .safetensors; module:function or file.py:function of
    your own code, which is run; or .onnx."""
    out: Path
    """The .npz to write: patient_id (n,), embeddings (n, d), study_id if the cohort has it, and
    with --stage layer (d,), the stage or block of each number."""
    shape: tuple[int, int, int] | None = None
    """Depth, height and width of the encoder's input, in voxels; default 64 224 224, of single
    slices 1 224 224."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size along x, y, z, in mm; default 0.5 0.5 1.0, of single slices 1 1 1 (pixels where
    the files have no pixel size)."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by default.
    Where there is one column with masks, names of your own make several regions of it:
    anterior=1 posterior=2."""
    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused."""
    modalities: tuple[str, ...] = ()
    """Columns with images, as the encoder's channels in order; default t2 dwi adc, or those
    recognised as images. none gives zeros, and so does one that the cohort lacks."""
    rois: tuple[str, ...] = ()
    """Columns with masks, such as tumour; by default gland and lesion, or those recognised as
    masks."""
    kind: tuple[str, ...] = ()
    """What the numbers of a modality mean where its name does not say: NAME=mr (arbitrary units),
    NAME=ct (Hounsfield units), NAME=8-bit (ultrasound, X-ray) or NAME=units (a map)."""
    pool: Pool = "global"
    """Average over the whole crop, or over this region."""
    stage: tuple[int, ...] | Literal["all", "blocks"] = ()
    """Stages of the encoder, 1 to 4, side by side; all of them, or all blocks, in one pass; the
    last one (the paper's) if not given."""
    tokens: Tokens | None = None
    """Of a ViT: its class token, or the mean of its patches. As its checkpoint says if not given,
    else class; with a region, class averages the slices that the region meets, and the default is
    the patches in it."""
    output: str | None = None
    """Of an .onnx file with several outputs, which to take."""
    windows: bool = False
    """Cover images larger than the shape by overlapping windows instead of cropping them."""
    batch_size: int | None = None
    """Volumes per pass; default 4, on a CPU 1 of a million voxels or more: further ones would only
    take memory."""
    cache: Path | None = None
    """Folder of finished patients; OUT.parts if not given, with --anonymise in ~/.cache."""
    share: str | None = None
    """K/N, such as 3/8: embed every N-th case of the manifest from the K-th alone, into the folder
    of finished patients, and write no table. The shares may run at the same time on several
    machines that see one folder; the same command without --share then writes the table."""
    partial: bool = False
    """Accept an encoder file that does not match fully; the rest stays at random."""
    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""
    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table and message."""
    salt: Path | None = None
    """File of the salt (16 characters or more), for --anonymise; by default one of your own is
    drawn once and kept in ~/.config/radiomic-lens/salt. The same salt gives the same hashes."""


def parts(config: Config) -> Path:
    """The folder of finished patients."""
    beside = config.out.with_name(config.out.name + ".parts")
    return config.cache or (private_cache() if config.anonymise else beside)


def hidden(config: Config) -> Hidden:
    """What is asked to be hidden."""
    file = named_file(config.encoder)
    inputs = {"--cohort": config.cohort} | ({"--encoder": file} if file else {})
    return Hidden(config.anonymise, config.salt, config.out.parent, inputs)


def share_of(config: Config) -> Share | None:
    """The share that is asked for; None for the whole cohort and its table."""
    from lens.cohort.shares import parse_share

    return None if config.share is None else parse_share(config.share, "--share")


def claim(config: Config) -> Claim:
    """Shares have a lock each, the table its own; all may write finished patients side by side."""
    return of_file(_named_after(config.out, share_of(config)), parts(config))


@alone(claim, hidden)
def job(config: Config, names: Names) -> int:
    """Manifest to embeddings, under the names that may be written; gives the exit code."""
    from encoders.cohort_embeddings import width_of
    from encoders.sources import open_encoder
    from experiments.common.cohorts import read_cohort
    from experiments.common.outlook import check_room
    from lens.errors import InputError

    share = share_of(config)
    if problem := _problem(config):
        raise InputError(as_flag(problem))
    manifest = read_cohort(config, label=config.label, only=False)
    settings = _settings(config, manifest)
    names, whole = names.of_cohort(manifest), names.cohort(manifest)
    header = _check(config, whole, settings)
    cohort = share.of(whole) if share else whole
    encoder = open_encoder(config.encoder, partial=config.partial, output=config.output)
    if config.dry_run:
        print(_outlook(config, cohort, encoder, settings, header))
        return DONE
    need = _bytes(len(cohort.cases), width_of(header.config, settings))
    table = [] if share else [(config.out.parent, "--out", need)]
    check_room([(parts(config), "--cache", need), *table])
    if share is None:
        errors = _write_table(config, cohort, encoder, settings)
    else:
        errors = _embed_share(config, share, whole, encoder, settings)
    out = _named_after(config.out, share)
    return list_set_aside(names.errors(errors), out.with_name(out.stem + ".failures.csv"))


def _write_table(
    config: Config,
    cohort: Cohort,
    encoder: Encoder | FunctionEncoder,
    settings: EmbeddingSettings,
) -> tuple[CaseError, ...]:
    """Writes the embeddings of a cohort; gives who is set aside."""
    from encoders.cohort_embeddings import embed_cohort

    embeddings, errors = embed_cohort(
        cohort,
        encoder,
        settings=settings,
        batch_size=config.batch_size,
        cache=parts(config),
        progress=True,
    )
    embeddings.save(config.out)
    rows, width = embeddings.embeddings.shape
    log.info("%s: %d embeddings of %d numbers", config.out, rows, width)
    return errors


def _embed_share(
    config: Config,
    share: Share,
    whole: Cohort,
    encoder: Encoder | FunctionEncoder,
    settings: EmbeddingSettings,
) -> tuple[CaseError, ...]:
    """Embeds the cases of a share into the folder of finished patients; gives who is set aside."""
    from encoders.cohort_embeddings import embed_ahead
    from experiments.common.outlook import several

    cohort, cache = share.of(whole), parts(config)
    errors = embed_ahead(
        cohort, encoder, cache, settings=settings, batch_size=config.batch_size, progress=True
    )
    total = len(cohort.cases)
    done = f"{total - len(errors)} of its {several(total, 'case')} embedded in {cache}"
    unusable = several(len(whole.set_aside), "row")
    log.info(
        "share %s: %s; no table is written: the same command without --share does that%s",
        share,
        done if total else f"nothing to do, there are {several(len(whole.cases), 'case')} in all",
        f", and lists {unusable} of the manifest that cannot be used" if whole.set_aside else "",
    )
    return errors


def _named_after(out: Path, share: Share | None) -> Path:
    """What lies beside a table is named after it; what a share leaves there, after the share."""
    return out.with_stem(f"{out.stem}.share-{share.number}-of-{share.count}") if share else out


def _settings(config: Config, cohort: Cohort) -> EmbeddingSettings:
    from encoders.cohort_embeddings import EmbeddingSettings
    from experiments.common.cohorts import shape_of, spacing_of
    from lens.cohort import parse_labels

    return EmbeddingSettings(
        shape=shape_of(cohort, config.shape),
        spacing_mm=spacing_of(cohort, config.spacing),
        modalities=config.modalities or cohort.channels,
        pool=config.pool,
        stages=() if isinstance(config.stage, str) else config.stage,
        layers=_LAYERS[config.stage] if isinstance(config.stage, str) else None,
        tokens=config.tokens,
        windows=config.windows,
        labels=parse_labels(config.label),
    )


def _check(config: Config, cohort: Cohort, settings: EmbeddingSettings) -> Header:
    """Refuses, before an image is read, what could not be embedded."""
    from encoders.channels import check_channels
    from encoders.cohort_embeddings import check_pool, check_settings
    from lens.errors import InputError

    if config.out.suffix != ".npz":
        raise InputError(f"{config.out}: embeddings are written as .npz")
    check_output(config.out, "--out")
    check_output_name(config.output, config.encoder)
    if config.cache is not None:
        check_output(config.cache, "--cache", folder=True)
    check_channels(settings.modalities, cohort, "--modalities")
    check_pool(settings, cohort)
    check_regions(list(settings.labels or {}), cohort, "--label")
    header = check_encoder(
        config.encoder,
        "--encoder",
        partial=config.partial,
        settings=settings,
        output=config.output,
    )
    check_settings(header.config, settings)
    return header


def _outlook(
    config: Config,
    cohort: Cohort,
    encoder: Encoder | FunctionEncoder,
    settings: EmbeddingSettings,
    header: Header,
) -> Outlook:
    from encoders.cohort_embeddings import count_embedded, volumes_per_pass, width_of
    from experiments.common.outlook import FLOAT, Outlook, Step, amount, several

    total, done = len(cohort.cases), count_embedded(cohort, encoder, settings, parts(config))
    share = f" of share {config.share}" if config.share else ""
    width, weights = width_of(header.config, settings), header.values
    volumes = config.batch_size or volumes_per_pass(encoder, settings)
    batch = volumes * prod(settings.shape) * len(settings.modalities) * FLOAT
    return Outlook(
        steps=[Step("embed", done == total, f"{done} of {total} cases{share} done before")],
        sizes=[
            f"{several(total, 'case')}, {width} dimensions, {weights / 1e6:.1f} million weights"
        ],
        out=config.out.parent,
        memory=[
            f"weights {amount(weights * FLOAT)}, a batch {amount(batch)}; what the encoder keeps "
            "of a batch comes on top, not known"
        ],
        disk={"embeddings": _bytes(total, width) * (1 if share else 2)},
    )


def _bytes(cases: int, width: int) -> float:
    """Of embeddings on disk: those of finished patients, and again the table of all."""
    from experiments.common.outlook import FLOAT

    return 1.0 * cases * width * FLOAT


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    shape, spacing = config.shape or INPUT_SHAPE, config.spacing or SPACING_MM
    return grid_problem(shape, spacing) or first_problem(
        [
            Check("stage", () if isinstance(config.stage, str) else config.stage, COUNT),
            Check("batch_size", 1 if config.batch_size is None else config.batch_size, COUNT),
        ]
    )


if __name__ == "__main__":
    with freed_memory_kept():
        run(Config, job, description=__doc__)
