"""One case to radiomic features: every modality in every ROI."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

import lens.cohort.geometry as geometry
from lens.cohort.case import Case
from lens.cohort.intensities import Kind, Scaling, kind_of, margin_voxels, scaling
from lens.errors import CaseError
from lens.radiomics.binning import MAX_BINS, Bins, TooManyBins, binned_once
from lens.radiomics.compiled import load, loaded
from lens.radiomics.engine import one_thread, pyradiomics
from lens.radiomics.matrices import counted_here
from lens.radiomics.names import column_name
from lens.radiomics.parameters import Parameters, parameters_for
from lens.radiomics.region import bounding_box, found_here
from lens.radiomics.wavelet import filtered_here
from lens.radiomics.whole_image import statistics


class Region(NamedTuple):
    """One ROI in one modality, as measured.

    Attributes:
        features: value per ``<image>_<class>_<feature>``, in PyRadiomics' order.
        bins: gray levels per image; empty where only shape was asked for.
        voxels: of the ROI.
    """

    features: dict[str, float]
    bins: dict[str, Bins]
    voxels: int


def extract_case(
    case: Case,
    parameters: Mapping[str, Parameters],
    *,
    files: Mapping[str, Path] | None = None,
) -> dict[str, float]:
    """Radiomic features of a case, as a direct call of PyRadiomics on the same arrays gives them.

    The values of `extract_regions`, by column.
    """
    return columns(extract_regions(case, parameters, files=files))


def columns(regions: Mapping[tuple[str, str], Region]) -> dict[str, float]:
    """Value per column ``<modality>.<roi>.<image>_<class>_<feature>``."""
    return {
        column_name(modality, roi, name): value
        for (modality, roi), region in regions.items()
        for name, value in region.features.items()
    }


def extract_regions(
    case: Case,
    parameters: Mapping[str, Parameters],
    *,
    files: Mapping[str, Path] | None = None,
    scalings: Mapping[str, Scaling | None] | None = None,
    rois: Sequence[str] | None = None,
) -> dict[tuple[str, str], Region]:
    """Features and gray levels of a case.

    Args:
        case: images and 0/1 masks on one grid.
        parameters: by modality, from `load_parameters`.
        files: the file behind each modality, to be named in errors.
        scalings: of the whole images, where the case holds parts of them.
        rois: regions of which features are wanted; None for all.

    Returns:
        A region per modality and ROI, in the order of the case. A feature that the ROI does not
        define (GLCM of isolated voxels) is NaN.

    Raises:
        CaseError: no voxel, too few, not finite or constant inside an ROI, or too many gray levels.
        InputError: a modality without parameters, or no PyRadiomics.
    """
    regions: dict[tuple[str, str], Region] = {}
    for modality, image in case.images.items():
        chosen = parameters_for(parameters, modality)
        try:
            scaled = scalings[modality] if scalings else scaling_of(case, modality, chosen)
            for roi, mask in case.masks.items():
                if rois is None or roi in rois:
                    regions[modality, roi] = _measure_or_explain(image, mask, roi, chosen, scaled)
        except _Unusable as error:
            raise CaseError(
                case.patient_id,
                (files or {}).get(modality, ""),
                stage="radiomics",
                reason=f"{modality}: {error.reason}",
                remedy=error.remedy,
            ) from error
    return regions


def roi_features(image: sitk.Image, mask: sitk.Image, parameters: Parameters) -> dict[str, float]:
    """PyRadiomics' features of one ROI, in its order and by its names.

    Equals ``RadiomicsFeatureExtractor(file).execute(image, mask)`` without the diagnostics, and is
    faster: filters see the ROI and the margin that their kernels reach, not the whole image.
    Where this margin leaves the image, the edge voxels repeat; PyRadiomics' periodic wavelet would
    mix in the opposite edge.

    Args:
        image: intensities, 3D.
        mask: 0/1 on the same grid; a ``label`` in the parameters is not used.
        parameters: one modality's.
    """
    region = prepare(image, mask, parameters, intensity_scaling(image, parameters))
    return measure(*region, parameters).features


def scaling_of(case: Case, modality: str, parameters: Parameters) -> Scaling | None:
    """What an image of a case is standardised by; None where the parameters do not ask for it.

    By our own parameters an image in arbitrary units is standardised about the regions of its case,
    as encoders see it (`lens.cohort.intensities.scaling`); by a user's, as PyRadiomics does it.
    """
    image = case.images[modality]
    if not parameters.settings["normalize"]:
        return None
    if _about_regions(parameters, kind_of(modality, case.kinds)):
        return scaling(image, case.masks.values())
    return intensity_scaling(image, parameters)


def _about_regions(parameters: Parameters, kind: Kind) -> bool:
    """Whether what is standardised is so about the regions of its case, not over the image."""
    return parameters.packaged and kind == "mr"


def intensity_scaling(image: sitk.Image, parameters: Parameters) -> Scaling | None:
    """What PyRadiomics normalises the image by; None where the parameters do not ask for it."""
    return statistics(image) if parameters.settings["normalize"] else None


def margin_needed(
    kinds: Mapping[str, Kind],
    parameters: Mapping[str, Parameters],
    spacing_mm: Sequence[float],
) -> tuple[int, ...] | None:
    """Voxels (x, y, z) about the regions of a case that decide its features: what filters reach,
    and what an image in arbitrary units is standardised over.

    Args:
        kinds: modality -> what its numbers mean, of all modalities of the case.
        parameters: by modality.
        spacing_mm: (x, y, z) of the grid.

    Returns:
        The margin; None where the whole image decides: PyRadiomics' own normalisation, or filters
        of the whole image (`filter_reach`).
    """
    margins = []
    for modality, kind in kinds.items():
        chosen = parameters_for(parameters, modality)
        reach = filter_reach(chosen)
        normalised = chosen.settings["normalize"]
        if reach is None or (normalised and not _about_regions(chosen, kind)):
            return None
        near = margin_voxels(spacing_mm) if normalised else (0, 0, 0)
        margins.append(tuple(max(reach, along) for along in near))
    return tuple(map(max, zip(*margins, strict=True)))


def normalise(image: sitk.Image, parameters: Parameters, scaling: Scaling | None) -> sitk.Image:
    """`image`, which may be a part of the whole, normalised as PyRadiomics does (64-bit)."""
    if scaling is None:
        return image
    settings = parameters.settings
    image = sitk.ShiftScale(sitk.Cast(image, sitk.sitkFloat64), -scaling.mean, 1 / scaling.sd)
    outliers = settings["removeOutliers"]
    if outliers is not None:
        clipped = np.clip(sitk.GetArrayViewFromImage(image), -outliers, outliers)
        made = sitk.GetImageFromArray(clipped)
        made.CopyInformation(image)
        image = made
    return image * settings["normalizeScale"]


def prepare(
    image: sitk.Image,
    mask: sitk.Image,
    parameters: Parameters,
    scaling: Scaling | None,
) -> tuple[sitk.Image, sitk.Image]:
    """What the filters need to see of an image, normalised, and the mask on the same grid."""
    reach = filter_reach(parameters)
    if reach is not None:
        image, mask = cut_out(image, mask, margin=reach)
    return normalise(image, parameters, scaling), mask


def measure(image: sitk.Image, mask: sitk.Image, parameters: Parameters) -> Region:
    """PyRadiomics' features of an image from `prepare`, and the gray levels they rest on."""
    pyradiomics()
    # Late: a job whose workers do the extracting need not wait for compiled code.
    load()
    from lens.radiomics.classes import extractor

    with (
        one_thread(),
        found_here(),
        filtered_here(),
        binned_once() as bins,
        counted_here() as seen,
        warnings.catch_warnings(),
    ):
        # Means over no direction at all, for isolated voxels: the NaN is the message.
        warnings.simplefilter("ignore", RuntimeWarning)
        values = _executed(extractor(seen), image, mask, parameters)
    features = {name: float(value) for name, value in values.items()}
    textured = [name for name in features if not name.split("_")[1].startswith("shape")]
    images = dict.fromkeys(name.split("_")[0] for name in textured)
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
    return Region(features, dict(zip(images, bins, strict=True)), voxels)


