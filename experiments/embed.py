"""Embeds a cohort: a row of numbers per study, from an encoder.

``python -m experiments.embed --cohort cohort.csv --encoder A --out E.npz``
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.settings import INPUT_SHAPE, SPACING_MM, Pool
from experiments.common.anonymous import anonymously, private_cache
from experiments.common.cli import list_set_aside, run

if TYPE_CHECKING:
    from lens.anonymise import Names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Embeds every patient of a cohort; an interrupted run goes on where it was."""

    cohort: Path
    """The manifest, cohort.csv."""
    encoder: Path
    """A checkpoint folder, a PyTorch file or .safetensors."""
    out: Path
    """The .npz to write: patient_id (n,), embeddings (n, d), and study_id if the cohort has it."""
    shape: tuple[int, int, int] = INPUT_SHAPE
    """Depth, height and width of the encoder's input, in voxels."""
    spacing: tuple[float, float, float] = SPACING_MM
    """Voxel size along x, y, z, in mm."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by
    default."""
    modalities: tuple[str, ...] = ()
    """The encoder's channels in order, default t2 dwi adc; a name that the cohort lacks gives
    zeros."""
    pool: Pool = "global"
    """Average over the whole crop, or over this region."""
    stage: tuple[int, ...] = ()
    """Stages of the encoder, 1 to 4, side by side; the last one (the paper's) if not given."""
    windows: bool = False
    """Cover images larger than the shape by overlapping windows instead of cropping them."""
    batch_size: int = 4
    """Volumes per pass."""
    cache: Path | None = None
    """Folder of finished patients; OUT.parts if not given, with --anonymise in ~/.cache."""
    partial: bool = False
    """Accept an encoder file that does not match fully; the rest stays at random."""
    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table and message."""
    salt: Path | None = None
    """File of the salt (16 characters or more), for --anonymise; by default one of your own is
    drawn once and kept in ~/.config/radiomic-lens/salt. The same salt gives the same hashes."""


def job(config: Config) -> int:
    """Embeds the cohort and gives the exit code."""
    with anonymously(
        config.anonymise,
        config.salt,
        out=config.out.parent,
        inputs={"--cohort": config.cohort, "--encoder": config.encoder},
    ) as names:
        return _embed(config, names)


def _embed(config: Config, names: Names) -> int:
    """Manifest to embeddings, under the names that may be written."""
    from encoders.checkpoints import load
    from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort
    from lens.cohort import parse_labels, read_manifest
    from lens.cohort.manifest import CHANNELS
    from lens.errors import InputError

    if config.out.suffix != ".npz":
        raise InputError(f"{config.out}: embeddings are written as .npz")
    manifest = read_manifest(config.cohort)
    names, cohort = names.of_cohort(manifest), names.cohort(manifest)
    kept = private_cache() if names.hides else config.out.with_name(config.out.name + ".parts")
    encoder = load(config.encoder, partial=config.partial)
    embeddings, errors = embed_cohort(
        cohort,
        encoder,
        settings=EmbeddingSettings(
            shape=config.shape,
            spacing_mm=config.spacing,
            modalities=config.modalities or CHANNELS,
            pool=config.pool,
            stages=config.stage,
            windows=config.windows,
            labels=parse_labels(config.label),
        ),
        batch_size=config.batch_size,
        cache=config.cache or kept,
        progress=True,
    )
    embeddings.save(config.out)
    rows, width = embeddings.embeddings.shape
    log.info("%s: %d embeddings of %d numbers", config.out, rows, width)
    errors = names.errors(errors)
    return list_set_aside(errors, config.out.with_name(config.out.stem + ".failures.csv"))


if __name__ == "__main__":
    run(Config, job, description=__doc__)
