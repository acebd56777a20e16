"""A cohort's embeddings: patients read ahead, embedded in batches, kept as soon as known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float, Float32
from tqdm import tqdm

from encoders.convnext import ConvNeXtV2
from encoders.embedding import embed, embed_windows
from encoders.weights import parameters
from lens.cohort import Case, CaseFiles, Cohort, read_case, stack, stack_mask
from lens.errors import CaseError, InputError
from lens.files import file_hash, write_arrays

Pool = Literal["global", "gland", "lesion"]


@dataclass(frozen=True)
class CohortEmbeddings:
    """One row per study that could be embedded, in the manifest's order.

    Attributes:
        patient_id: of each row.
        study_id: of each row, empty text where the manifest has none; None without any.
        embeddings: the rows.
    """

    patient_id: tuple[str, ...]
    study_id: tuple[str, ...] | None
    embeddings: Float32[np.ndarray, "n f"]

    def save(self, path: Path) -> None:
        """Writes ``.npz`` with ``patient_id``, ``embeddings`` and ``study_id`` where known."""
        arrays = {"patient_id": np.array(self.patient_id), "embeddings": self.embeddings}
        if self.study_id is not None:
            arrays["study_id"] = np.array(self.study_id)
        write_arrays(path, **arrays)


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a case becomes an embedding.

    Attributes:
        shape: (D, H, W) of the encoder's input, in voxels.
        spacing_mm: (x, y, z) of its voxels.
        modalities: its channels; one that a case lacks is all zeros.
        pool: average over the whole crop, or over the gland or the lesion.
        stages: stages of the encoder, from 1; none for the last.
        windows: cover images larger than `shape` by overlapping windows instead of cropping them.
        labels: region -> the mask values that make it; every value above zero by default.
    """

    shape: tuple[int, int, int] = (64, 224, 224)
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
    modalities: tuple[str, ...] = ("t2", "dwi", "adc")
    pool: Pool = "global"
    stages: tuple[int, ...] = ()
    windows: bool = False
    labels: Mapping[str, Sequence[int]] | None = None


def embed_cohort(
    cohort: Cohort,
    encoder: ConvNeXtV2,
    *,
    settings: EmbeddingSettings = EmbeddingSettings(),
    batch_size: int = 4,
    cache: Path | None = None,
    progress: bool = False,
) -> tuple[CohortEmbeddings, tuple[CaseError, ...]]:
    """Embeds every case of a cohort that can be read.

    Args:
        cohort: from `lens.cohort.read_manifest`.
        encoder: the encoder.
        settings: grid, channels and pooling.
        batch_size: volumes per pass.
        cache: folder of finished cases, keyed by the content of images, encoder and settings; a
            second run reads them from there, an interrupted one goes on.
        progress: show a progress bar.

    Returns:
        The embeddings, and an error for every case set aside (the manifest's own among them).

    Raises:
        InputError: the settings do not fit the encoder, or no case could be embedded.
    """
    _check(encoder, settings)
    keys = _Keys(encoder, settings, cache)
    rows: dict[int, np.ndarray] = {}
    errors = list(cohort.set_aside)
    with tqdm(total=len(cohort.cases), desc="embed", unit="case", disable=not progress) as bar:
        todo = []
        for index, files in enumerate(cohort.cases):
            done = keys.find(files)
            if done is None:
                todo.append((index, files))
            else:
                rows[index] = done
                bar.update()
        members = _read_ahead(todo, settings)
        while batch := list(islice(members, batch_size)):
            good = [(index, read) for index, read in batch if isinstance(read, _Read)]
            errors += [read for _, read in batch if isinstance(read, CaseError)]
            for (index, _), row in zip(
                good, _rows(encoder, good, settings, batch_size), strict=True
            ):
                files = cohort.cases[index]
                if np.isfinite(row).all():
                    rows[index] = row
                    keys.keep(files, row)
                else:
                    errors.append(_not_finite(files))
            bar.update(len(batch))
    if not rows:
        raise InputError(f"{cohort.path}: no case could be embedded; the first: {errors[0]}")
    used = [cohort.cases[index] for index in sorted(rows)]
    studies = tuple(files.study_id or "" for files in used)
    embeddings = CohortEmbeddings(
        tuple(files.patient_id for files in used),
        studies if any(studies) else None,
        np.stack([rows[index] for index in sorted(rows)]),
    )
    return embeddings, tuple(errors)


