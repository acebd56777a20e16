"""The command line of the main job, checked, with every default settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import InputError

if TYPE_CHECKING:
    from experiments.sweep import Config


@dataclass(frozen=True)
class Plan:
    """The command line and what follows from it.

    Attributes:
        config: as given.
        out: run folder.
        roi: regions to extract and analyse; none means all.
        hidden: width of the projected embedding.
        spacing: voxel size x y z (mm) after resampling.
        shape: input of the encoder, D H W (voxels).
    """

    config: Config
    out: Path
    roi: tuple[str, ...]
    hidden: int
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    def settled(self) -> dict[str, Any]:
        """The settled values by flag, for the run's record."""
        return {name: getattr(self, name) for name in ("out", "roi", "hidden", "spacing", "shape")}


def settle(config: Config) -> Plan:
    """Fills in the defaults that depend on where the input comes from, and checks the combination.

    Raises:
        InputError: flags that do not belong together, one that is missing, or a value out of range.
    """
    if config.pre is not None:
        if config.cohort is not None:
            raise InputError("--pre brings embeddings, --cohort brings images: give one of them")
        if config.radiomics is None or not config.ft:
            raise InputError("--pre also needs --ft TASK=FILE and --radiomics FILE")
        name, phantom = config.pre.stem, False
    elif config.cohort is not None:
        if config.encoder_pre is None or not config.encoder_ft:
            raise InputError("--cohort also needs --encoder-pre FILE and --encoder-ft TASK=FILE")
        name, phantom = config.cohort.resolve().parent.name, False
    elif config.ft or config.radiomics or config.encoder_pre or config.encoder_ft:
        raise InputError("--ft and --radiomics need --pre; --encoder-pre and --encoder-ft --cohort")
    else:
        name, phantom = "phantoms", True
    plan = Plan(
        config=config,
        out=config.out or Path("runs") / name,
        roi=config.roi or (("gland",) if phantom else ()),
        hidden=config.hidden or (8 if phantom else 128),
        spacing=config.spacing or ((1.0, 1.0, 2.0) if phantom else (0.5, 0.5, 1.0)),
        shape=config.shape or ((32, 48, 48) if phantom else (64, 224, 224)),
    )
    counts = (plan.hidden, config.epochs, config.batch, config.seeds)
    counts += (config.bootstraps, config.flips)
    if min(*counts, *plan.shape) < 1 or min(plan.spacing) <= 0:
        raise InputError("counts, --shape and --spacing must be positive")
    if min((*config.l1, *config.l2), default=0) < 0:
        raise InputError("--l1 and --l2 must not be negative")
    return plan


def pairs(entries: Sequence[str], flag: str) -> dict[str, Path]:
    """``TASK=FILE`` entries; a task is also a folder's name, so it must be a plain one."""
    pairs = {}
    for entry in entries:
        task, equals, file = entry.partition("=")
        if not equals or not task or not file or "/" in task or task.startswith("."):
            raise InputError(f"{flag} {entry}: expected TASK=FILE, as in {flag} cls=tuned.npz")
        if task in (*pairs, "pre"):
            raise InputError(f"{flag} {entry}: task {task!r} is taken; give each its own name")
        pairs[task] = Path(file)
    return pairs


def parameter_files(entries: Sequence[str]) -> dict[str, Path]:
    """``FILE`` for all modalities, or ``MODALITY=FILE`` entries."""
    if len(entries) == 1 and "=" not in entries[0]:
        return {"all": Path(entries[0])}
    return pairs(entries, "--parameters")
