"""Embeddings of edited images: all versions of a patient by all encoders, kept once made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from encoders.case_cache import CaseCache
from encoders.cohort_embeddings import EmbeddingSettings, embed_versions
from encoders.encoder import Encoder, encoder_hash
from encoders.functions import FunctionEncoder
from lens.cohort import Case, CaseFiles, read_case, stack, stack_mask
from lens.edits.catalogue import Target
from lens.edits.versions import ARMS, Editable, Version, editable, versions
from lens.errors import CaseError

CODE = (__name__, "encoders.families", "encoders.sources")
"""Modules behind an embedding: those of every family of encoders among them."""

AnyEncoder = Encoder | FunctionEncoder


@dataclass(frozen=True)
class EditSettings:
    """How a case is edited and seen.

    Attributes:
        targets: edits and what they are done to.
        embedding: as of the originals, without windows.
        edge_mm: of `lens.edits.versions.Editable`.
        seed: of texture and noise.
        anew: standardise an edited image by itself, as a real one would be; otherwise as the
            original, so that the edit stays in its region.
    """

    targets: tuple[Target, ...]
    embedding: EmbeddingSettings
    edge_mm: float = 0.0
    seed: int = 0
    anew: bool = False

    def versions(self) -> int:
        """Edited images per patient and encoder."""
        return sum(len(target.edit.doses) for target in self.targets) * len(ARMS)


class EditedCase(NamedTuple):
    """What edits did to the embeddings of one case.

    Attributes:
        original: encoder -> (d,).
        change: encoder -> per target (doses, arms, d), less the original; NaN where there is no
            such version.
        rms: per target (doses, arms), the size of the change in standard deviations of the image.
        clipped: per target (doses, arms), share of the changed voxels held at an end of the range.
        found: per target, the kind of control region: ``copy``, ``shell`` or ``none``.
        refused: target -> why the edit cannot be made in this patient, and what to do.
    """

    original: dict[str, Float[np.ndarray, " d"]]
    change: dict[str, list[np.ndarray]]
    rms: list[np.ndarray]
    clipped: list[np.ndarray]
    found: list[str]
    refused: dict[int, tuple[str, str]]


def embed_edits(
    cases: Sequence[CaseFiles],
    encoders: Mapping[str, AnyEncoder],
    settings: EditSettings,
    *,
    batch_size: int = 8,
    cache: Path | None = None,
    progress: bool = False,
) -> tuple[dict[int, EditedCase], list[CaseError]]:
    """Edits cases one by one and embeds all versions.

    Args:
        cases: a study per patient.
        encoders: by name.
        settings: what to do.
        batch_size: volumes per pass.
        cache: folder of finished cases.
        progress: show a progress bar.

    Returns:
        Place in `cases` -> what edits did; and an error for each case that cannot be edited at all,
        or not by some edit.
    """
    kept = cache and CaseCache(
        cache, CODE, "edits", settings, {name: _hash(each) for name, each in encoders.items()}
    )
    done: dict[int, EditedCase] = {}
    errors: list[CaseError] = []
    for index, files in enumerate(tqdm(cases, desc="edit", unit="case", disable=not progress)):
        path = kept.find(files) if kept else None
        if path:
            with np.load(path) as arrays:
                done[index] = _unpacked(arrays, settings)
        else:
            try:
                made = edit_case(files, encoders, settings, batch_size)
            except CaseError as error:
                errors.append(error)
                continue
            done[index] = made
            if kept:
                kept.keep(files, (), **_packed(made))
        errors += _refusals(files, done[index], settings)
    return done, errors


def edit_case(
    files: CaseFiles,
    encoders: Mapping[str, AnyEncoder],
    settings: EditSettings,
    batch_size: int,
) -> EditedCase:
    """What edits do to the embeddings of one case.

    Raises:
        CaseError: it cannot be read, or no edit can be made in it.
    """
    seen = settings.embedding
    case = read_case(files, spacing_mm=seen.spacing_mm, labels=seen.labels)
    mask = None
    if seen.pool != "global":
        mask = stack_mask(case, seen.pool, shape=seen.shape)
        if not mask.any():
            raise CaseError(
                files.patient_id, "", stage="edit", reason=f"no {seen.pool} in the crop",
                remedy="Draw the region, enlarge the shape, or pool over another one.",
            )  # fmt: skip
    ready = {
        roi: editable(case, roi, edge_mm=settings.edge_mm, seed=settings.seed)
        for roi in dict.fromkeys(target.roi for target in settings.targets)
    }
    scalings = None if settings.anew else next(iter(ready.values())).scalings

    def embedded(versions: Sequence[Case]) -> dict[str, np.ndarray]:
        volumes = [
            stack(each, shape=seen.shape, modalities=seen.modalities, scalings=scalings)
            for each in versions
        ]
        return {
            name: embed_versions(encoder, volumes, mask, seen, batch_size)
            for name, encoder in encoders.items()
        }

    original = {name: rows[0] for name, rows in embedded([case]).items()}
    out = EditedCase(original, {name: [] for name in encoders}, [], [], [], {})
    for at, target in enumerate(settings.targets):
        shape = (len(target.edit.doses), len(ARMS))
        of, images = ready[target.roi], target.images(tuple(case.images))
        rms, clipped, found = np.full(shape, np.nan), np.full(shape, np.nan), "none"
        change = {name: np.full((*shape, len(row)), np.nan) for name, row in original.items()}
        try:
            found = _kind(of, target)
            flow = _numbered(of, target, images)
            while batch := list(islice(flow, batch_size)):
                rows = embedded([version.case for _, version in batch])
                for place, (cell, version) in enumerate(batch):
                    rms[cell], clipped[cell] = version.rms, version.clipped
                    for name in encoders:
                        change[name][cell] = rows[name][place] - original[name]
        except CaseError as error:
            out.refused[at] = (error.reason, error.remedy)
        out.rms.append(rms)
        out.clipped.append(clipped)
        out.found.append(found)
        for name in encoders:
            out.change[name].append(change[name])
    if len(out.refused) == len(settings.targets):
        reason, remedy = out.refused[0]
        raise CaseError(files.patient_id, "", stage="edit", reason=reason, remedy=remedy)
    return out


def _numbered(
    of: Editable, target: Target, images: tuple[str, ...]
) -> Iterator[tuple[tuple[int, int], Version]]:
    """Versions with their place among doses and arms."""
    places = {dose: at for at, dose in enumerate(target.edit.doses)}
    for dose, arm, version in versions(of, target.edit, images):
        if version is not None:
            yield (places[dose], ARMS.index(arm)), version


def _kind(of: Editable, target: Target) -> str:
    elsewhere = of.outside(target.edit, target.images(tuple(of.case.images)))
    return "none" if elsewhere is None else elsewhere.found


def _hash(encoder: AnyEncoder) -> str:
    if isinstance(encoder, FunctionEncoder):
        return str(encoder.fingerprint)
    return encoder_hash(encoder)


def _packed(made: EditedCase) -> dict[str, np.ndarray]:
    facts = {"found": made.found, "refused": {str(at): why for at, why in made.refused.items()}}
    arrays = {"facts": np.array(json.dumps(facts))}
    for name, row in made.original.items():
        arrays[f"original/{name}"] = row
        arrays[f"change/{name}"] = np.concatenate(
            [each.reshape(-1, each.shape[-1]) for each in made.change[name]]
        )
    arrays["rms"] = np.concatenate([each.ravel() for each in made.rms])
    arrays["clipped"] = np.concatenate([each.ravel() for each in made.clipped])
    return arrays


def _unpacked(arrays: Mapping[str, np.ndarray], settings: EditSettings) -> EditedCase:
    facts = json.loads(str(arrays["facts"]))
    shapes = [(len(target.edit.doses), len(ARMS)) for target in settings.targets]
    ends = np.cumsum([a * b for a, b in shapes])[:-1]

    def split(values: np.ndarray) -> list[np.ndarray]:
        parts = np.split(values, ends)
        return [
            part.reshape(*shape, *values.shape[1:])
            for part, shape in zip(parts, shapes, strict=True)
        ]

    names = [name.partition("/")[2] for name in arrays if name.startswith("original/")]
    return EditedCase(
        {name: arrays[f"original/{name}"] for name in names},
        {name: split(arrays[f"change/{name}"]) for name in names},
        split(arrays["rms"]),
        split(arrays["clipped"]),
        facts["found"],
        {int(at): (why[0], why[1]) for at, why in facts["refused"].items()},
    )


def _refusals(files: CaseFiles, made: EditedCase, settings: EditSettings) -> list[CaseError]:
    """A finding per reason for which edits could not be made; the patient counts in the others."""
    found: dict[tuple[str, str], list[str]] = {}
    for at, why in made.refused.items():
        target = settings.targets[at]
        found.setdefault(why, []).append(f"{target.edit.name} of {target.modality}")
    return [
        CaseError(
            files.patient_id, "", stage="edit",
            reason=f"left out of {', '.join(edits)}: {reason}", remedy=remedy,
        )
        for (reason, remedy), edits in found.items()
    ]  # fmt: skip
