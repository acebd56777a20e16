"""Runs of a training, one per seed: the encoder each starts from, its folder and its seconds."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.training_curves import CurveWriter
from experiments.common.training_flags import TrainingConfig
from lens.anonymise import OPEN, Names
from lens.errors import InputError

if TYPE_CHECKING:
    from encoders.encoder import Encoder, EncoderConfig
    from encoders.training import Curves, Tracking
    from experiments.common.run_record import RunRecord

log = logging.getLogger(__name__)


def run_seeds(
    config: TrainingConfig, record: RunRecord, one: Callable[[int, Path], dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Metrics of every seed, each run in its own folder; the record says how long each took."""
    results = {}
    for seed in config.run.each:
        start = time.perf_counter()
        folder = config.run.out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results[seed] = one(seed, folder)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(str(error)) from error
        record.note(f"seed-{seed}", {"seconds": round(time.perf_counter() - start, 2)})
    return results


@contextmanager
def tracked(config: TrainingConfig, folder: Path) -> Iterator[Tracking]:
    """Checkpoints and curves of a run in its folder, while it trains."""
    from encoders.training import Tracking

    writer = CurveWriter(folder)
    try:
        yield Tracking(folder / "checkpoints", config.run.checkpoint_steps, observe=writer)
    finally:
        writer.close()


def validation_of(curves: Curves) -> dict[str, float | None]:
    """How a training did on its validation patients, as metrics state it.

    Args:
        curves: of the training.

    Returns:
        ``best_epoch``, from 1, or 0 for the start; ``val_loss`` of the encoder that is kept and
        ``val_loss_start`` before the first step, both None without validation patients.
    """
    losses = {"val_loss": curves.best, "val_loss_start": curves.start}
    known = {name: loss if math.isfinite(loss) else None for name, loss in losses.items()}
    return {"best_epoch": curves.best_epoch + 1, **known}


def tell_start(seed: int, curves: Curves) -> None:
    """Says so where training made nothing better, and the encoder is kept as it was."""
    if curves.best_epoch < 0:
        log.warning(
            "seed %d: no epoch was better than the start on the validation patients; "
            "the encoder is the one it started from",
            seed,
        )


SLICE_TASKS = ("classification", "regression")
"""Tasks on the embedding, which an encoder of images has of a volume's slices."""


def initial_encoder(
    config: TrainingConfig,
    seed: int,
    channels: int,
    names: Names = OPEN,
    *,
    stem_bias: float = 0.0,
) -> tuple[Encoder, dict[str, Any]]:
    """The encoder to start from, and where it comes from, as may be written.

    Args:
        config: of the run.
        seed: of a random encoder.
        channels: that a random encoder reads.
        names: that may be written.
        stem_bias: of a random encoder (`encoders.convnext.STEM_BIAS`).

    Raises:
        InputError: there is none, or it does not fit the input.
    """
    from flax import nnx

    from encoders.checkpoints import load
    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
    from encoders.encoder import reconfigure
    from encoders.state_dicts import source_hash

    if config.start.init == "random":
        layout = ConvNeXtV2Config.named(config.start.size, in_channels=channels)
        encoder = ConvNeXtV2(layout, rngs=nnx.Rngs(seed), stem_bias=stem_bias)
        origin = {"init": "random", "size": config.start.size, "init_seed": seed}
        origin |= {"stem_bias": stem_bias} if stem_bias else {}
    else:
        path = checkpoint_of(Path(config.start.init), seed)
        encoder = load(path)
        origin = {"init": names.setting(str(path)), "init_sha256": source_hash(path)}
    check_input(config, encoder.config)
    reconfigure(encoder, remat=config.start.remat)
    if tokens := getattr(config, "tokens", None):
        reconfigure(encoder, tokens=tokens)
    return encoder, origin


def check_input(config: TrainingConfig, encoder: EncoderConfig) -> None:
    """Refuses an encoder that the volumes do not fit, or that cannot do what the flags ask.

    Args:
        config: of the run.
        encoder: the configuration to start from.

    Raises:
        InputError: as said.
    """
    stride, shape = encoder.total_strides[-1], config.images.shape
    by_slice = encoder.dims == 2 and getattr(config, "task", "") in SLICE_TASKS
    sides = shape[1:] if by_slice else shape
    if any(side % stride for side in sides) or not (encoder.dims == 3 or by_slice):
        needs = "sides" if by_slice else "a 3D encoder and sides"
        raise InputError(
            f"--shape {shape}: training needs {needs} that are multiples of {stride} voxels, its "
            f"total stride; a 2D encoder is trained for {' and '.join(SLICE_TASKS)}"
        )
    if config.start.remat and not hasattr(encoder, "remat"):
        raise InputError(f"--remat: {type(encoder).__name__} has no remat; leave it out")
    if getattr(config, "tokens", None) and not hasattr(encoder, "tokens"):
        raise InputError(f"--tokens: {type(encoder).__name__} has no class token; leave it out")


def check_channel_count(config: TrainingConfig, encoder: EncoderConfig, channels: int) -> None:
    """Refuses an encoder of another number of channels than it will be shown.

    Raises:
        InputError: as said.
    """
    if encoder.in_channels != channels:
        raise InputError(
            f"--init {config.start.init}: the encoder reads {encoder.in_channels} channels, and "
            f"{channels} modalities are given; name one per channel, none for zeros"
        )


def checkpoint_of(path: Path, seed: int) -> Path:
    """The encoder in a run folder of ours: that of this seed, or the only one.

    Args:
        path: of ``--init``, a checkpoint or a run folder.
        seed: of the run that starts from it.

    Raises:
        InputError: there are several, and none is of this seed.
    """
    if path.is_dir() and not (path / "encoder.json").is_file():
        runs = sorted(path.glob("seed-*/encoder"))
        same = [run for run in runs if run.parent.name == f"seed-{seed}"]
        if same or len(runs) == 1:
            return (same or runs)[0]
        if runs:
            raise InputError(f"{path}: several seeds, and none is {seed}; name one of {runs}")
        if (path / "encoder").is_dir():
            return path / "encoder"
    return path
