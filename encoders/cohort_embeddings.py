"""A cohort's embeddings: cases read ahead, embedded in batches, kept as soon as they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path

import jax
import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float, Float32
from tqdm import tqdm

from encoders.blocks import ByBlock, block_config, layer_names
from encoders.case_cache import CaseCache, kept_notes
from encoders.channels import check_channels
from encoders.embedding import embed, embed_windows
from encoders.encoder import Encoder, EncoderConfig, encoder_hash
from encoders.functions import FunctionConfig, FunctionEncoder
from encoders.settings import INPUT_SHAPE, SPACING_MM, Layers, Pool, Tokens
from encoders.vit import ViT, ViTConfig, grey
from lens.cohort import Case, CaseFiles, Cohort, read_case, stack, stack_mask
from lens.cohort.case_notes import log_notes
from lens.cohort.prostate import MODALITIES
from lens.disk import write_arrays
from lens.errors import CaseError, InputError
from lens.names import check_names

CODE = (__name__, "encoders.families", "encoders.sources")
"""Modules behind an embedding: those of every family of encoders among them."""


_LARGE = 1_000_000
"""Voxels of an input that keeps all cores of a CPU busy."""


@dataclass(frozen=True)
class CohortEmbeddings:
    """Embeddings of the studies that could be embedded, in the manifest's order.

    Attributes:
        patient_id: of each row.
        study_id: of each row, empty text where the manifest has none; None without any.
        embeddings: the rows.
        layer: of each number, ``stage1`` and so on; None of an ordinary embedding.
    """

    patient_id: tuple[str, ...]
    study_id: tuple[str, ...] | None
    embeddings: Float32[np.ndarray, "n f"]
    layer: tuple[str, ...] | None = None

    def save(self, path: Path) -> None:
        """Writes ``.npz``: ``patient_id``, ``embeddings``, where known ``study_id``, ``layer``."""
        arrays = {"patient_id": np.array(self.patient_id), "embeddings": self.embeddings}
        if self.study_id is not None:
            arrays["study_id"] = np.array(self.study_id)
        if self.layer is not None:
            arrays["layer"] = np.array(self.layer)
        write_arrays(path, **arrays)


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a case becomes an embedding.

    Attributes:
        shape: (D, H, W) of the encoder's input, in voxels.
        spacing_mm: (x, y, z) of its voxels.
        modalities: its channels; one that the cohort lacks, or ``none``, is all zeros.
        pool: average over the whole crop, or over this region.
        stages: stages of the encoder, from 1; none for the last.
        layers: all stages, or all blocks, in place of `stages`.
        tokens: of a ViT, as `encoders.embed` takes them.
        windows: cover images larger than `shape` by overlapping windows instead of cropping them.
        labels: region -> the mask values that make it; every value above zero by default.
    """

    shape: tuple[int, int, int] = INPUT_SHAPE
    spacing_mm: tuple[float, float, float] = SPACING_MM
    modalities: tuple[str, ...] = MODALITIES
    pool: Pool = "global"
    stages: tuple[int, ...] = ()
    layers: Layers | None = None
    tokens: Tokens | None = None
    windows: bool = False
    labels: Mapping[str, Sequence[int]] | None = None


def embed_cohort(
    cohort: Cohort,
    encoder: Encoder | FunctionEncoder,
    *,
    settings: EmbeddingSettings = EmbeddingSettings(),
    batch_size: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
    told: bool = True,
) -> tuple[CohortEmbeddings, tuple[CaseError, ...]]:
    """Embeddings of every case of a cohort that can be read.

    Args:
        cohort: from `lens.cohort.read_manifest`.
        encoder: the encoder, or a function from `encoders.sources.open_encoder`.
        settings: grid, channels and pooling.
        batch_size: volumes per pass, by default those of `volumes_per_pass`.
        cache: folder of finished cases, keyed by ids, the content of images, encoder, settings and
            code; a second run reads them from there, an interrupted one goes on.
        progress: show a progress bar.
        told: log the notes on the cases, those that the cache has as well.

    Returns:
        The embeddings, and an error for every case set aside (the manifest's own among them).

    Raises:
        InputError: the settings do not fit the encoder, or no case could be embedded.
    """
    check_settings(encoder.config, settings)
    check_channels(settings.modalities, cohort, "modalities")
    check_pool(settings, cohort)
    made, failed = _made(cohort, encoder, settings, batch_size, cache, progress)
    errors = (*cohort.set_aside, *failed)
    if not made:
        raise InputError(f"{cohort.path}: no case could be embedded; the first: {errors[0]}")
    if told:
        _tell(cohort, made)
    seen, numbered = _of_layers(encoder, settings)
    layer = layer_names(seen.config, numbered.stages) if numbered.stages else None
    return _in_order(cohort, {index: row for index, (row, _) in made.items()}, layer), errors


