"""Which edits there are: names, units of their doses, and what they are meant to change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lens.edits.filters import bands
from lens.errors import InputError
from lens.names import check_names

TEXTURE = ("glcm", "glrlm", "glszm", "gldm", "ngtdm")
"""Feature classes of texture."""

MOST_DOSES = 12
"""Of an edit; each is embedded three times for each patient and encoder."""


@dataclass(frozen=True)
class Kind:
    """A kind of edit.

    Attributes:
        unit: of the dose.
        doses: by default.
        signed: whether a dose below zero has a meaning.
        largest: of a dose, either way.
        feature: that it is meant to change most, in PyRadiomics' words; ``{image}`` stands for the
            image of a wavelet band.
        classes: feature classes that it is meant to change.
        meaning: in words.
    """

    unit: str
    doses: tuple[float, ...]
    signed: bool
    largest: float
    feature: str
    classes: tuple[str, ...]
    meaning: str


SD = "standard deviations of the image about the regions"

KINDS: dict[str, Kind] = {
    "shift": Kind(
        SD, (-1.0, -0.5, 0.5, 1.0), True, 5.0, "original_firstorder_Mean", ("firstorder",),
        "all values move by the same amount",
    ),
    "scale": Kind(
        "doublings", (-0.5, -0.25, 0.25, 0.5), True, 3.0, "original_firstorder_Mean",
        ("firstorder",), "all values are multiplied",
    ),
    "contrast": Kind(
        "doublings", (-1.0, -0.5, 0.5, 1.0), True, 3.0, "original_firstorder_Variance",
        ("firstorder", *TEXTURE), "the spread about the region's mean is multiplied",
    ),
    "gamma": Kind(
        "doublings", (-1.0, -0.5, 0.5, 1.0), True, 3.0, "original_firstorder_Median",
        ("firstorder",), "values bend between the region's lowest and highest",
    ),
    "smooth": Kind(
        "mm", (1.0, 2.0), False, 50.0, "original_glcm_Contrast", TEXTURE,
        "a Gaussian mean within the region",
    ),
    "sharpen": Kind(
        "units", (0.5, 1.0), False, 10.0, "original_glcm_Contrast", TEXTURE,
        "what differs from such a mean is added again",
    ),
    "texture": Kind(
        SD, (0.5, 1.0), False, 5.0, "original_glcm_Contrast", ("firstorder", *TEXTURE),
        "smooth noise of a length in mm is added",
    ),
    "wavelet": Kind(
        "doublings", (-1.0, -0.5, 0.5, 1.0), True, 3.0, "{image}_firstorder_Variance",
        ("firstorder", *TEXTURE), "a wavelet band is multiplied",
    ),
    "grow": Kind(
        "mm", (-1.0, 1.0), True, 20.0, "original_shape_VoxelVolume", ("shape", "shape2D"),
        "the contour moves, and tissue with it",
    ),
}  # fmt: skip
"""Kinds of edits by name."""

ALL = "all"
"""In place of a modality: all of them at once."""

DEFAULT = ("shift", "contrast", "smooth", "sharpen", "texture:2", "grow")
"""Edits where none are named."""


@dataclass(frozen=True)
class Edit:
    """An edit with its doses.

    Attributes:
        name: as given: ``shift``, ``texture:2``, ``wavelet:HHH``.
        doses: none of them zero.
    """

    name: str
    doses: tuple[float, ...]

    @property
    def kind(self) -> str:
        """Name of its `Kind`."""
        return self.name.partition(":")[0]

    @property
    def setting(self) -> str:
        """What follows the colon."""
        return self.name.partition(":")[2]

    @property
    def about(self) -> Kind:
        """What is known of its kind."""
        return KINDS[self.kind]

    @property
    def moves_contours(self) -> bool:
        """Whether it warps the image, all images of a case alike, and with them the regions."""
        return self.kind == "grow"

    @property
    def measured(self) -> float:
        """The dose at which features are measured again: the largest above zero, else the last."""
        above = [dose for dose in self.doses if dose > 0]
        return max(above) if above else min(self.doses)

    def feature(self) -> str:
        """The feature that it is meant to change most."""
        return self.about.feature.format(image=f"wavelet-{self.setting}")


class Target(NamedTuple):
    """An edit, and what it is done to.

    Attributes:
        edit: which.
        roi: region.
        modality: image; `ALL` for an edit that moves contours.
    """

    edit: Edit
    roi: str
    modality: str

    def images(self, modalities: Sequence[str]) -> tuple[str, ...]:
        """The images that it changes, among those of a case."""
        return tuple(modalities) if self.modality == ALL else (self.modality,)


def targets(
    edits: Sequence[Edit], rois: Sequence[str], modalities: Sequence[str]
) -> tuple[Target, ...]:
    """Every edit in every region, of every image by itself unless it moves contours."""
    return tuple(
        Target(edit, roi, modality)
        for edit in edits
        for roi in rois
        for modality in ((ALL,) if edit.moves_contours else modalities)
    )


def parse_edits(
    names: Sequence[str], doses: Mapping[str, Sequence[float]], *, flat: bool
) -> tuple[Edit, ...]:
    """Edits by their names.

    Args:
        names: as in `Edit`; none for `DEFAULT`.
        doses: name -> doses, in place of those of its kind.
        flat: images are of a single slice.

    Raises:
        InputError: an unknown name, one given twice, a setting that is missing or wrong, or doses
            that are zero, too large, of the wrong sign, equal, or too many.
    """
    names = tuple(names) or DEFAULT
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise InputError(f"--edits {twice[0]}: named twice")
    check_names([name.partition(":")[0] for name in names], tuple(KINDS), "edit", "--edits")
    check_names(doses, names, "edit", "--doses")
    edits = []
    for name in names:
        edit = Edit(name, tuple(doses.get(name, KINDS[name.partition(":")[0]].doses)))
        _check_setting(edit, flat)
        _check_doses(edit)
        edits.append(edit)
    return tuple(edits)


def parse_doses(arguments: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """``("shift=-1,1", "grow=2")`` as a mapping.

    Raises:
        InputError: another form, or an edit named twice.
    """
    found: dict[str, tuple[float, ...]] = {}
    for argument in arguments:
        name, equals, values = argument.partition("=")
        try:
            doses = tuple(float(value) for value in values.split(","))
        except ValueError:
            doses = ()
        if not equals or not doses or name in found:
            raise InputError(
                f"--doses {argument}: write EDIT=DOSE,DOSE (shift=-1,1), each edit once"
            )
        found[name] = doses
    return found


def _check_setting(edit: Edit, flat: bool) -> None:
    if edit.kind == "wavelet":
        check_names([edit.setting], bands(flat), "wavelet band", f"--edits {edit.name}")
    elif edit.kind == "texture":
        try:
            length = float(edit.setting)
        except ValueError:
            length = math.nan
        if not 0 <= length <= 100:
            raise InputError(
                f"--edits {edit.name}: write texture:LENGTH, a length in mm from 0 to 100"
            )
    elif ":" in edit.name:
        raise InputError(f"--edits {edit.name}: {edit.kind} takes no setting")


def _check_doses(edit: Edit) -> None:
    about, where = edit.about, f"--doses {edit.name}"
    if len(edit.doses) > MOST_DOSES or len(set(edit.doses)) < len(edit.doses):
        raise InputError(f"{where}: at most {MOST_DOSES} doses, each another")
    for dose in edit.doses:
        if not math.isfinite(dose) or dose == 0 or abs(dose) > about.largest:
            raise InputError(
                f"{where}: {dose:g}; a dose other than 0 and up to {about.largest:g} {about.unit} "
                "is needed"
            )
        if dose < 0 and not about.signed:
            raise InputError(f"{where}: {dose:g}; {edit.kind} takes doses above 0 alone")
