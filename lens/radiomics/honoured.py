"""What of a user's parameter file takes effect: every setting is honoured, refused or spoken of.

PyRadiomics' schema accepts more than an extraction heeds: settings that this package decides
elsewhere (which values of a mask are the region, how a mask comes onto the grid), those of voxel
maps, which it never makes, and those that PyRadiomics itself reads in another section. Such a file
would give numbers that it does not describe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lens.cohort.images import listed
from lens.cohort.placement import Placement
from lens.errors import CaseError, InputError

PER_IMAGE = frozenset(
    (
        "binWidth", "binCount", "voxelArrayShift", "force2D", "force2Ddimension", "distances",
        "symmetricalGLCM", "weightingNorm", "gldm_a", "sigma", "start_level", "level", "wavelet",
        "gradientUseSpacing", "lbp2DRadius", "lbp2DSamples", "lbp2DMethod", "lbp3DLevels",
        "lbp3DIcosphereRadius", "lbp3DIcosphereSubdivision",
    )
)  # fmt: skip
"""Settings that PyRadiomics heeds below an ``imageType``; the others it reads in ``setting``."""

ELSEWHERE = {
    "geometryTolerance": "masks are put onto the grid of the images, as R-geometry.csv says",
    "correctMask": "masks are put onto the grid of the images, as R-geometry.csv says",
    "label_channel": "masks have one channel; give a file per region",
}
"""Settings that this package decides in its own way, and which."""

CLASSES = ("firstorder", "glcm", "glrlm", "glszm", "ngtdm", "gldm", "shape")
"""Feature classes of a file that names none."""

NEEDS = {
    "normalizeScale": ("normalize",),
    "removeOutliers": ("normalize",),
    "resampledPixelSpacing": ("interpolator",),
    "interpolator": ("resampledPixelSpacing",),
    "padDistance": ("resampledPixelSpacing", "preCrop"),
    "resegmentMode": ("resegmentRange",),
    "resegmentShape": ("resegmentRange",),
    "force2Ddimension": ("force2D", "LBP2D"),
    "sigma": ("LoG",),
    **dict.fromkeys(("wavelet", "level", "start_level"), ("Wavelet",)),
    "gradientUseSpacing": ("Gradient",),
    **dict.fromkeys(("lbp2DRadius", "lbp2DSamples", "lbp2DMethod"), ("LBP2D",)),
    **dict.fromkeys(
        ("lbp3DLevels", "lbp3DIcosphereRadius", "lbp3DIcosphereSubdivision"), ("LBP3D",)
    ),
    "voxelArrayShift": ("firstorder",),
    "symmetricalGLCM": ("glcm",),
    "weightingNorm": ("glcm", "glrlm"),
    "distances": ("glcm", "ngtdm", "gldm"),
    "gldm_a": ("gldm",),
}
"""Settings that do nothing without one of these settings, filters or feature classes."""

DIAGNOSTICS = (
    "additionalInfo asks for diagnostics, which are no features and get no columns; R-geometry.csv "
    "and R-gray-levels.csv say as much"
)


def check_honoured(file: str, given: Mapping[str, Any]) -> list[str]:
    """Refuses what a parameter file asks for and would not get; gives what does nothing in it.

    Args:
        file: its name, for messages.
        given: its sections as written, valid by PyRadiomics' schema, without any default.

    Returns:
        Notes, a sentence each, on settings that have no effect together with the others.

    Raises:
        InputError: a setting that is not heeded, with what to do instead.
    """
    setting, images = given.get("setting") or {}, given.get("imageType") or {}
    if given.get("voxelSetting"):
        raise InputError(
            f"{file}: voxelSetting ({', '.join(given['voxelSetting'])}) is for maps of features; "
            "here a region gives one value. Take the section out"
        )
    for name, why in ELSEWHERE.items():
        if setting.get(name):
            raise InputError(f"{file}: {name} has no effect here: {why}. Take it out")
    for image, own in images.items():
        if misplaced := sorted(own.keys() - PER_IMAGE):
            raise InputError(
                f"{file}: {misplaced[0]} below imageType {image} has no effect: PyRadiomics reads "
                "it below setting alone. Move it there, where it holds for all images"
            )
    return list(_idle(file, given, setting, images))


def check_label(
    file: str, label: int | None, regions: Iterable[str], labels: Mapping[str, Sequence[int]]
) -> None:
    """Refuses another `label` of a parameter file than 1, which masks made here have.

    A file names one value for all regions, and the masks of a case are read once for all files:
    which values make a region is said per region.

    Args:
        file: its name.
        label: as written there; None where it is not.
        regions: of the cohort.
        labels: region -> the mask values that make it, as asked for beside the file.

    Raises:
        InputError: the label is not what is asked for, for a region of the cohort.
    """
    if label in (None, 1):
        return
    differing = [roi for roi in regions if tuple(labels.get(roi, ())) != (label,)]
    if not differing:
        return
    flags = " ".join(f"{roi}={label}" for roi in regions)
    raise InputError(
        f"{file}: label: {label} names the mask value of every region; say --label {flags} "
        "(each region with its own values), or take label out of the file"
    )


def check_taken(
    patient_id: str,
    placements: Iterable[Placement],
    files: Mapping[str, int],
    labels: Mapping[str, Sequence[int]],
) -> None:
    """Refuses a case of whose mask a parameter file's `label` names a part, and nothing else does.

    Args:
        patient_id: the patient.
        placements: of its images and masks.
        files: parameter file -> the label written there.
        labels: region -> the mask values that make it, as asked for beside the files.

    Raises:
        CaseError: a region without `labels` was made of other mask values than the label.
    """
    for placement in placements:
        for file, label in files.items():
            if not placement.taken or placement.name in labels or placement.taken == (label,):
                continue
            every = ",".join(map(str, placement.taken))
            raise CaseError(
                patient_id,
                placement.file,
                stage="radiomics",
                reason=f"{Path(file).name} says label: {label}, and the {placement.name} mask "
                f"holds {listed(dict(placement.labels))}",
                remedy=f"Say which values are the {placement.name}: --label "
                f"{placement.name}={label}, or {placement.name}={every}.",
            )


def _idle(
    file: str, given: Mapping[str, Any], setting: Mapping[str, Any], images: Mapping[str, Any]
) -> Iterator[str]:
    if setting.get("additionalInfo"):
        yield f"{file}: {DIAGNOSTICS}"
    classes = given.get("featureClass") or CLASSES
    yield from _without_need(f"{file}, setting", setting, {*(images or ["Original"]), *classes})
    for image, own in images.items():
        yield from _without_need(f"{file}, imageType {image}", own, {image, *classes, *setting})


def _without_need(where: str, settings: Mapping[str, Any], there: set[str]) -> Iterator[str]:
    on = {name for name, value in settings.items() if value}
    if "interpolator" not in settings:
        on.add("interpolator")  # PyRadiomics' default
    for name in settings:
        needs = NEEDS.get(name)
        if settings[name] is not None and needs and not (on | there) & set(needs):
            yield f"{where}: {name} does nothing without {' or '.join(needs)}"
    if {"binCount", "binWidth"} <= on:
        yield f"{where}: binWidth does nothing beside binCount"
