"""Versions of a case: an edit in its region, the same edit elsewhere, and noise of the same size.

Outside of the region an edited image is the original to the last bit, but for `lens.edits.shape`,
which says what it moves. An image is edited in its own unit; what an encoder or the radiomics
standardise it by stays that of the original (`lens.cohort.stack`, `scalings`), so that an edit in
the region is not seen everywhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float, Float32

from lens.cohort.case import Case
from lens.cohort.intensities import GRAY, Kind, Scaling, kind_of, scaling
from lens.edits import filters, intensity, shape
from lens.edits.catalogue import Edit
from lens.edits.place import Place, place
from lens.errors import CaseError

FEWEST = 8
"""Voxels of a region that can be edited."""

AIR = -1000.0
"""Hounsfield units of no signal, for `lens.edits.intensity.scaled`."""

ABOVE_ZERO = 1e-3
"""Standard deviations above zero to which an image without negative values is held: zero itself
means that there is no tissue."""

Arm = Literal["edit", "outside", "noise"]
ARMS: tuple[Arm, ...] = ("edit", "outside", "noise")
"""The edit, the same edit in a region outside, and noise in the region."""


class Version(NamedTuple):
    """One version of a case.

    Attributes:
        case: with the new image or images; its regions are those of the edited image.
        rms: root mean square of the change over the voxels that changed, the mean of all images
            that did, in standard deviations of the image about the regions.
        clipped: share of the changed voxels that were held at an end of the image's range.
    """

    case: Case
    rms: float
    clipped: float


@dataclasses.dataclass(frozen=True)
class Editable:
    """A case with what its edits need to know.

    Attributes:
        case: the original.
        roi: region that is edited.
        scalings: modality -> mean and standard deviation about the regions.
        edge_mm: over which an edit rises from nothing at the contour to its full size inside.
        seed: of texture and noise; the same for all doses of an edit.
    """

    case: Case
    roi: str
    scalings: Mapping[str, Scaling]
    edge_mm: float = 0.0
    seed: int = 0

    @property
    def region(self) -> Bool[np.ndarray, "z y x"]:
        """The region on the grid of the case."""
        return _inside(self.case.masks[self.roi])

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Edges of a voxel along z, y, x."""
        return self.case.masks[self.roi].GetSpacing()[::-1]

    def body(self, modality: str) -> Bool[np.ndarray, "z y x"]:
        """Where there is tissue: on MR and maps what is not zero, on CT what is no air."""
        voxels = sitk.GetArrayViewFromImage(self.case.images[modality])
        kind = kind_of(modality, self.case.kinds)
        if kind == "ct":
            return np.asarray(voxels > AIR / 2)
        return np.ones(voxels.shape, bool) if kind == "8-bit" else np.asarray(voxels != 0)

    def outside(self, edit: Edit, modalities: tuple[str, ...]) -> Place | None:
        """The control region of an edit (`lens.edits.place`)."""
        body = np.logical_and.reduce([self.body(name) for name in modalities])
        others = [_inside(mask) for roi, mask in self.case.masks.items() if roi != self.roi]
        gap = max(map(abs, edit.doses)) if edit.moves_contours else 0.0
        return place(
            self.region, body, self.spacing_mm,
            hosts=others, gap_mm=2 * shape.REACH * gap, shell=not edit.moves_contours,
        )  # fmt: skip


def editable(case: Case, roi: str, *, edge_mm: float = 0.0, seed: int = 0) -> Editable:
    """A case whose region can be edited.

    Raises:
        CaseError: the case lacks the region, or it has fewer than `FEWEST` voxels; an image is not
            finite.
    """
    if roi not in case.masks:
        raise _refused(case, f"no region {roi}", "Segment it, or leave out this patient.")
    count = int(_inside(case.masks[roi]).sum())
    if count < FEWEST:
        raise _refused(
            case,
            f"{roi} has {count} voxel(s) on this grid, and an edit needs {FEWEST}",
            "Choose a finer --spacing, or leave out this patient.",
        )
    for name, image in case.images.items():
        if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
            raise _refused(
                case, f"{name} has voxels that are NaN or infinite", "Export the image again."
            )
    scalings = {name: scaling(image, case.masks.values()) for name, image in case.images.items()}
    return Editable(case, roi, scalings, edge_mm, seed)


