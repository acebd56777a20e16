"""Enhanced multi-frame MR files: their headers under the tags that classic ones have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lens.cohort.dicom_frames import ordered_planes
from lens.cohort.dicom_header import frame_count, read_header, value
from lens.cohort.headers import HeaderFault

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
"""SOP class of an enhanced MR image."""

CLASSIC = {
    "ImageOrientationPatient": "0020|0037",
    "DiffusionBValue": "0018|9087",
    "EffectiveEchoTime": "0018|0081",
}
"""Attribute of a functional group -> the tag that a classic header has for it."""


class Enhanced(NamedTuple):
    """What an enhanced file says of itself.

    Attributes:
        tags: as a classic header would have them, ``0018|0081`` -> value.
        frames: number of them.
        fault: why its frames are no volume; None where they are one.
    """

    tags: dict[str, str]
    frames: int
    fault: HeaderFault | None


def is_enhanced(tags: Mapping[str, str]) -> bool:
    """Whether a header is that of an enhanced MR image, or of a file with several frames.

    Args:
        tags: DICOM tag -> value.
    """
    frames = tags.get("0028|0008", "1").strip("\0 ")
    return tags.get("0008|0016", "").strip("\0 ") == ENHANCED_MR or frames not in ("", "1")


def read_enhanced(path: Path, tags: Mapping[str, str]) -> Enhanced:
    """The header of an enhanced file, completed from its functional groups.

    Args:
        path: the file.
        tags: of its header outside of the groups.
    """
    try:
        header = read_header(path)
    except HeaderFault as fault:
        return Enhanced(dict(tags), 1, fault)
    found = dict(tags)
    for keyword, tag in CLASSIC.items():
        told = value(header, keyword, 0, default=None)
        if told is not None and tag not in found:
            found[tag] = _text(told)
    kinds = [found.get("0008|0008", ""), _text(value(header, "FrameType", 0, default=""))]
    found["0008|0008"] = "\\".join(filter(None, kinds))
    if "0018|0020" not in found:
        spin = header.get("EchoPulseSequence") == "SPIN"
        planar = header.get("EchoPlanarPulseSequence") == "YES"
        found["0018|0020"] = "\\".join(["SE"] * spin + ["EP"] * planar)
    try:
        ordered_planes(header)
    except HeaderFault as fault:
        return Enhanced(found, frame_count(header), fault)
    return Enhanced(found, frame_count(header), None)


def _text(told: object) -> str:
    if isinstance(told, str | bytes | int | float):
        return str(told)
    try:
        return "\\".join(str(each) for each in told)  # pyright: ignore[reportGeneralTypeIssues]
    except TypeError:
        return str(told)
