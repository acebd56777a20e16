"""The embedded default in its three forms: what each simulates, trains, and reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from encoders.settings import Pool
from experiments.main_job.scope import Scope

Name = Literal["standard", "quick", "full"]

ROIS = ("gland", "lesion")
"""Regions of the phantoms."""


class Form(NamedTuple):
    """A form of the embedded default.

    Attributes:
        patients: phantoms that the encoders are compared on.
        trained: further phantoms, on which alone the encoders are trained; 0 trains on the train
            patients of the cohort itself, as a user with one cohort does.
        pretrain_epochs: passes of the masked autoencoder; 0 leaves the encoder at its random start.
        finetune_epochs: passes of a fine-tuning.
        shape: (D, H, W) of the encoder's input, in voxels.
        spacing: (x, y, z) of its voxels, in mm.
        rois: regions that are analysed.
        folds: of the cross-validation.
        filters, classes: of PyRadiomics, whose features are made; none takes those of the parameter
            files.
        pool: over what the encoder's feature map is averaged.
        depths, widths, strides, patch: of the encoder, and sides of a masked patch in voxels.
        scopes: task -> what it is read against; all regions that are analysed if none is named.
    """

    patients: int
    trained: int
    pretrain_epochs: int
    finetune_epochs: int
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    rois: tuple[str, ...]
    folds: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    patch: tuple[int, ...]
    scopes: Mapping[str, Scope]
    filters: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    pool: Pool = "global"


GRADE, PERMUTED = "lesion-grade", "permuted"
"""Tasks on phantoms of independent factors: how bright the lesion is on DWI, and its control."""

_MECHANISM = {GRADE: Scope(), PERMUTED: Scope()}

_TABLE_1 = {
    "cls": Scope(("gland",)),
    "reg": Scope(("gland",), ("t2",), channels=("t2",)),
    "seg-lesion": Scope(("lesion",)),
    "seg-gland": Scope(("gland",)),
}
"""The four settings of the paper's Table 1."""

FORMS: dict[Name, Form] = {
    "standard": Form(
        patients=400,
        trained=720,
        pretrain_epochs=7,
        finetune_epochs=6,
        shape=(24, 32, 32),
        spacing=(2.0, 2.0, 2.0),
        rois=("gland",),
        folds=5,
        # Few channels and blocks: half of the time would go into compiling and running more.
        depths=(1, 1, 1, 1),
        widths=(24, 48, 96, 192),
        # A small crop: a map of one voxel would leave nothing to average over a region.
        strides=(2, 1, 1),
        patch=(8,),
        scopes=_MECHANISM,
        filters=("Original",),
        # GLCM, most of all its MCC, takes longer than all of these.
        classes=("firstorder", "glrlm", "glszm", "gldm", "ngtdm"),
        pool="gland",
    ),
    "full": Form(
        patients=104,
        trained=0,
        pretrain_epochs=9,
        finetune_epochs=5,
        shape=(32, 48, 48),
        spacing=(1.0, 1.0, 2.0),
        rois=ROIS,
        folds=5,
        depths=(2, 2, 6, 2),
        widths=(40, 80, 160, 320),
        strides=(2, 2, 1),
        patch=(16,),
        scopes=_TABLE_1,
    ),
}
FORMS["quick"] = FORMS["standard"]._replace(
    patients=160,
    trained=400,
    pretrain_epochs=0,
    finetune_epochs=5,
    folds=3,
    scopes={GRADE: Scope()},
)


def scopes_of(form: Form, rois: tuple[str, ...]) -> dict[str, Scope]:
    """Task -> what it is read against, of the tasks whose regions are all among `rois`."""
    scopes = {task: scope if scope.rois else Scope(rois) for task, scope in form.scopes.items()}
    return {task: scope for task, scope in scopes.items() if {*scope.rois} <= {*rois}}


def form_name(*, quick: bool, full: bool) -> Name:
    """The form that the flags ask for."""
    return "quick" if quick else "full" if full else "standard"