def given(image: sitk.Image, mask: sitk.Image, parameters: Parameters) -> set[str]:
    """Names of the features that `measure` gives of a small image; compiles and loads nothing."""
    if loaded():
        return set(measure(image, mask, parameters).features)
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        plain = pyradiomics().featureextractor.RadiomicsFeatureExtractor()
        return set(_executed(plain, image, mask, parameters))


def _executed(
    chosen: Any, image: sitk.Image, mask: sitk.Image, parameters: Parameters
) -> dict[str, Any]:
    """What one of PyRadiomics' extractors gives of an image from `prepare`."""
    chosen.settings = parameters.settings | {
        "normalize": False,
        "additionalInfo": False,
        "label": 1,
        "label_channel": 0,
    }
    chosen.enabledImagetypes = parameters.images
    chosen.enabledFeatures = parameters.classes
    return chosen.execute(image, mask)


def filter_reach(parameters: Parameters) -> int | None:
    """Margin in voxels around an ROI with which a filter gives what it gives on the whole image.

    None where they depend on the whole image (other filters than the wavelet scale by its
    maximum or reach far), on its grid (resampling) or on a margin that the parameters name
    (preCrop): then PyRadiomics sees the whole image.
    """
    # Made in a compiled module, which pyright does not see.
    from pywt import Wavelet  # pyright: ignore[reportAttributeAccessIssue]

    settings, images = parameters.settings, parameters.images
    resampled = settings["resampledPixelSpacing"] is not None and settings["interpolator"]
    if resampled or settings["preCrop"] or not images.keys() <= {"Original", "Wavelet"}:
        return None
    if "Wavelet" not in images:
        return 0
    own = settings | images["Wavelet"]
    levels = own.get("start_level", 0) + own.get("level", 1)
    # Two more, because the periodic wavelet makes an odd length even with the opposite edge.
    return levels * (Wavelet(own.get("wavelet", "coif1")).dec_len // 2) + 2


def cut_out(image: sitk.Image, mask: sitk.Image, *, margin: int) -> tuple[sitk.Image, sitk.Image]:
    """The box around the ROI with `margin` voxels on every side, of the image and the mask.

    Beyond the edge of the image the edge voxels repeat and the mask is zero. A single slice gets no
    others beside it.
    """
    first, last = bounding_box(mask)
    size = image.GetSize()
    margins = [margin if n > 1 else 0 for n in size]
    start = [index - along for index, along in zip(first, margins, strict=True)]
    stop = [index + 1 + along for index, along in zip(last, margins, strict=True)]
    inside = [slice(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, size, strict=True)][::-1]
    below = [max(-a, 0) for a in start]
    above = [max(b - n, 0) for b, n in zip(stop, size, strict=True)]
    return (
        sitk.ZeroFluxNeumannPad(geometry.cut(image, tuple(inside)), below, above),
        sitk.ConstantPad(geometry.cut(mask, tuple(inside)), below, above, 0),
    )


class _Unusable(ValueError):
    """An ROI that gives no features; the case adds who and where."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason)


def _measure_or_explain(
    image: sitk.Image,
    mask: sitk.Image,
    roi: str,
    parameters: Parameters,
    scaling: Scaling | None,
) -> Region:
    """`measure`, with what PyRadiomics refuses put in words that a user can act on."""
    if not np.any(sitk.GetArrayViewFromImage(mask)):
        raise _Unusable(
            f"the mask of {roi} has no voxel",
            "Check the mask; where a patient has no such region, leave its cell empty.",
        )
    _check_roi(image, mask, roi)
    prepared, prepared_mask = prepare(image, mask, parameters, scaling)
    if not np.isfinite(sitk.GetArrayViewFromImage(prepared)).all():
        raise _Unusable(
            f"voxels outside {roi} are NaN or infinite, and normalisation or filters spread them",
            "Export the image again, or replace these voxels, for example by 0.",
        )
    try:
        return measure(prepared, prepared_mask, parameters)
    except TooManyBins as error:
        raise _Unusable(
            f"{error} in {roi}, more than the {MAX_BINS} that are allowed; GLCM would take about "
            f"{error.minutes:,.0f} min for this image alone",
            f"Choose coarser bins in {parameters.file}, for example {error.advice}: texture wants "
            "16 to 128 gray levels.",
        ) from error
    except ValueError as error:
        count = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        raise _Unusable(
            f"PyRadiomics refuses {roi} ({count} voxels on this grid): {error}",
            f"Check the mask, and minimumROISize and resegmentRange where {parameters.file} has "
            "them; where the region is too small for texture, leave its cell empty.",
        ) from error


def _check_roi(image: sitk.Image, mask: sitk.Image, roi: str) -> None:
    """Refuses what PyRadiomics turns into numbers without a word, or into an obscure error."""
    where = sitk.GetArrayViewFromImage(mask)
    box = geometry.box_of(where)
    inside = sitk.GetArrayViewFromImage(image)[box][where[box] > 0]
    bad = int(inside.size - np.isfinite(inside).sum())
    if bad:
        raise _Unusable(
            f"{bad} of {inside.size} voxels in {roi} are NaN or infinite",
            "Export the image again, or exclude these voxels from the mask.",
        )
    if inside.size > 1 and np.ptp(inside) == 0:
        raise _Unusable(
            f"the image is constant ({inside[0]:g}) in {roi}, so it has no texture",
            "Check that this is the right image and that it overlaps the mask.",
        )