@dataclass(frozen=True)
class _Read:
    volume: Float[np.ndarray, "d h w c"]
    mask: Bool[np.ndarray, "d h w"] | None


class _Keys:
    """Finished cases on disk, each under the hash of all it depends on."""

    def __init__(
        self, encoder: ConvNeXtV2, settings: EmbeddingSettings, folder: Path | None
    ) -> None:
        self._folder = folder
        self._known: dict[int, str] = {}
        digest = hashlib.sha256(json.dumps([asdict(encoder.config), asdict(settings)]).encode())
        if folder is not None:
            for name, parameter in sorted(parameters(encoder).items()):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(parameter[...]).tobytes())
        self._common = digest.hexdigest()

    def find(self, files: CaseFiles) -> np.ndarray | None:
        path = self._path(files)
        return np.load(path)["embedding"] if path is not None and path.is_file() else None

    def keep(self, files: CaseFiles, row: np.ndarray) -> None:
        path = self._path(files)
        if path is not None:
            write_arrays(path, embedding=row)

    def _path(self, files: CaseFiles) -> Path | None:
        if self._folder is None:
            return None
        if id(files) not in self._known:
            named = {**files.images, **files.masks}
            parts = [self._common, *(f"{name} {file_hash(p)}" for name, p in named.items())]
            self._known[id(files)] = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return self._folder / f"{self._known[id(files)]}.npz"


def _check(encoder: ConvNeXtV2, settings: EmbeddingSettings) -> None:
    config = encoder.config
    if len(settings.modalities) != config.in_channels:
        raise InputError(
            f"the encoder reads {config.in_channels} channels, and {len(settings.modalities)} "
            f"modalities are given ({', '.join(settings.modalities)}); name one per channel, a "
            "name that the cohort lacks gives zeros"
        )
    if set(settings.stages) - set(range(1, len(config.widths) + 1)):
        raise InputError(f"stages {settings.stages}: the encoder has 1 to {len(config.widths)}")
    if config.dims == 2 and (settings.pool != "global" or settings.windows):
        raise InputError("a 2D encoder reads slices; regions and windows need a 3D encoder")
    stride = config.total_strides[-1]
    sides = settings.shape[1:] if config.dims == 2 else settings.shape
    if any(side < stride or side % stride for side in sides):
        raise InputError(
            f"shape {settings.shape}: each side must be a multiple of {stride} voxels, the total "
            "stride of the encoder"
        )


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
        case = read_case(files, spacing_mm=settings.spacing_mm, labels=settings.labels)
        shape = _full_shape(case, settings) if settings.windows else settings.shape
        volume = stack(case, shape=shape, modalities=settings.modalities)
        if settings.pool == "global":
            return _Read(volume, None)
        mask = stack_mask(case, settings.pool, shape=shape)
        if not mask.any():
            raise CaseError(
                files.patient_id,
                files.masks.get(settings.pool, ""),
                stage="embed",
                reason=f"no voxel of the {settings.pool} lies in the crop of {shape} voxels",
                remedy="Draw the region, enlarge the shape, or pool over another one.",
            )
        return _Read(volume, mask)
    except CaseError as error:
        return error


def _full_shape(case: Case, settings: EmbeddingSettings) -> tuple[int, int, int]:
    """The image's own size where it exceeds the window."""
    image: sitk.Image = next(iter(case.images.values()))
    x, y, z = image.GetSize()
    depth, height, width = settings.shape
    return max(z, depth), max(y, height), max(x, width)


def _rows(
    encoder: ConvNeXtV2,
    batch: Sequence[tuple[int, _Read]],
    settings: EmbeddingSettings,
    batch_size: int,
) -> Sequence[np.ndarray]:
    if not batch:
        return []
    reads = [read for _, read in batch]
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
    return list(embed(encoder, volumes, masks=regional, stages=stages, batch_size=batch_size))


def _not_finite(files: CaseFiles) -> CaseError:
    return CaseError(
        files.patient_id,
        next(iter(files.images.values())),
        stage="embed",
        reason="the embedding is not finite",
        remedy="Look for extreme intensities in the images; the encoder may not fit them.",
    )
