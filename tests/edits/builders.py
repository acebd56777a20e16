"""Small cases with a region, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from lens.cohort.case import Case
from lens.edits.catalogue import Edit, parse_edits
from lens.edits.versions import Editable, editable


def ball(shape: tuple[int, int, int], centre, radius_mm: float, spacing_zyx) -> np.ndarray:
    """Voxels within a radius of a place given in voxels (z, y, x)."""
    axes = [(np.arange(n) - c) * mm for n, c, mm in zip(shape, centre, spacing_zyx, strict=True)]
    squares = sum(np.square(a) for a in np.meshgrid(*axes, indexing="ij"))
    return squares < radius_mm**2


def case(
    shape=(16, 24, 24), spacing=(1.0, 1.0, 1.0), centre=None, radius=5.0, *, seed=0,
    images=("t2",), kinds=None, organ=None, low=100.0, high=900.0,
) -> Case:  # fmt: skip
    """A noisy case with a ball called lesion; `spacing` is x, y, z. `organ` is another radius."""
    rng = np.random.default_rng(seed)
    centre = centre or tuple((n - 1) / 2 for n in shape)

    def image(values: np.ndarray) -> sitk.Image:
        made = sitk.GetImageFromArray(values)
        made.SetSpacing(spacing)
        return made

    found = {name: image(rng.uniform(low, high, shape).astype(np.float32)) for name in images}
    inside = ball(shape, centre, radius, spacing[::-1])
    masks = {"lesion": image(inside.astype(np.uint8))}
    if organ:
        whole = ball(shape, tuple((n - 1) / 2 for n in shape), organ, spacing[::-1])
        masks = {"gland": image((whole | inside).astype(np.uint8))} | masks
    return Case("P-07", None, found, masks, (), kinds=kinds or {})


def ready(made: Case, **settings) -> Editable:
    return editable(made, "lesion", **settings)


def edit(name: str, *doses: float, flat: bool = False) -> Edit:
    return parse_edits([name], {name: doses} if doses else {}, flat=flat)[0]


def voxels(made: Case, name: str = "t2") -> np.ndarray:
    return sitk.GetArrayFromImage(made.images[name])
