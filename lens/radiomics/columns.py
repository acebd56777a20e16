"""How many features parameters ask for, told without an image."""

from __future__ import annotations

from collections.abc import Mapping

from lens.cohort.manifest import CaseFiles
from lens.radiomics.engine import pyradiomics
from lens.radiomics.parameters import Parameters, parameters_for

SHAPES = ("shape", "shape2D")
"""Classes that are of the region alone, once for all filtered images."""

BANDS = 8
"""Images that one level of a wavelet transform in three axes gives."""


def count_columns(case: CaseFiles, parameters: Mapping[str, Parameters]) -> int:
    """Columns of the radiomics table that a case with these images and masks gives.

    Args:
        case: names its modalities and regions.
        parameters: by modality.
    """
    per_region = sum(_features(parameters_for(parameters, name)) for name in case.images)
    return per_region * len(case.masks)


def _features(parameters: Parameters) -> int:
    """Features of one region in one modality."""
    known = pyradiomics().featureextractor.getFeatureClasses()
    counts = {
        name: len(asked or _in_force(known[name])) for name, asked in parameters.classes.items()
    }
    shapes = sum(count for name, count in counts.items() if name in SHAPES)
    images = sum(_images(name, settings or {}) for name, settings in parameters.images.items())
    # Shape features come with the image as it is.
    return images * (sum(counts.values()) - shapes) + shapes * ("Original" in parameters.images)


def _in_force(feature_class: object) -> list[str]:
    """Features that a class computes where none is named: all but the deprecated ones."""
    names: dict[str, bool] = feature_class.getFeatureNames()  # pyright: ignore[reportAttributeAccessIssue]
    return [name for name, deprecated in names.items() if not deprecated]


def _images(name: str, settings: Mapping[str, object]) -> int:
    """Images that a filter makes of one."""
    if name == "Wavelet":
        return (BANDS - 1) * _number(settings, "level", 1) + 1
    if name == "LoG":
        sigmas = settings.get("sigma")
        return len(sigmas) if isinstance(sigmas, list | tuple) else 1
    if name == "LBP3D":
        return _number(settings, "lbp3DLevels", 2) + 1
    return 1


def _number(settings: Mapping[str, object], name: str, default: int) -> int:
    value = settings.get(name)
    return value if isinstance(value, int) else default
