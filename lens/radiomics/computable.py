"""What parameters give, tried on a small image before the first patient is read.

PyRadiomics leaves out what it cannot compute (a filter whose package is missing, a feature that is
deprecated) with a line in its log, and the table would lack the columns without a word.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import SimpleITK as sitk

from lens.cohort.manifest import CaseFiles, Cohort
from lens.errors import CaseError, InputError
from lens.radiomics.extract import Region, given
from lens.radiomics.honoured import check_label
from lens.radiomics.parameters import Parameters, parameters_for

SIZE, ROI = 40, 6
"""Voxels along an edge of the image, and of the region in its middle."""

EASY = {
    "minimumROIDimensions": 1,
    "minimumROISize": None,
    "resegmentRange": None,
    "resampledPixelSpacing": None,
    "preCrop": False,
    "distances": [1],
}
"""Settings that do not decide which features there are, with which any region will do."""

DEPENDENT = {"LoG", "LBP2D", "LBP3D"}
"""Filters that some images or machines have nothing of."""

PACKAGES = {"LBP2D": {"skimage": "scikit-image"}, "LBP3D": {"trimesh": "trimesh"}}
"""What filters need beside PyRadiomics: module and package that has it."""


@lru_cache(maxsize=64)
def computed(parameters: Parameters, flat: bool = False) -> frozenset[str]:
    """Names ``<image>_<class>_<feature>`` of what these parameters give of a region that has all.

    Args:
        parameters: of one modality.
        flat: the images are of a single slice.

    Raises:
        InputError: a filter, a feature class or a feature that the file names gives nothing here,
            with the reason.
    """
    classes = parameters.classes
    if flat:
        _check_in_plane(parameters)
    elif "shape2D" in classes:
        raise InputError(
            f"{parameters.file}: shape2D is of regions of a single slice, and here every region "
            "has two or more along each axis. Take it out of featureClass, or ask for shape"
        )
    names: set[str] = set()
    for image in parameters.images:
        found, said = _tried(parameters, image, flat)
        texture = {name for name in found if "_shape" not in name}
        if not texture and classes.keys() - {"shape", "shape2D"}:
            raise InputError(f"{parameters.file}: {image} {_why(image, said)}")
        names |= found
    for group, asked in classes.items():
        here = {name.rsplit("_", 1)[1] for name in names if f"_{group}_" in name}
        if absent := sorted(set(asked or ()) - here):
            raise InputError(
                f"{parameters.file}: PyRadiomics gives no value for {group} {absent[0]}, which is "
                "deprecated. Take it out of featureClass"
            )
    return frozenset(names)


def check_computable(
    cohort: Cohort, parameters: Mapping[str, Parameters], labels: Mapping[str, Sequence[int]]
) -> None:
    """Refuses before any image is read what no case could be extracted with.

    Args:
        cohort: the cases.
        parameters: by modality.
        labels: region -> the mask values that make it.

    Raises:
        InputError: a modality without parameters, or parameters that ask for what gives nothing
            here or for another label.
    """
    modalities = dict.fromkeys(name for files in cohort.cases for name in files.images)
    regions = list(dict.fromkeys(name for files in cohort.cases for name in files.regions))
    if not regions:
        raise InputError(
            f"{cohort.path}: no case has a mask, and features are of regions. Name the columns "
            "with masks: --rois NAME"
        )
    for modality in modalities:
        chosen = parameters_for(parameters, modality)
        check_label(chosen.file, chosen.label, regions, labels)
        computed(chosen, cohort.flat)


def count_columns(case: CaseFiles, parameters: Mapping[str, Parameters]) -> int:
    """Columns of the radiomics table that a case with these images and masks gives, about.

    Args:
        case: names its modalities and regions.
        parameters: by modality.
    """
    per_region = sum(
        len(computed(parameters_for(parameters, name), case.flat)) for name in case.images
    )
    return per_region * len(case.regions)


def check_complete(
    files: CaseFiles,
    regions: Mapping[tuple[str, str], Region],
    parameters: Mapping[str, Parameters],
) -> None:
    """Refuses a case in which a filter left something out that it gives elsewhere.

    Raises:
        CaseError: as said; an image smaller than the filter is the usual cause.
    """
    for (modality, roi), region in regions.items():
        chosen = parameters_for(parameters, modality)
        if chosen.images.keys().isdisjoint(DEPENDENT):
            continue
        if lost := computed(chosen, files.flat) - region.features.keys():
            images = sorted({name.split("_")[0] for name in lost})
            raise CaseError(
                files.patient_id,
                files.images.get(modality, ""),
                stage="radiomics",
                reason=f"{modality}: no {', '.join(images)} of {roi}: the filter is wider than the "
                "image, or a package that it needs is missing where the work is done",
                remedy=f"Leave out this patient, or take the filter out of {chosen.file}.",
            )


def _check_in_plane(parameters: Parameters) -> None:
    """Refuses parameters that would look for neighbours beside a single slice."""
    wavelet = parameters.images.get("Wavelet")
    if not parameters.settings.get("force2D"):
        raise InputError(
            f"{parameters.file}: the images are of a single slice, and texture is looked for in "
            "three dimensions. Write force2D: true below setting"
        )
    if wavelet is not None and not (parameters.settings | wavelet).get("force2D"):
        raise InputError(f"{parameters.file}: Wavelet has force2D: false; take it out")
    if "shape" in parameters.classes:
        raise InputError(
            f"{parameters.file}: shape is of volumes, and the images are of a single slice. Ask "
            "for shape2D"
        )


def _tried(parameters: Parameters, image: str, flat: bool) -> tuple[set[str], list[str]]:
    """The features of one image type on noise, and what PyRadiomics said meanwhile."""
    content = json.loads(parameters.content)
    own = content["imageType"][image]
    sigma = max([1.0, *own.get("sigma", ()), *content["setting"].get("sigma", ())])
    for settings in (content["setting"], own):
        settings.pop("binWidth", None)
        settings["binCount"] = 8
    content["setting"] |= EASY
    content["imageType"] = {image: own}
    easy = Parameters(parameters.file, json.dumps(content))
    volume = np.random.default_rng(0).uniform(1, 1000, (SIZE, SIZE, SIZE)).astype(np.float32)
    mask = np.zeros(volume.shape, np.uint8)
    mask[(slice((SIZE - ROI) // 2, (SIZE + ROI) // 2),) * 3] = 1
    if flat:
        volume, mask = volume[SIZE // 2, None], mask[SIZE // 2, None]
    pair = sitk.GetImageFromArray(volume), sitk.GetImageFromArray(mask)
    for each in pair:
        # A voxel of a quarter of the widest filter, which then fits into the image.
        each.SetSpacing((sigma / 4,) * 3)
    with _overheard() as said:
        try:
            return given(*pair, easy), said
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            return set(), [*said, f"{type(error).__name__}: {error}"]


def _why(image: str, said: list[str]) -> str:
    """Why a filter gives nothing, and what to do."""
    missing = [name for module, name in PACKAGES.get(image, {}).items() if not find_spec(module)]
    if image == "LBP3D" and not _has_sph_harm():
        missing.append("scipy<1.17")
    if missing:
        needs = " and ".join(missing)
        quoted = " ".join(f"'{name}'" if "<" in name else name for name in missing)
        return f"needs {needs}: pip install {quoted}, or take {image} out of imageType"
    if image == "LoG" and not said:
        return "has no sigma: give its widths in mm, such as LoG: {sigma: [1.0, 3.0]}"
    return f"cannot be computed here ({'; '.join(said) or 'no image comes of it'}). Take it out"


def _has_sph_harm() -> bool:
    import scipy.special

    return hasattr(scipy.special, "sph_harm")


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """The warnings that PyRadiomics logs within the block, which no one else hears."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log: Any = logging.getLogger("radiomics")
    before, propagates, listener = log.level, log.propagate, Listener(logging.WARNING)
    others, log.handlers = log.handlers, [listener]
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        yield said
    finally:
        log.handlers = others
        log.setLevel(before)
        log.propagate = propagates
