"""The command line of the main job, checked, with every default settled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import InputError
from lens.scratch import Scratch

if TYPE_CHECKING:
    from experiments.sweep import Config


@dataclass(frozen=True)
class Scope:
    """What a task is read against.

    Attributes:
        rois: regions of the radiomics table; none means all.
        modalities: modalities of the radiomics table; none means all.
        channels: modalities the encoder sees (with images), the others are zeros; none means all.
    """

    rois: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = ".".join("+".join(part) for part in (self.modalities, self.rois) if part) or "all"
        return name + ("-from-" + "+".join(self.channels) if self.channels else "")


@dataclass(frozen=True)
class Plan:
    """The command line and what follows from it.

    Attributes:
        config: as given.
        out: run folder.
        roi: regions to extract; none means all.
        scopes: task -> what it is read against, where that is not `roi`.
        hidden: width of the projected embedding.
        spacing: voxel size x y z (mm) after resampling.
        shape: input of the encoder, D H W (voxels).
        folds, repeats: of the cross-validation; 0 folds stand for the split alone.
        phantoms: patients of the embedded cohort.
        pretrain_epochs, finetune_epochs: passes of the embedded trainings.
    """

    config: Config
    out: Path
    roi: tuple[str, ...]
    scopes: dict[str, Scope]
    hidden: int
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    folds: int
    repeats: int
    phantoms: int
    pretrain_epochs: int
    finetune_epochs: int

    def scratch(self) -> Scratch:
        """A place for a stage's large arrays."""
        limit = self.config.memory
        return Scratch(float("inf") if limit is None else 1e9 * limit, self.out)

    def scope(self, task: str) -> Scope:
        """What the task is read against."""
        return self.scopes.get(task, Scope(rois=self.roi))

    def settled(self) -> dict[str, Any]:
        """The settled values by flag, for the run's record."""
        names = ("out", "roi", "hidden", "spacing", "shape", "folds", "repeats")
        names += ("phantoms", "pretrain_epochs", "finetune_epochs")
        return {name: getattr(self, name) for name in names}


PHANTOM_ROIS = ("gland", "lesion")

PHANTOM_SCOPES = {
    "cls": Scope(("gland",)),
    "reg": Scope(("gland",), ("t2",), channels=("t2",)),
    "seg-lesion": Scope(("lesion",)),
    "seg-gland": Scope(("gland",)),
}
"""The four settings of the paper's Table 1."""


def settle(config: Config) -> Plan:
    """Fills in the defaults that depend on where the input comes from, and checks the combination.

    Raises:
        InputError: flags that do not belong together, one that is missing, or a value out of range.
    """
    if config.pre:
        if config.cohort is not None:
            raise InputError("--pre brings embeddings, --cohort brings images: give one of them")
        if config.radiomics is None or not config.ft:
            raise InputError("--pre also needs --ft TASK=FILE and --radiomics FILE")
        name, phantom = Path(config.pre[0].rpartition("=")[2]).stem, False
    elif config.cohort is not None:
        if config.encoder_pre is None or not config.encoder_ft:
            raise InputError("--cohort also needs --encoder-pre FILE and --encoder-ft TASK=FILE")
        name, phantom = config.cohort.resolve().parent.name, False
    elif (
        config.ft or config.retrained or config.radiomics or config.encoder_pre or config.encoder_ft
    ):
        raise InputError("--ft and --radiomics need --pre; --encoder-pre and --encoder-ft --cohort")
    elif config.scope or config.channels:
        raise InputError("--scope and --channels need --ft or --encoder-ft: a task of your own")
    else:
        name, phantom = "phantoms", True
    plan = Plan(
        config=config,
        out=config.out or Path("runs") / name,
        roi=config.roi or (PHANTOM_ROIS[: 1 if config.quick else 2] if phantom else ()),
        scopes=PHANTOM_SCOPES if phantom else _scopes(config),
        hidden=config.hidden or (8 if phantom else 128),
        spacing=config.spacing or ((1.0, 1.0, 2.0) if phantom else (0.5, 0.5, 1.0)),
        shape=config.shape or ((32, 48, 48) if phantom else (64, 224, 224)),
        folds=(3 if config.quick else 5) if config.folds is None else config.folds,
        repeats=(1 if phantom else 2) if config.repeats is None else config.repeats,
        phantoms=config.phantoms or (32 if config.quick else 104),
        pretrain_epochs=config.pretrain_epochs or (2 if config.quick else 9),
        finetune_epochs=config.finetune_epochs or (2 if config.quick else 5),
    )
    counts = (plan.hidden, config.epochs, config.batch, config.seeds)
    counts += (config.bootstraps, config.flips, plan.repeats)
    counts += (plan.phantoms, plan.pretrain_epochs, plan.finetune_epochs)
    if min(*counts, *plan.shape) < 1 or min(plan.spacing) <= 0:
        raise InputError("counts, --shape and --spacing must be positive")
    if plan.folds < 0 or plan.folds == 1:
        raise InputError(f"--folds {plan.folds}: 2 or more, or 0 for the split alone")
    if config.memory is not None and not config.memory >= 0:
        raise InputError("--memory must not be negative")
    if not 0 < config.level < 1 or config.margin < 0:
        raise InputError("--level must lie between 0 and 1, --margin must not be negative")
    if config.retrained and not config.pre:
        raise InputError("--retrained needs --pre: embeddings of your own (experiments.embed)")
    retrained_files(config)
    _check_exposure(config, PHANTOM_SCOPES if phantom else _tasks(config))
    if (config.adjust or config.site) and not (config.labels or config.cohort):
        raise InputError("--adjust and --site need --labels, a table of patient_id and columns")
    if min((*config.l1, *config.l2), default=0) < 0:
        raise InputError("--l1 and --l2 must not be negative")
    return plan