def versions(
    of: Editable, edit: Edit, modalities: tuple[str, ...]
) -> Iterator[tuple[float, Arm, Version | None]]:
    """All versions of a case by one edit, dose by dose; None where there is no control region.

    Args:
        of: the case.
        edit: which edit.
        modalities: images that are edited; one, or all for an edit that moves contours.

    Raises:
        CaseError: the edit cannot be made, or changes nothing.
    """
    elsewhere = of.outside(edit, modalities)
    for dose in edit.doses:
        made = edited(of, edit, dose, modalities, of.region, carry=True)
        if not made.rms:
            raise _refused(
                of.case,
                f"{edit.name} by {dose:g} changes no voxel of {' and '.join(modalities)} in "
                f"{of.roi}",
                "Leave out this edit or this patient.",
            )
        yield dose, "edit", made
        control = elsewhere and edited(of, edit, dose, modalities, elsewhere.region, carry=False)
        yield dose, "outside", control
        yield dose, "noise", matched_noise(of, made.case, modalities, sign=np.sign(dose))


def edited(
    of: Editable,
    edit: Edit,
    dose: float,
    modalities: tuple[str, ...],
    region: Bool[np.ndarray, "z y x"],
    *,
    carry: bool,
) -> Version:
    """The case with an edit in a region.

    Args:
        of: the case.
        edit: which edit.
        dose: how much of it.
        modalities: images that are edited.
        region: where.
        carry: move the regions of the case with the tissue, where the edit moves any.

    Raises:
        CaseError: the edit cannot be made here.
    """
    masks = of.case.masks
    if not edit.moves_contours:
        new = {name: _local(of, edit, dose, name, region) for name in modalities}
        return _version(of, new, masks)
    # Nothing moves beyond this box.
    box = _box_about(region, int(shape.REACH * abs(dose) / min(of.spacing_mm)) + 2)
    try:
        how = shape.warp(region[box], of.spacing_mm, dose)
    except ValueError as error:
        raise _refused(
            of.case,
            f"{edit.name} in {of.roi}: {error}",
            "Choose a smaller dose, or leave out this edit; the patient counts in the other edits.",
        ) from error
    new = {name: _pasted(_voxels(of, name), box, shape.warped, how) for name in modalities}
    if carry:
        masks = {
            roi: _like(
                _pasted(_inside(mask).copy(), box, shape.warped_mask, how).astype(np.uint8), mask
            )
            for roi, mask in masks.items()
        }
    return _version(of, new, masks)


def matched_noise(
    of: Editable, made: Case, modalities: tuple[str, ...], *, sign: float = 1.0
) -> Version:
    """White noise where an edit changed the images, of the same root mean square change.

    Args:
        of: the case.
        made: the edited one.
        modalities: images that were edited.
        sign: that the noise is multiplied by.
    """
    new = {}
    for at, name in enumerate(modalities):
        before, after = _voxels(of, name), sitk.GetArrayFromImage(made.images[name])
        change = after.astype(np.float64) - before
        where = change != 0
        if not where.any():
            new[name] = before
            continue
        noise = np.random.default_rng([of.seed, 1, at]).standard_normal(change.shape)
        size = np.sqrt(np.mean(np.square(change[where])) / np.mean(np.square(noise[where])))
        new[name] = np.where(where, before + sign * size * noise, before)
    return _version(of, new, of.case.masks)


def _local(
    of: Editable, edit: Edit, dose: float, modality: str, region: Bool[np.ndarray, "z y x"]
) -> Float[np.ndarray, "z y x"]:
    """The image with an edit of intensities or texture."""
    before = _voxels(of, modality)
    region = region & of.body(modality)
    if not region.any():
        return before
    box = _box_about(region, filters.PAD if edit.kind == "wavelet" else 0)
    values, where = before[box], region[box]
    changed = _formula(of, edit, dose, modality, values, where)
    weight = _weight(region, of.spacing_mm, of.edge_mm)[box]
    after = before.copy()
    # Where the weight is 1 the formula's own value, without a detour over the original.
    after[box] = np.where(
        weight >= 1, changed, np.where(weight > 0, values + weight * (changed - values), values)
    )
    return after


