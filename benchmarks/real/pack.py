"""A cohort as one small file: what training reads, wherever it runs.

Volumes are kept in steps, neighbours along a row as differences, which compress well; weights as
bfloat16. Both are what all runs of a study start from, so that nothing is compared across them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from encoders.encoder import parameters
from lens.files import atomic

HIGHEST = 255
"""Of a code."""


class Written(NamedTuple):
    """What a code of a pack means: ``(code - zero) * step``."""

    step: float
    zero: int

    def values(self, codes: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """What codes stand for."""
        return (codes.astype(np.float32) - np.float32(self.zero)) * np.float32(self.step)


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
    codes = codes_of(pack.volumes, Written(step, zero))
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
    volumes = as_written(path).values(sums(stored["volumes"]))
    masks = {name[5:]: array for name, array in stored.items() if name.startswith("mask-")}
    named = {name: stored[name] for name in ("patient_id", "study_id", "split", "label")}
    return Pack(volumes=volumes[..., None], masks=masks, **named)


def as_written(path: Path) -> Written:
    """How the volumes of a pack were written."""
    with np.load(path) as stored:
        return Written(float(stored["step"]), int(stored["zero"]))


def codes_of(
    volumes: Float[np.ndarray, "*rows d h w 1"], written: Written
) -> UInt8[np.ndarray, "*rows d h w"]:
    """Volumes as codes; values beyond them are clipped."""
    codes = np.rint(volumes[..., 0] / written.step) + written.zero
    return np.clip(codes, 0, HIGHEST).astype(np.uint8)


def differences(codes: UInt8[np.ndarray, "*rows w"]) -> UInt8[np.ndarray, "*rows w"]:
    """Each value less the one before it in its row, modulo 256."""
    return np.diff(codes, axis=-1, prepend=np.zeros_like(codes[..., :1]))


def sums(codes: UInt8[np.ndarray, "*rows w"]) -> UInt8[np.ndarray, "*rows w"]:
    """What `differences` was given."""
    return np.cumsum(codes, axis=-1, dtype=np.uint8)


def write_weights(path: Path, encoder: Any, start: Any = None) -> None:
    """Writes an encoder's parameters as bfloat16, high bytes and low bytes apart.

    Args:
        path: of the ``.npz`` file.
        encoder: whose parameters are written.
        start: an encoder of the same shape, which `read_weights` then needs as well: its codes are
            taken off, modulo 2^16, so that training which changed little takes little room.
    """
    base = None if start is None else parameters(start)
    arrays = {}
    for name, parameter in parameters(encoder).items():
        codes = _codes(parameter)
        if base is not None:
            codes = codes - _codes(base[name])
        arrays[name] = np.stack([codes >> 8, codes & 0xFF]).astype(np.uint8)
    _compressed(path, **arrays)


def read_weights(path: Path, encoder: Any, start: Any = None) -> None:
    """Sets an encoder's parameters from a file of `write_weights`, in place.

    Args:
        path: of the file.
        encoder: of the shape of the one that was written.
        start: as it was written with.

    Raises:
        KeyError: the file lacks a parameter.
    """
    stored = np.load(path)
    base = None if start is None else parameters(start)
    for name, parameter in parameters(encoder).items():
        high, low = stored[name].astype(np.uint16)
        codes = (high << 8) | low
        parameter[...] = _values(codes if base is None else codes + _codes(base[name]))


def rounded(encoder: Any) -> Any:
    """A copy whose parameters are those that a file of `write_weights` gives back."""
    from flax import nnx

    copy = nnx.clone(encoder)
    for parameter in parameters(copy).values():
        parameter[...] = _values(_codes(parameter))
    return copy


def _codes(parameter: Any) -> Shaped[np.ndarray, "*shape"]:
    """The bits of bfloat16, to the nearest, ties to even, as hardware rounds."""
    bits = np.ascontiguousarray(parameter[...], np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _values(codes: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return (codes.astype(np.uint32) << 16).view(np.float32)


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
