"""PyRadiomics' extractor and feature classes, with the work that they repeat done once an image.

Each class of PyRadiomics copies image and mask out of SimpleITK, lists its own features and passes
over all voxels once a feature, or several times. The classes here are theirs, by inheritance, and
share arrays; those of which a feature passes over voxels or over all pairs of levels have it from
what the others have computed. Every operation on numbers that decides a last bit is done by the
same function on the same numbers in the same order, so that values are equal, not close.

What is ours are mixins; `extractor` puts them before PyRadiomics' classes, which are imported then.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import cache, cached_property, partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from lens.radiomics.engine import pyradiomics
from lens.radiomics.matrices import Seen, zone_sizes
from lens.radiomics.order import parted, percentile
from lens.radiomics.pairs import pair_features
from lens.radiomics.powers import power
from lens.radiomics.view import View
from lens.radiomics.wavelet import Band


def extractor(seen: Seen) -> Any:
    """PyRadiomics' ``RadiomicsFeatureExtractor`` with the classes of this module.

    Raises:
        InputError: no PyRadiomics.
    """
    made = _made()["extractor"]()
    made.seen, made.last = seen, None
    return made


@cache
def _made() -> dict[str, Any]:
    """Our extractor, and our feature classes by PyRadiomics' names."""
    package = pyradiomics()
    base = import_module(f"{package.__name__}.base").RadiomicsFeaturesBase
    shared = type("Shared", (_Shared, base), {})
    made: dict[str, Any] = {
        "extractor": type(
            "Extractor", (_Extractor, package.featureextractor.RadiomicsFeatureExtractor), {}
        )
    }
    for name, theirs in package.getFeatureClasses().items():
        if not name.startswith("shape"):
            mixins = (OURS[name],) if name in OURS else ()
            made[name] = type(
                theirs.__name__, (*mixins, theirs, shared), {"log": theirs.__module__}
            )
    return made


class _Extractor:
    """Makes arrays once an image."""

    seen: Seen
    last: View | None
    enabledFeatures: dict[str, Any]

    def computeShape(
        self, image: sitk.Image, mask: sitk.Image, boundingBox: np.ndarray, **settings: Any
    ) -> OrderedDict[str, Any]:
        if not any(name.startswith("shape") for name in self.enabledFeatures):
            return OrderedDict()
        theirs: Any = super()
        return theirs.computeShape(image, mask, boundingBox, **settings)

    def computeFeatures(
        self, image: sitk.Image | Band, mask: sitk.Image, imageTypeName: str, **settings: Any
    ) -> OrderedDict[str, Any]:
        view = self.last = View(image, mask, settings.get("label", 1), self.seen, self.last)
        if not np.isfinite(view.values).all():
            theirs: Any = super()
            plain = image.image() if isinstance(image, Band) else image
            return theirs.computeFeatures(plain, mask, imageTypeName, **settings)
        found: OrderedDict[str, Any] = OrderedDict()
        for name, chosen in self.enabledFeatures.items():
            if name.startswith("shape") or name not in _made():
                continue
            made = _made()[name](view, view, **settings)
            for feature in chosen or ():
                made.enableFeatureByName(feature)
            values = made.execute()
            found.update({f"{imageTypeName}_{name}_{key}": value for key, value in values.items()})
        return found


class _Shared:
    """Before the base of PyRadiomics' classes: takes the arrays from a `View`."""

    log = ""

    def __init__(self, inputImage: View, inputMask: View, **kwargs: Any) -> None:
        self.logger = logging.getLogger(self.log)
        self.settings = kwargs
        self.label = kwargs.get("label", 1)
        self.voxelBased = False
        self.coefficients: dict[str, Any] = {}
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Any] = {}
        self.featureNames = self.getFeatureNames()
        self.inputImage = inputImage
        self.inputMask = inputMask
        self.imageArray = inputImage.array
        self.maskArray = inputMask.mask

    @classmethod
    def getFeatureNames(cls) -> dict[str, bool]:
        return _names(cls)


@cache
def _names(cls: type) -> dict[str, bool]:
    """The features of a class, which PyRadiomics looks for among its methods."""
    return super(_Shared, cls).getFeatureNames()  # pyright: ignore


class _Glszm:
    """Zones, of the sizes that occur: PyRadiomics' matrix has a column for every other size too."""

    inputImage: View
    imageArray: np.ndarray
    maskArray: np.ndarray
    settings: dict[str, Any]
    coefficients: dict[str, Any]

    def _initCalculation(self, voxelCoordinates: None = None) -> None:
        if self.settings.get("force2D", False) or min(self.imageArray.shape) == 1:
            theirs: Any = super()
            return theirs._initCalculation(voxelCoordinates)
        level, size = zone_sizes(self.inputImage.seen.levels(self.imageArray, self.maskArray))
        gray = self.coefficients["grayLevels"]
        occurs = np.bincount(size) > 0
        sizes = np.flatnonzero(occurs)
        column, row = (np.cumsum(occurs) - 1)[size], np.zeros(gray[-1] + 1, np.int64)
        row[gray] = np.arange(gray.size)
        # With one or two columns to delete if PyRadiomics would have some: its order in memory.
        spare = min(int(sizes[-1]) - sizes.size, 2)
        shape = (1, gray.size, sizes.size + spare)
        cells = row[level] * shape[2] + column
        count = np.bincount(cells, minlength=shape[1] * shape[2]).astype(np.float64)
        empty = (np.arange(sizes.size, shape[2]),)
        self.P_glszm = np.delete(count.reshape(shape), empty, 2)
        self.coefficients |= {
            "Np": np.array([float(size.sum())]),
            "Nz": np.array([float(size.size)]),
            "ps": self.P_glszm.sum(1),
            "pg": self.P_glszm.sum(2),
            "ivector": gray.astype(float),
            "jvector": sizes.astype(np.float64),
        }
        return None