def _formula(
    of: Editable,
    edit: Edit,
    dose: float,
    modality: str,
    values: Float[np.ndarray, "z y x"],
    where: Bool[np.ndarray, "z y x"],
) -> Float[np.ndarray, "z y x"]:
    inside, sd = values[where], of.scalings[modality].sd
    match edit.kind:
        case "shift":
            return intensity.shifted(values, dose, sd)
        case "scale":
            zero = AIR if kind_of(modality, of.case.kinds) == "ct" else 0.0
            return intensity.scaled(values, dose, zero)
        case "contrast":
            return intensity.contrasted(values, dose, float(inside.mean()))
        case "gamma":
            return intensity.gamma(values, dose, float(inside.min()), float(inside.max()))
        case "smooth":
            return filters.smoothed(values, where, of.spacing_mm, dose)
        case "sharpen":
            return filters.sharpened(values, where, of.spacing_mm, dose)
        case "wavelet":
            return filters.gained(values, edit.setting, dose)
        case "texture":
            rng = np.random.default_rng([of.seed, 0])
            field = filters.texture(where, of.spacing_mm, float(edit.setting), rng)
            return values + dose * sd * field
    raise ValueError(f"no formula of {edit.name}")


def _pasted(
    values: np.ndarray,
    box: tuple[slice, ...],
    move: Callable[[np.ndarray, shape.Warp], np.ndarray],
    how: shape.Warp,
) -> np.ndarray:
    values[box] = move(values[box], how)
    return values


def _version(
    of: Editable,
    new: Mapping[str, Float[np.ndarray, "z y x"]],
    masks: Mapping[str, sitk.Image],
) -> Version:
    images, sizes, clipped = dict(of.case.images), [], []
    for name, values in new.items():
        before = sitk.GetArrayViewFromImage(images[name])
        low, high = _range(before, kind_of(name, of.case.kinds), of.scalings[name].sd)
        raised = values.astype(np.float32)
        changed = raised != before
        held: Float32[np.ndarray, "z y x"] = np.where(changed, np.clip(raised, low, high), before)
        moved = held[changed].astype(np.float64) - before[changed]
        sizes.append(np.sqrt(np.mean(np.square(moved))) if moved.size else 0.0)
        clipped.append(float(np.mean(held[changed] != raised[changed])) if moved.size else 0.0)
        images[name] = _like(held, images[name])
    sds = [of.scalings[name].sd for name in new]
    case = dataclasses.replace(of.case, images=images, masks=dict(masks))
    return Version(case, float(np.mean(np.divide(sizes, sds))), float(np.mean(clipped)))


def _range(before: np.ndarray, kind: Kind, sd: float) -> tuple[float, float]:
    """Values that an image can hold."""
    if kind == "8-bit":
        return 0.0, GRAY
    if kind == "ct" or before.min() < 0:
        return -np.inf, np.inf
    return ABOVE_ZERO * sd, np.inf


def _weight(
    region: Bool[np.ndarray, "z y x"], spacing_mm: tuple[float, ...], edge_mm: float
) -> Float[np.ndarray, "z y x"]:
    """From 0 outside to 1 at `edge_mm` and more within; a hard edge of 0 mm is 1 inside."""
    if edge_mm <= 0 or region.all():
        return region.astype(np.float64)
    return np.clip(-shape.distance(region, spacing_mm) / edge_mm, 0.0, 1.0)


def _box_about(region: Bool[np.ndarray, "z y x"], margin: int) -> tuple[slice, ...]:
    occupied = [np.flatnonzero(region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(
        slice(max(int(axis[0]) - margin, 0), int(axis[-1]) + 1 + margin) for axis in occupied
    )


def _voxels(of: Editable, modality: str) -> Float[np.ndarray, "z y x"]:
    return sitk.GetArrayFromImage(of.case.images[modality]).astype(np.float64)


def _inside(mask: sitk.Image) -> Bool[np.ndarray, "z y x"]:
    return np.asarray(sitk.GetArrayViewFromImage(mask) > 0)


def _like(values: np.ndarray, image: sitk.Image) -> sitk.Image:
    made = sitk.GetImageFromArray(values)
    made.CopyInformation(image)
    return made


def _refused(case: Case, reason: str, remedy: str) -> CaseError:
    return CaseError(case.patient_id, "", stage="edit", reason=reason, remedy=remedy)