def embed_ahead(
    cohort: Cohort,
    encoder: Encoder | FunctionEncoder,
    cache: Path,
    *,
    settings: EmbeddingSettings = EmbeddingSettings(),
    batch_size: int | None = None,
    progress: bool = False,
) -> tuple[CaseError, ...]:
    """Embeds cases into the cache in which a later `embed_cohort` of a larger cohort finds them.

    Args:
        cohort: cases of it (`lens.cohort.shares`): it may have none, none that can be embedded, and
            none with the region that is averaged over.
        encoder, cache, settings, batch_size, progress: as in `embed_cohort`.

    Returns:
        An error for every case set aside; no file is kept of these.

    Raises:
        InputError: the settings do not fit the encoder.
    """
    check_settings(encoder.config, settings)
    made, failed = _made(cohort, encoder, settings, batch_size, cache, progress)
    _tell(cohort, made)
    return failed


def _made(
    cohort: Cohort,
    encoder: Encoder | FunctionEncoder,
    settings: EmbeddingSettings,
    batch_size: int | None,
    cache: Path | None,
    progress: bool,
) -> tuple[dict[int, tuple[np.ndarray, Sequence[str]]], tuple[CaseError, ...]]:
    """Place in the cohort -> embedding and notes, from the cache or new; and who has none."""
    if isinstance(encoder, ViT) and len(settings.modalities) == 1 < encoder.config.in_channels:
        encoder = grey(encoder)
    kept = None if cache is None else _kept(encoder, settings, cache)
    encoder, settings = _of_layers(encoder, settings)
    made: dict[int, tuple[np.ndarray, Sequence[str]]] = {}
    errors: list[CaseError] = []
    batch_size = volumes_per_pass(encoder, settings) if batch_size is None else batch_size
    with tqdm(total=len(cohort.cases), desc="embed", unit="case", disable=not progress) as bar:
        for index, files in enumerate(cohort.cases):
            if kept and (path := kept.find(files)):
                made[index] = np.load(path)["embedding"], kept_notes(path)
                bar.update()
        todo = [pair for pair in enumerate(cohort.cases) if pair[0] not in made]
        for index, found in _embedded(todo, encoder, settings, batch_size):
            if isinstance(found, CaseError):
                errors.append(found)
            else:
                made[index] = found
                if kept:
                    kept.keep(cohort.cases[index], found[1], embedding=found[0])
            bar.update()
    return made, tuple(errors)


def _tell(cohort: Cohort, made: Mapping[int, tuple[np.ndarray, Sequence[str]]]) -> None:
    """Logs the notes on the cases."""
    log_notes((cohort.cases[index].patient_id, made[index][1]) for index in sorted(made))


def embed_versions(
    encoder: Encoder | FunctionEncoder,
    volumes: Sequence[Float[np.ndarray, "d h w c"]],
    mask: Bool[np.ndarray, "d h w"] | None,
    settings: EmbeddingSettings,
    batch_size: int,
) -> Float[np.ndarray, "n f"]:
    """Embeddings of versions of one case, none of which need be finite.

    Args:
        encoder: as in `embed_cohort`; a ViT of colour images as it reads one modality.
        volumes: of `lens.cohort.stack`, at most `batch_size` of them.
        mask: region that embeddings are averaged over; None for the whole crop.
        settings, batch_size: as in `embed_cohort`.
    """
    if isinstance(encoder, ViT) and len(settings.modalities) == 1 < encoder.config.in_channels:
        encoder = grey(encoder)
    reads = [_Read(volume, mask, ()) for volume in volumes]
    return np.stack(list(_rows(encoder, reads, settings, batch_size)))


def count_embedded(
    cohort: Cohort, encoder: Encoder | FunctionEncoder, settings: EmbeddingSettings, cache: Path
) -> int:
    """Cases that `embed_cohort` would find in the cache; reads all files where there is a folder.

    Args:
        cohort, encoder, settings, cache: as there.
    """
    if not cache.is_dir():
        return 0
    kept = _kept(encoder, settings, cache)
    return sum(kept.find(files) is not None for files in cohort.cases)


