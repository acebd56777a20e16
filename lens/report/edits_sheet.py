"""Contact sheet of the edits of one patient: the original, every dose, and the controls."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, UInt8
from PIL import Image

from lens.cohort.case import Case
from lens.cohort.intensities import box_about, kind_of
from lens.edits.catalogue import Target
from lens.edits.versions import Editable, edited, matched_noise
from lens.errors import CaseError
from lens.report.pictures import QUALITY, contour, eight_bit, window

SIDE = 120
"""Longest side of a picture, in pixels."""

DOSES = 4
"""Most doses of an edit that are shown."""


def sheet(ready: Mapping[str, Editable], targets: Sequence[Target]) -> dict[str, Any]:
    """Pictures of all edits of a patient, without a name.

    Args:
        ready: region -> the case.
        targets: edits; of one that moves contours, the first image is shown.

    Returns:
        ``rows``: a row per edit that can be made, with ``edit, roi, modality, size`` (columns, rows
        of a picture), ``strip`` (WebP, the pictures side by side) and ``tiles``: ``label`` and
        ``path``, the contour of the region as a path of SVG.
    """
    rows = []
    for target in targets:
        of = ready[target.roi]
        try:
            rows.append(_row(of, target))
        except CaseError:
            continue
    return {"rows": rows}


def _row(of: Editable, target: Target) -> dict[str, Any]:
    images = target.images(tuple(of.case.images))
    name, edit = images[0], target.edit
    shown = [*edit.doses][:DOSES]
    largest = max(shown, key=abs)
    versions: list[tuple[str, Case, np.ndarray]] = [("original", of.case, of.region)]
    for dose in shown:
        made = edited(of, edit, dose, images, of.region, carry=True).case
        region = sitk.GetArrayViewFromImage(made.masks[target.roi]) > 0
        versions.append((f"{dose:+g}", made, np.asarray(region)))
        if dose == largest:
            noise = matched_noise(of, made, images, sign=float(np.sign(dose))).case
    if (place := of.outside(edit, images)) is not None:
        made = edited(of, edit, largest, images, place.region, carry=False).case
        versions.append((f"outside {largest:+g}", made, place.region))
    versions.append((f"noise as {largest:+g}", noise, of.region))
    whole = np.logical_or.reduce([region for _, _, region in versions])
    shape, spacing = of.region.shape, of.spacing_mm
    rows, columns = box_about(shape, spacing[::-1], [whole])[1:]
    image = of.case.images[name]
    low, high = window(image, name, kind_of(name, of.case.kinds), of.case.masks)
    tiles, pictures = [], []
    for label, case, region in versions:
        # The slice on which most of the region lies.
        at = int(region.sum(axis=(1, 2)).argmax())
        voxels = sitk.GetArrayViewFromImage(case.images[name])[at : at + 1, rows, columns]
        pictures.append(eight_bit(voxels, low, high)[0])
        tiles.append({"label": label, "path": _path(region[at : at + 1, rows, columns])})
    size = pictures[0].shape[::-1]
    return {
        "edit": edit.name, "roi": target.roi, "modality": target.modality, "size": list(size),
        "unit": edit.about.unit, "strip": _strip(pictures), "tiles": tiles,
    }  # fmt: skip


def _path(region: Bool[np.ndarray, "d h w"]) -> str:
    return "".join(
        f"M{line.x} {line.y}" + (f"h{line.dx}" if line.dx else f"v{line.dy}")
        for line in contour(region)
    )


def _strip(pictures: Sequence[UInt8[np.ndarray, "h w"]]) -> str:
    """The pictures side by side as WebP, in base64."""
    rows, columns = pictures[0].shape
    share = min(1.0, SIDE / max(rows, columns))
    size = max(1, round(share * columns)), max(1, round(share * rows))
    strip = Image.new("L", (len(pictures) * size[0], size[1]))
    for at, each in enumerate(pictures):
        tile = Image.fromarray(np.ascontiguousarray(each))
        tile = tile if tile.size == size else tile.resize(size, Image.Resampling.BOX)
        strip.paste(tile, (at * size[0], 0))
    with io.BytesIO() as stream:
        strip.save(stream, "WEBP", quality=QUALITY, method=4)
        return base64.b64encode(stream.getvalue()).decode()
