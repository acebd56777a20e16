"""A cohort as one small file: what training reads, wherever it runs.

Volumes are kept in steps, neighbours along a row as differences, which compress well; weights as
bfloat16. Both are what all runs of a study start from, so that nothing is compared across them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from encoders.encoder import parameters
from lens.files import atomic

HIGHEST = 255
"""Of a code."""


@dataclass(frozen=True)
class Pack:
    """What training reads of a cohort.

    Attributes:
        patient_id, study_id: of each row; studies are empty text where there are none.
        split: train, val or test.
        volumes: (n, D, H, W, 1), as the encoder is shown them.
        masks: region -> (n, D, H, W).
        label: of each row, classes or numbers.
    """

    patient_id: Shaped[np.ndarray, " n"]
    study_id: Shaped[np.ndarray, " n"]
    split: Shaped[np.ndarray, " n"]
    volumes: Float[np.ndarray, "n d h w 1"]
    masks: Mapping[str, Bool[np.ndarray, "n d h w"]]
    label: Shaped[np.ndarray, " n"]

    def rows(self, part: str) -> np.ndarray:
        """The rows of a part of the split."""
        return np.flatnonzero(self.split == part)


def write_pack(path: Path, pack: Pack, *, step: float, zero: int) -> None:
    """Writes a pack.

    Args:
        path: of the ``.npz`` file.
        pack: what to write.
        step: of the volumes, in their unit. Zero stays exactly zero, which is background.
        zero: code of zero, from 0 to 255; values beyond the codes are clipped.
    """
    codes = np.clip(np.rint(pack.volumes[..., 0] / step) + zero, 0, HIGHEST).astype(np.uint8)
    _compressed(
        path,
        patient_id=pack.patient_id,
        study_id=pack.study_id,
        split=pack.split,
        label=pack.label,
        step=np.array(step),
        zero=np.array(zero),
        volumes=differences(codes),
        **{f"mask-{roi}": mask for roi, mask in pack.masks.items()},
    )


def read_pack(path: Path) -> Pack:
    """A pack as it was written, its volumes to half a step."""
    stored = dict(np.load(path))
    codes = sums(stored["volumes"]).astype(np.float32)
    volumes = (codes - np.float32(stored["zero"])) * np.float32(stored["step"])
    masks = {name[5:]: array for name, array in stored.items() if name.startswith("mask-")}
    named = {name: stored[name] for name in ("patient_id", "study_id", "split", "label")}
    return Pack(volumes=volumes[..., None], masks=masks, **named)


def differences(codes: UInt8[np.ndarray, "*rows w"]) -> UInt8[np.ndarray, "*rows w"]:
    """Each value less the one before it in its row, modulo 256."""
    return np.diff(codes, axis=-1, prepend=np.zeros_like(codes[..., :1]))


def sums(codes: UInt8[np.ndarray, "*rows w"]) -> UInt8[np.ndarray, "*rows w"]:
    """What `differences` was given."""
    return np.cumsum(codes, axis=-1, dtype=np.uint8)


def write_weights(path: Path, encoder: Any) -> None:
    """Writes an encoder's parameters as bfloat16, high bytes and low bytes apart."""
    arrays = {}
    for name, parameter in parameters(encoder).items():
        bits = np.ascontiguousarray(parameter[...], np.float32).view(np.uint32)
        # To the nearest, ties to even, as hardware rounds.
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        arrays[name] = np.stack([rounded >> 8, rounded & 0xFF]).astype(np.uint8)
    _compressed(path, **arrays)


def read_weights(path: Path, encoder: Any) -> None:
    """Sets an encoder's parameters from a file of `write_weights`, in place.

    Raises:
        KeyError: the file lacks a parameter.
    """
    stored = np.load(path)
    for name, parameter in parameters(encoder).items():
        high, low = stored[name].astype(np.uint32)
        parameter[...] = (((high << 8) | low) << 16).view(np.float32)


def of_cached(cached: Any, label: str, regions: Sequence[str], *, numbers: bool) -> Pack:
    """The pack of a cohort in the cache of `encoders.volumes`.

    Args:
        cached: from `encoders.volumes.cache_cohort`.
        label: column of the manifest.
        regions: whose masks are taken.
        numbers: the label is a number.
    """
    cases = cached.cases
    values = [files.labels[label] for files in cases]
    return Pack(
        patient_id=np.array([files.patient_id for files in cases]),
        study_id=np.array([files.study_id or "" for files in cases]),
        split=np.array([files.split for files in cases]),
        volumes=np.asarray(cached.volumes()[:], np.float32),
        masks={roi: np.asarray(cached.masks(roi)[:], bool) for roi in regions},
        label=np.array(values, float) if numbers else np.array(values, str),
    )


def _compressed(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