def _kept(
    encoder: Encoder | FunctionEncoder, settings: EmbeddingSettings, cache: Path
) -> CaseCache:
    if isinstance(encoder, FunctionEncoder):
        return CaseCache(cache, CODE, "function", settings, encoder.fingerprint)
    facts = (type(encoder).__qualname__, encoder.config, settings)
    return CaseCache(cache, CODE, *facts, encoder_hash(encoder))


def _of_layers(
    encoder: Encoder | FunctionEncoder, settings: EmbeddingSettings
) -> tuple[Encoder | FunctionEncoder, EmbeddingSettings]:
    """The encoder and its settings with the layers that are asked for as numbered stages."""
    if settings.layers is None:
        return encoder, settings
    seen = ByBlock(encoder) if settings.layers == "blocks" else encoder
    return seen, replace(settings, stages=tuple(range(1, len(seen.config.widths) + 1)))


def volumes_per_pass(encoder: Encoder | FunctionEncoder, settings: EmbeddingSettings) -> int:
    """Volumes that an encoder is given at once if nobody says otherwise: four.

    One where the encoder is ours, the arithmetic done on a CPU, and the input of a million voxels
    or more: a volume keeps all cores busy, and further ones only take memory.

    Args:
        encoder, settings: as in `embed_cohort`.
    """
    ours = not isinstance(encoder, FunctionEncoder)
    large = prod(settings.shape) >= _LARGE
    return 1 if ours and large and jax.default_backend() == "cpu" else 4


def width_of(config: EncoderConfig, settings: EmbeddingSettings) -> int:
    """Numbers of an embedding under these settings."""
    if settings.layers:
        return sum((block_config(config) if settings.layers == "blocks" else config).widths)
    return sum(config.widths[stage - 1] for stage in settings.stages) or config.features


def check_settings(config: EncoderConfig, settings: EmbeddingSettings) -> None:
    """Refuses settings that do not fit an encoder, which need not have been read for it.

    Raises:
        InputError: another number of channels, stages, pooling or sides than the encoder has.
    """
    given = len(settings.modalities)
    if isinstance(config, FunctionConfig):
        _check_function(settings)
    # A ViT of colour images reads one modality as three alike.
    grey_image = isinstance(config, ViTConfig) and given == 1
    if config.in_channels and given != config.in_channels and not grey_image:
        raise InputError(
            f"the encoder reads {config.in_channels} channels, and {given} "
            f"modalities are given ({', '.join(settings.modalities)}); name one per channel, none "
            "for zeros"
        )
    if set(settings.stages) - set(range(1, len(config.widths) + 1)):
        raise InputError(f"stages {settings.stages}: the encoder has 1 to {len(config.widths)}")
    if config.dims == 2 and settings.windows:
        raise InputError("a 2D encoder reads slices; windows need a 3D encoder")
    if settings.layers == "blocks":
        block_config(config)
    if settings.tokens and (settings.stages or settings.layers or not hasattr(config, "tokens")):
        raise InputError(
            f"tokens {settings.tokens}: of the last block of a ViT, without stages; leave it out"
        )
    stride = config.total_strides[-1]
    sides = settings.shape[1:] if config.dims == 2 else settings.shape
    if any(side < stride or side % stride for side in sides):
        raise InputError(
            f"shape {settings.shape}: each side must be a multiple of {stride} voxels, the total "
            "stride of the encoder"
        )
    if min(settings.spacing_mm) <= 0:
        raise InputError(f"spacing {settings.spacing_mm}: every spacing must be positive")


def _check_function(settings: EmbeddingSettings) -> None:
    stages = settings.stages or settings.layers
    asked = {"stages": stages, "windows": settings.windows, "tokens": settings.tokens}
    if named := [name for name, value in asked.items() if value]:
        raise InputError(
            f"{named[0]}: a function or ONNX file gives what it gives; leave it out, and choose in "
            "your own code"
        )


def check_pool(settings: EmbeddingSettings, cohort: Cohort) -> None:
    """Refuses to pool over a region that no case of the cohort has.

    Raises:
        InputError: as said.
    """
    regions = {roi for files in cohort.cases for roi in files.masks}
    if settings.pool != "global":
        check_names([settings.pool], sorted(regions), "region", f"{cohort.path}, pool")


def _in_order(
    cohort: Cohort, rows: Mapping[int, np.ndarray], layer: tuple[str, ...] | None
) -> CohortEmbeddings:
    used = [cohort.cases[index] for index in sorted(rows)]
    studies = tuple(files.study_id or "" for files in used)
    return CohortEmbeddings(
        tuple(files.patient_id for files in used),
        studies if any(studies) else None,
        np.stack([rows[index] for index in sorted(rows)]),
        layer,
    )


