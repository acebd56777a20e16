"""Small cases with a region, for the tests of this folder."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from lens.cohort.case import Case
from lens.edits.catalogue import Edit, parse_edits, targets
from lens.edits.responses import Settings
from lens.edits.tables import Effects, Originals, Tables, assemble
from lens.edits.versions import Editable, editable


def ball(shape: tuple[int, int, int], centre, radius_mm: float, spacing_zyx) -> np.ndarray:
    """Voxels within a radius of a place given in voxels (z, y, x)."""
    axes = [(np.arange(n) - c) * mm for n, c, mm in zip(shape, centre, spacing_zyx, strict=True)]
    squares = np.square(np.meshgrid(*axes, indexing="ij")).sum(axis=0)
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


def tables(seed: int = 0, *, tasks: tuple[str, ...] = ("cls",), n: int = 40, m: int = 16) -> Tables:
    """Tables of three edits of made-up embeddings; the first moves the score after fine-tuning."""
    rng, d = np.random.default_rng(seed), 6
    found = targets(parse_edits(["shift", "grow"], {}, flat=False), ["lesion"], ["t2", "dwi"])
    labels = {task: rng.normal(size=n) for task in tasks}
    label = labels[tasks[0]]
    x = rng.normal(size=(n, d))
    x[:, 0] = label + 0.2 * rng.normal(size=n)
    pre, ft, rms = [], [], []
    for at, target in enumerate(found):
        doses = np.array(target.edit.doses)
        shape = (m, len(doses), 3, d)
        small = [0.05 * rng.normal(size=shape) for _ in range(2)]
        if at == 0:
            small[1][:, :, 0, 0] += doses
        if at == 2:
            small[0][:, :, 1], small[1][:, :, 1] = np.nan, np.nan
        pre.append(small[0])
        ft.append(small[1])
        rms.append(np.abs(rng.normal(size=shape[:3])))
    kinds = [np.array([kind] * m) for kind in ("copy", "shell", "none")]
    before = [{"t2.lesion.original_firstorder_Mean": float(v)} for v in range(4)]
    after = [{name: value + 2.0 for name, value in row.items()} for row in before]
    ids = np.array([f"P{number:02d}" for number in range(n)])
    return assemble(
        found, Originals(ids, x, x, labels), Effects(np.arange(m), pre, ft, rms, rms, kinds),
        Settings(flips=199), [(before, after), ((), ()), ((), ())],
    )  # fmt: skip
