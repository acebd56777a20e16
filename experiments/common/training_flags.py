"""Flags that pre-training and fine-tuning share, in groups, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from encoders.settings import (
    INPUT_SHAPE,
    SPACING_MM,
    Augmentation,
    TrainingSettings,
    grid_problem,
)
from experiments.common.anonymous import Hidden, PrivacyFlags, private_cache
from experiments.common.flags import as_flag
from lens.errors import InputError
from lens.ranges import COUNT, SEED, Check, first_problem
from lens.settings import NiftiForm

if TYPE_CHECKING:
    from lens.cohort import Cohort

FLAG_OF = {"batch_size": "batch", "learning_rate": "rate"}
"""Fields of `TrainingSettings` whose flags have other names."""


@dataclass(frozen=True, kw_only=True)
class CohortFlags:
    """Images to train on."""

    cohort: Path
    """The manifest, cohort.csv."""
    shape: tuple[int, int, int] = INPUT_SHAPE
    """Depth, height and width of the encoder's input, in voxels."""
    spacing: tuple[float, float, float] = SPACING_MM
    """Voxel size along x, y, z, in mm."""
    modalities: tuple[str, ...] = ()
    """Columns with images, as the encoder's channels in order; default t2 dwi adc, or those
    recognised as images. none gives zeros, and so does one that the cohort lacks."""
    rois: tuple[str, ...] = ()
    """Columns with masks, such as tumour; by default gland and lesion, or those recognised as
    masks."""
    kind: tuple[str, ...] = ()
    """What the numbers of a modality mean where its name does not say: NAME=mr (arbitrary units),
    NAME=ct (Hounsfield units), NAME=8-bit (ultrasound, X-ray) or NAME=units (a map)."""
    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused."""
    cache: Path | None = None
    """Folder of the resampled volumes; OUT/volumes if not given, with --anonymise in ~/.cache."""


@dataclass(frozen=True, kw_only=True)
class StartFlags:
    """Encoder to start from."""

    init: str = "random"
    """Encoder to start from: a checkpoint, a run folder of pretrain, or "random"."""
    size: Literal["atto", "femto", "pico", "nano", "tiny", "base", "large", "huge"] = "atto"
    """Size of a random encoder."""
    remat: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""


@dataclass(frozen=True, kw_only=True)
class OptimiserFlags:
    """Settings of the training loop."""

    epochs: int = TrainingSettings.epochs
    """Passes over the training patients."""
    batch: int = TrainingSettings.batch_size
    """Volumes per step, shared by all devices."""
    rate: float = TrainingSettings.learning_rate
    """Highest learning rate: linear warm-up, then cosine to 0."""
    weight_decay: float = TrainingSettings.weight_decay
    """Of AdamW, on kernels."""
    warm_up: float = TrainingSettings.warm_up
    """Share of the steps before the highest rate."""
    drop_path: float = TrainingSettings.drop_path
    """Stochastic depth of the encoder's last block (unitless, linear from 0)."""
    augment: bool = True
    """Vary the training volumes: flips, small rotations and zooms (not in a regression, whose label
    may be a size), intensity, bias field, smoothing."""

    def settings(
        self, seed: int, augmentation: Mapping[str, float] | None = None, **changes: Any
    ) -> TrainingSettings:
        """The settings of the loop.

        Args:
            seed: of this run.
            augmentation: strengths that replace the default ones.
            changes: further fields.

        Raises:
            InputError: a flag is out of its range.
        """
        try:
            return TrainingSettings(
                epochs=self.epochs,
                batch_size=self.batch,
                learning_rate=self.rate,
                weight_decay=self.weight_decay,
                warm_up=self.warm_up,
                drop_path=self.drop_path,
                augmentation=Augmentation(**(augmentation or {})) if self.augment else None,
                seed=seed,
                **changes,
            )
        except ValueError as error:
            raise InputError(as_flag(str(error), FLAG_OF)) from error


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Where runs go, and how many there are."""

    out: Path
    """Run folder; each seed has a folder in it, seed-0 and so on. A second run goes on there."""
    seed: int = 0
    """Of the split, and the first of the seeds."""
    seeds: int = 1
    """Runs, with seeds SEED, SEED + 1, ..."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints; one per epoch if not given."""

    @property
    def each(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Flags of both jobs."""

    images: CohortFlags
    """Images to train on."""
    run: RunFlags
    """Where runs go, and how many there are."""
    start: StartFlags = field(default_factory=StartFlags)
    """Encoder to start from."""
    training: OptimiserFlags = field(default_factory=OptimiserFlags)
    """Settings of the training loop."""
    privacy: PrivacyFlags = field(default_factory=PrivacyFlags)
    """What the results say of patients and files."""
    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""

    @property
    def volumes(self) -> Path:
        """Folder of the resampled volumes, outside of results that are to hide names."""
        beside = self.run.out / "volumes"
        return self.images.cache or (private_cache() if self.privacy.anonymise else beside)

    def hidden(self) -> Hidden:
        """What is asked to be hidden."""
        inputs = {"--cohort": self.images.cohort}
        if self.start.init != "random":
            inputs["--init"] = Path(self.start.init)
        return Hidden(self.privacy.anonymise, self.privacy.salt, self.run.out, inputs)

    def cohort(self, *, told: bool = True) -> Cohort:
        """The manifest as the flags describe it; `told` logs what was taken for what.

        Raises:
            InputError: as `experiments.common.cohorts.read_cohort`; or its images are of a single
                slice and the shape is not.
        """
        from experiments.common.cohorts import read_cohort

        cohort = read_cohort(self.images, label=self.region_labels, only=False, told=told)
        if cohort.flat and self.images.shape[0] != 1:
            raise InputError(
                f"{cohort.path}: its images are of a single slice, and --shape "
                f"{self.images.shape} is not; write --shape 1 224 224 and --spacing 1 1 1 (pixels "
                "where the files have no pixel size), or other sides"
            )
        return cohort

    def channels_of(self, cohort: Cohort) -> tuple[str, ...]:
        """Channels of the encoder, in order."""
        return self.images.modalities or cohort.channels

    @property
    def region_labels(self) -> tuple[str, ...]:
        """``REGION=VALUES``: mask values that make a region."""
        return ()

    def check(self) -> None:
        """Refuses settings that are out of range, before anything is read.

        Raises:
            InputError: names the flag.
        """
        steps = self.run.checkpoint_steps
        problem = grid_problem(self.images.shape, self.images.spacing) or first_problem(
            [
                Check("seed", self.run.seed, SEED),
                Check("seeds", self.run.seeds, COUNT),
                Check("checkpoint_steps", 1 if steps is None else steps, COUNT),
            ]
        )
        # Groups of flags that are settings themselves, such as those of a head.
        groups = (getattr(self, each.name) for each in fields(self))
        judged = (group.problem() for group in groups if hasattr(group, "problem"))
        if problem := problem or next(filter(None, judged), ""):
            raise InputError(as_flag(problem))
        for seed in (self.run.each[0], self.run.each[-1]):
            self.training.settings(seed)