def _embedded(
    todo: Sequence[tuple[int, CaseFiles]],
    encoder: Encoder | FunctionEncoder,
    settings: EmbeddingSettings,
    batch_size: int,
) -> Iterator[tuple[int, tuple[np.ndarray, Sequence[str]] | CaseError]]:
    """The embedding of each case with the notes on it, or why there is none."""
    cases = dict(todo)
    members = _read_ahead(todo, settings)
    while batch := list(islice(members, batch_size)):
        good: list[tuple[int, _Read]] = []
        for index, read in batch:
            if isinstance(read, _Read):
                good.append((index, read))
            else:
                yield index, read
        rows = _rows(encoder, [read for _, read in good], settings, batch_size)
        for (index, read), row in zip(good, rows, strict=True):
            finite = bool(np.isfinite(row).all())
            yield index, (row, read.notes) if finite else _not_finite(cases[index])


@dataclass(frozen=True)
class _Read:
    volume: Float[np.ndarray, "d h w c"]
    mask: Bool[np.ndarray, "d h w"] | None
    notes: tuple[str, ...]


def _read_ahead(
    todo: Sequence[tuple[int, CaseFiles]], settings: EmbeddingSettings
) -> Iterator[tuple[int, _Read | CaseError]]:
    """Reads cases in the background, two ahead of the encoder, in order."""
    with ThreadPoolExecutor(2) as pool:
        waiting: list[tuple[int, Future]] = []
        for index, files in todo:
            waiting.append((index, pool.submit(_read, files, settings)))
            if len(waiting) > 2:
                first, future = waiting.pop(0)
                yield first, future.result()
        for index, future in waiting:
            yield index, future.result()


def _read(files: CaseFiles, settings: EmbeddingSettings) -> _Read | CaseError:
    try:
        crop = None if settings.windows else settings.shape
        case = read_case(files, spacing_mm=settings.spacing_mm, labels=settings.labels, crop=crop)
        shape = _full_shape(case, settings) if settings.windows else settings.shape
        volume = stack(case, shape=shape, modalities=settings.modalities)
        if settings.pool == "global":
            return _Read(volume, None, case.notes)
        mask = stack_mask(case, settings.pool, shape=shape)
        if not mask.any():
            raise CaseError(
                files.patient_id,
                files.masks.get(settings.pool, ""),
                stage="embed",
                reason=f"no voxel of the {settings.pool} lies in the crop of {shape} voxels",
                remedy="Draw the region, enlarge the shape, or pool over another one.",
            )
        return _Read(volume, mask, case.notes)
    except CaseError as error:
        return error


def _full_shape(case: Case, settings: EmbeddingSettings) -> tuple[int, int, int]:
    """The image's own size where it exceeds the window."""
    image: sitk.Image = next(iter(case.images.values()))
    x, y, z = image.GetSize()
    depth, height, width = settings.shape
    return max(z, depth), max(y, height), max(x, width)


def _rows(
    encoder: Encoder | FunctionEncoder,
    reads: Sequence[_Read],
    settings: EmbeddingSettings,
    batch_size: int,
) -> Sequence[np.ndarray]:
    if not reads:
        return []
    if isinstance(encoder, FunctionEncoder):
        regions = [read.mask for read in reads if read.mask is not None]
        volumes = np.stack([read.volume for read in reads])
        return list(encoder.embed(volumes, np.stack(regions) if regions else None))
    stages = settings.stages or None
    if settings.windows:
        return [
            embed_windows(encoder, r.volume, window=settings.shape, mask=r.mask, stages=stages)
            for r in reads
        ]
    # An iterator has no length, so that a short batch is filled up to the compiled size.
    volumes = iter([read.volume for read in reads])
    masks = iter([read.mask for read in reads if read.mask is not None])
    regional = None if settings.pool == "global" else masks
    return list(
        embed(
            encoder,
            volumes,
            masks=regional,
            stages=stages,
            tokens=settings.tokens,
            batch_size=batch_size,
        )
    )


def _not_finite(files: CaseFiles) -> CaseError:
    return CaseError(
        files.patient_id,
        next(iter(files.images.values())),
        stage="embed",
        reason="the embedding is not finite",
        remedy="Look for extreme intensities in the images; the encoder may not fit them.",
    )