def retrained_files(config: Config) -> dict[str, list[Path]]:
    """Task -> embeddings of encoders that were fine-tuned on it again.

    Raises:
        InputError: an entry is not ``TASK=FILE`` of a task of ``--ft``.
    """
    files: dict[str, list[Path]] = {}
    for entry in config.retrained:
        ((task, path),) = pairs([entry], "--retrained").items()
        if task not in pairs(config.ft, "--ft"):
            raise InputError(f"--retrained {entry}: --ft names no task {task!r}")
        files.setdefault(task, []).append(path)
    return files


def _tasks(config: Config) -> set[str]:
    return {entry.partition("=")[0] for entry in (*config.ft, *config.encoder_ft)}


def _check_exposure(config: Config, tasks: Collection[str]) -> None:
    common = [entry for entry in config.exposure if "=" not in entry]
    if len(common) > 1:
        raise InputError(f"--exposure {common[1]}: {common[0]} is given; TASK=FILE is for one task")
    for entry in config.exposure:
        task, equals, _ = entry.partition("=")
        if equals and task not in tasks:
            raise InputError(f"--exposure of task {task!r}; the tasks are {sorted(tasks)}")


def _scopes(config: Config) -> dict[str, Scope]:
    scopes = {}
    for task, text in entries(config.scope, "--scope", "TASK=[MODALITY.]ROI").items():
        modalities, _, rois = text.rpartition(".")
        scopes[task] = Scope(_names(rois), _names(modalities))
    for task, text in entries(config.channels, "--channels", "TASK=MODALITY").items():
        if not config.cohort:
            raise InputError(
                "--channels needs --cohort: it says what an encoder sees of the images"
            )
        scope = scopes.get(task, Scope(rois=config.roi))
        scopes[task] = replace(scope, channels=_names(text))
    tasks = _tasks(config)
    for task in scopes:
        if task not in tasks:
            raise InputError(
                f"--scope or --channels of task {task!r}; the tasks are {sorted(tasks)}"
            )
    return scopes


def _names(text: str) -> tuple[str, ...]:
    """``t2+dwi`` -> ``("t2", "dwi")``."""
    return tuple(name for name in text.split("+") if name)


def entries(arguments: Sequence[str], flag: str, form: str = "TASK=FILE") -> dict[str, str]:
    """``TASK=VALUE`` arguments; a task is also a folder's name, so it must be a plain one."""
    found: dict[str, str] = {}
    for argument in arguments:
        task, equals, value = argument.partition("=")
        if not equals or not task or not value or "/" in task or task.startswith("."):
            raise InputError(f"{flag} {argument}: expected {form}")
        if task in (*found, "pre"):
            raise InputError(f"{flag} {argument}: task {task!r} is taken; give each its own name")
        found[task] = value
    return found


def pairs(arguments: Sequence[str], flag: str) -> dict[str, Path]:
    """``TASK=FILE`` arguments as paths."""
    return {task: Path(file) for task, file in entries(arguments, flag).items()}


def parameter_files(arguments: Sequence[str]) -> dict[str, Path]:
    """``FILE`` for all modalities, or ``MODALITY=FILE`` entries."""
    if len(arguments) == 1 and "=" not in arguments[0]:
        return {"all": Path(arguments[0])}
    return pairs(arguments, "--parameters")