class _Glcm:
    """Pairs of neighbours, of which all features are computed at once."""

    P_glcm: Any
    symmetricalGLCM: bool
    coefficients: dict[str, Any]

    def _calculateCoefficients(self) -> None:
        p = self.P_glcm
        ordinary = self.symmetricalGLCM and len(p) == 1 and p.shape[3] > 1
        if not ordinary or p.strides[3] > min(p.strides[1:3]) or np.isnan(p).any():
            # With one direction, as after weighting, NumPy adds in another order.
            theirs: Any = super()
            return theirs._calculateCoefficients()
        found = pair_features(
            np.ascontiguousarray(np.moveaxis(p[0], 2, 0)),
            self.coefficients["grayLevels"],
            self.coefficients["Ng"],
            second_first=p.strides[2] > p.strides[1],
        )
        for name, value in found.items():
            setattr(self, f"get{name}FeatureValue", partial(_value, value))
        return None


def _value(value: Any) -> Any:
    return value


class _FirstOrder:
    """Statistics of the intensities, which are finite."""

    inputImage: View
    voxelBins: np.ndarray
    voxelArrayShift: float
    coefficients: dict[str, Any]

    def _initCalculation(self, voxelCoordinates: None = None) -> None:
        self.targetVoxelArray = self.inputImage.values.astype("float").reshape((1, -1))
        counts = np.bincount(self.voxelBins)
        counts = counts[counts > 0].reshape((1, -1))
        self.coefficients["p_i"] = counts.astype("float") / counts.sum(1, keepdims=True).astype(
            float
        )

    @cached_property
    def _ordered(self) -> np.ndarray:
        """The values that a feature asks for where sorting all would put them; anything between."""
        return parted(self.targetVoxelArray[0], PERCENTS)

    @cached_property
    def _mean(self) -> np.ndarray:
        return np.mean(self.targetVoxelArray, 1, keepdims=True)

    @cached_property
    def _centred(self) -> np.ndarray:
        return self.targetVoxelArray - self._mean

    @cached_property
    def _m2(self) -> np.ndarray:
        m2 = np.mean(np.power(self._centred, 2), 1)
        m2[m2 == 0] = 1
        return m2

    def _moment_of(self, exponent: Literal[3, 4]) -> np.ndarray:
        """Central moment; by ``power``, as PyRadiomics: a product rounds otherwise."""
        return np.mean(power(self._centred[0], exponent)[None], 1)

    @cached_property
    def _energy(self) -> np.ndarray:
        return np.sum((self.targetVoxelArray + self.voxelArrayShift) ** 2, 1)

    def _percentile(self, percent: float) -> np.ndarray:
        assert percent in PERCENTS
        return np.array([percentile(self._ordered, percent)])

    def getEnergyFeatureValue(self) -> Any:
        return self._energy

    def getMinimumFeatureValue(self) -> Any:
        return self._ordered[:1]

    def getMaximumFeatureValue(self) -> Any:
        return self._ordered[-1:]

    def get10PercentileFeatureValue(self) -> Any:
        return self._percentile(10.0)

    def get90PercentileFeatureValue(self) -> Any:
        return self._percentile(90.0)

    def getMedianFeatureValue(self) -> Any:
        size = self._ordered.size
        return np.mean(self._ordered[(size - 1) // 2 : size // 2 + 1], keepdims=True)

    def getInterquartileRangeFeatureValue(self) -> Any:
        return self._percentile(75.0) - self._percentile(25.0)

    def getRangeFeatureValue(self) -> Any:
        return self._ordered[-1:] - self._ordered[:1]

    def getMeanFeatureValue(self) -> Any:
        return self._mean[0]

    def getMeanAbsoluteDeviationFeatureValue(self) -> Any:
        return np.mean(np.absolute(self._centred), 1)

    def getRobustMeanAbsoluteDeviationFeatureValue(self) -> Any:
        values = self.targetVoxelArray
        outside = (values < self._percentile(10.0)) | (values > self._percentile(90.0))
        kept = np.size(values) - np.count_nonzero(outside)
        # As NumPy's nanmean: what is left out counts as 0 in the sum, in its place.
        mean = np.sum(np.where(outside, 0, values), 1, keepdims=True) / kept
        away = np.absolute(values - mean)
        np.putmask(away, outside, 0)
        return np.sum(away, 1) / kept

    def getRootMeanSquaredFeatureValue(self) -> Any:
        return np.sqrt(self._energy / float(self.targetVoxelArray.size))

    def getVarianceFeatureValue(self) -> Any:
        return np.sqrt(np.mean(self._centred * self._centred, 1)) ** 2

    def getSkewnessFeatureValue(self) -> Any:
        return self._moment_of(3) / self._m2**1.5

    def getKurtosisFeatureValue(self) -> Any:
        return self._moment_of(4) / self._m2**2.0


PERCENTS = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 100.0)
"""Percentiles that features of first order ask for."""

OURS = {"firstorder": _FirstOrder, "glcm": _Glcm, "glszm": _Glszm}
"""Mixins by PyRadiomics' name of the class."""
