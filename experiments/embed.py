"""Embeds a cohort: a row of numbers per study, from an encoder.

``python -m experiments.embed --cohort cohort.csv --encoder A --out E.npz``
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.settings import INPUT_SHAPE, SPACING_MM, Pool, Tokens, grid_problem
from encoders.source_names import check_output_name, named_file
from experiments.common.anonymous import anonymously, private_cache
from experiments.common.check_first import check_encoder, check_output, check_regions
from experiments.common.cli import DONE, alone, list_set_aside, run
from experiments.common.flags import as_flag
from lens.lock import of_file
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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Embeds every patient of a cohort; an interrupted run goes on where it was."""

    cohort: Path
    """The manifest, cohort.csv."""
    encoder: Path
    """A checkpoint folder, a PyTorch file or .safetensors; module:function or file.py:function of
    your own code, which is run; or .onnx."""
    out: Path
    """The .npz to write: patient_id (n,), embeddings (n, d), and study_id if the cohort has it."""
    shape: tuple[int, int, int] = INPUT_SHAPE
    """Depth, height and width of the encoder's input, in voxels."""
    spacing: tuple[float, float, float] = SPACING_MM
    """Voxel size along x, y, z, in mm."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by
    default."""
    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused."""
    modalities: tuple[str, ...] = ()
    """The encoder's channels in order, default t2 dwi adc; none gives zeros, and so does one that
    the cohort lacks."""
    pool: Pool = "global"
    """Average over the whole crop, or over this region."""
    stage: tuple[int, ...] = ()
    """Stages of the encoder, 1 to 4, side by side; the last one (the paper's) if not given."""
    tokens: Tokens | None = None
    """Of a ViT: its class token, or the mean of its patches. As its checkpoint says if not given,
    else class; with a region, class averages the slices that the region meets, and the default is
    the patches in it."""
    output: str | None = None
    """Of an .onnx file with several outputs, which to take."""
    windows: bool = False
    """Cover images larger than the shape by overlapping windows instead of cropping them."""
    batch_size: int = 4
    """Volumes per pass."""
    cache: Path | None = None
    """Folder of finished patients; OUT.parts if not given, with --anonymise in ~/.cache."""
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


@alone(lambda config: of_file(config.out, parts(config)))
def job(config: Config) -> int:
    """Embeds the cohort and gives the exit code."""
    file = named_file(config.encoder)
    with anonymously(
        config.anonymise,
        config.salt,
        out=config.out.parent,
        inputs={"--cohort": config.cohort} | ({"--encoder": file} if file else {}),
    ) as names:
        return _embed(config, names)


def _embed(config: Config, names: Names) -> int:
    """Manifest to embeddings, under the names that may be written."""
    from encoders.cohort_embeddings import embed_cohort
    from encoders.sources import open_encoder
    from lens.cohort import read_manifest
    from lens.errors import InputError

    if problem := _problem(config):
        raise InputError(as_flag(problem))
    settings = _settings(config)
    manifest = read_manifest(config.cohort, nifti_form=config.nifti_form)
    names, cohort = names.of_cohort(manifest), names.cohort(manifest)
    header = _check(config, cohort, settings)
    encoder = open_encoder(config.encoder, partial=config.partial, output=config.output)
    if config.dry_run:
        print(_outlook(config, cohort, encoder, settings, header))
        return DONE
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
    errors = names.errors(errors)
    return list_set_aside(errors, config.out.with_name(config.out.stem + ".failures.csv"))


def _settings(config: Config) -> EmbeddingSettings:
    from encoders.cohort_embeddings import EmbeddingSettings
    from lens.cohort import parse_labels
    from lens.cohort.manifest import CHANNELS

    return EmbeddingSettings(
        shape=config.shape,
        spacing_mm=config.spacing,
        modalities=config.modalities or CHANNELS,
        pool=config.pool,
        stages=config.stage,
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
    check_channels(settings.modalities, cohort.cases, "--modalities")
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
    from encoders.cohort_embeddings import count_embedded
    from experiments.common.outlook import FLOAT, Outlook, Step, amount, several

    total, done = len(cohort.cases), count_embedded(cohort, encoder, settings, parts(config))
    width = sum(header.config.widths[stage - 1] for stage in config.stage)
    width, weights = width or header.config.features, header.values
    batch = config.batch_size * prod(config.shape) * len(settings.modalities) * FLOAT
    return Outlook(
        steps=[Step("embed", done == total, f"{done} of {total} cases done before")],
        sizes=[
            f"{several(total, 'case')}, {width} dimensions, {weights / 1e6:.1f} million weights"
        ],
        out=config.out.parent,
        memory=[
            f"weights {amount(weights * FLOAT)}, a batch {amount(batch)}; what the encoder keeps "
            "of a batch comes on top, not known"
        ],
        disk={"embeddings": 2.0 * total * width * FLOAT},
    )


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    return grid_problem(config.shape, config.spacing) or first_problem(
        [Check("stage", config.stage, COUNT), Check("batch_size", config.batch_size, COUNT)]
    )


if __name__ == "__main__":
    run(Config, job, description=__doc__)
