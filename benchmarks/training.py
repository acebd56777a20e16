"""Steps of training against the same networks in PyTorch, on one machine, taking turns.

``python -m benchmarks.training`` prints steps per second and peak memory of fine-tuning a
classifier and of masked pre-training, and writes ``benchmarks/results/training.json``. A step is
everything from a batch in host memory to the new parameters: forward, gradient, AdamW. Peak memory
is that of a process that does nothing else; ours is one that compiles and keeps its programs, as
the first job on a machine does, and one that finds them. On a CUDA card both libraries multiply at
the same precision: ``tf32`` is JAX's default for float32; with ``bfloat16`` parameters stay
float32.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.encoder import LAYOUTS, Precision, set_precision
from lens.machine import cpu_count

Job = Literal["classification", "pretraining"]
JOBS: tuple[Job, ...] = ("classification", "pretraining")
CLASSES, PATCH, RATIO, RATE, DECAY = 4, 16, 0.6, 1e-3, 0.05


@dataclass(frozen=True)
class Config:
    """Which network, which input and how often."""

    size: Literal["atto", "tiny"] = "atto"
    """Published size of the encoder."""
    shapes: tuple[tuple[int, int, int], ...] = ((32, 48, 48), (32, 96, 96))
    """Depth, height and width of the inputs, in voxels."""
    batches: tuple[int, ...] = (8, 2)
    """Volumes per step, one per shape."""
    width: int = 512
    """Channels of the masked autoencoder's decoder."""
    jobs: tuple[Job, ...] = JOBS
    """What is trained."""
    precisions: tuple[Precision, ...] = ("float32",)
    """Of the products; others than float32 are for a CUDA card."""
    variants: tuple[str, ...] = ("ours", "torch")
    """Whom to run, ours first; "torch-compiled" is for classification alone."""
    turns: int = 5
    """Steps of each variant that are timed."""
    memory: bool = True
    """Also the peak memory of each variant, in a process of its own (Linux)."""
    out: Path = harness.RESULTS / "training.json"
    """Where the figures go."""
    alone: str | None = None
    """Only print the peak memory of this one: variant, job and index of the shape."""
    folder: Path | None = None
    """With --alone: where JAX keeps compiled programs."""


def steps(
    config: Config, job: Job, index: int, precision: Precision, variants: tuple[str, ...]
) -> dict[str, Callable[[], float]]:
    """One step per variant, which gives its loss, on the same random batch."""
    shape, batch = config.shapes[index], config.batches[index]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *shape, 3)).astype(np.float32)
    y = np.arange(batch) % CLASSES
    ours = "ours" in variants
    set_precision(precision, ours=ours, torch=not ours or len(variants) > 1)
    half = precision == "bfloat16"
    return {
        name: (_ours if name == "ours" else _torch)(config, job, x, y, half, name)
        for name in variants
        if job == "classification" or "compiled" not in name
    }


def _ours(
    config: Config, job: Job, x: np.ndarray, y: np.ndarray, half: bool, _: str
) -> Callable[[], float]:
    import jax
    from flax import nnx

    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
    from encoders.heads import ClassificationHead
    from encoders.pretraining import Pretrainer
    from encoders.settings import TrainingSettings
    from encoders.steps import compiled, start
    from encoders.tasks import Classifier

    dtype = "bfloat16" if half else "float32"
    encoder = ConvNeXtV2(ConvNeXtV2Config.named(config.size, dtype=dtype), rngs=nnx.Rngs(0))
    model = (
        Classifier(encoder, ClassificationHead(encoder.config.features, CLASSES, rngs=nnx.Rngs(0)))
        if job == "classification"
        else Pretrainer(encoder, patch=PATCH, width=config.width, rngs=nnx.Rngs(0))
    )
    settings = TrainingSettings(batch_size=len(x), learning_rate=RATE, weight_decay=DECAY)
    graph, state = start(model, settings)
    step, root = compiled(graph, settings), jax.random.key(0)

    def run() -> float:
        nonlocal state
        batch = {"volumes": jax.device_put(x), "targets": jax.device_put(y)}
        state, loss = step(state, batch, root, RATE)
        jax.block_until_ready((state, loss))
        return float(loss)

    return run


def _torch(
    config: Config, job: Job, x: np.ndarray, y: np.ndarray, half: bool, name: str
) -> Callable[[], float]:
    import torch

    from tests.encoders.reference import Reference

    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = LAYOUTS[config.size]
    encoder = Reference(*layout)
    if job == "classification":
        nn = torch.nn
        model = nn.Sequential(
            nn.Linear(layout.widths[-1], 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, CLASSES),
        )
    else:
        model = _decoder(layout.widths[-1], config.width)
        visible = _mask_encoder(encoder)
    for module in (encoder, model):
        module.to(device)
    parameters = [*encoder.parameters(), *model.parameters()]
    fused = True if device.type == "cuda" else None
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, fused=fused)

    def loss(volumes: Any, targets: Any) -> Any:
        volumes = volumes.movedim(-1, 1)
        if job == "classification":
            return torch.nn.functional.cross_entropy(model(encoder(volumes)[0]), targets)
        grid = [side // PATCH for side in x.shape[1:4]]
        ranks = torch.rand(len(x), int(np.prod(grid)), device=device).argsort(1).argsort(1)
        seen = (ranks >= round(RATIO * ranks.shape[1])).reshape(len(x), 1, *grid).float()
        visible.append(seen)
        features = encoder(volumes)[1][-1]
        visible.clear()
        return _masked_error(model, features, volumes, seen)

    objective = torch.compile(loss) if "compiled" in name else loss

    def run() -> float:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            value = objective(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
        value.backward()
        optimiser.step()
        return value.item()

    return run


def _mask_encoder(encoder: Any) -> list[Any]:
    """Masks the output of the stem and of every depthwise convolution; gives where to put masks."""
    import torch

    visible: list[Any] = []

    def mask(_module: Any, _inputs: Any, out: Any) -> Any:
        if not visible:
            return out
        return out * torch.nn.functional.interpolate(visible[0], out.shape[2:], mode="nearest")

    encoder.downsample_layers[0].register_forward_hook(mask)
    for stage in encoder.stages:
        for block in stage:
            block.dwconv.register_forward_hook(mask)
    return visible


def _decoder(features: int, width: int) -> Any:
    """Linear layer, one block, linear layer, and the token."""
    import torch

    from tests.encoders.reference import Block

    model = torch.nn.ModuleDict(
        {
            "inward": torch.nn.Conv3d(features, width, 1),
            "block": Block(width, 3),
            "outward": torch.nn.Conv3d(width, PATCH**3 * 3, 1),
        }
    )
    model.register_parameter("token", torch.nn.Parameter(torch.zeros(1, width, 1, 1, 1)))
    return model


def _masked_error(model: Any, features: Any, volumes: Any, seen: Any) -> Any:
    """The mean squared error of masked patches, each scaled to mean 0 and variance 1."""
    x = model["inward"](features)
    x = x * seen + model.token * (1 - seen)
    prediction = model["outward"](model["block"](x)).flatten(2).movedim(1, 2)
    n, _, *space = volumes.shape
    split = [part for side in space for part in (side // PATCH, PATCH)]
    patches = volumes.reshape(n, 3, *split).permute(0, 2, 4, 6, 3, 5, 7, 1)
    patches = patches.reshape(n, -1, PATCH**3 * 3)
    target = patches - patches.mean(-1, keepdim=True)
    target = target / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    masked = 1 - seen.flatten(1)
    return ((prediction - target).square().mean(-1) * masked).sum() / masked.sum()


def peak_memory(config: Config, name: str, job: Job, index: int) -> dict[str, float]:
    """Peak resident memory in MiB of a process that makes two steps.

    Ours twice: ``peak_mib`` with no compiled program kept yet, ``peak_again_mib`` with them.
    """
    flags = ["--size", config.size, "--width", str(config.width)]
    flags += ["--shapes", *(str(side) for shape in config.shapes for side in shape)]
    flags += ["--batches", *map(str, config.batches)]
    with TemporaryDirectory() as folder:
        flags += ["--folder", folder, "--alone", f"{name} {job} {index}"]
        names = ("peak_mib", "peak_again_mib")[: 2 if name == "ours" else 1]
        return {each: harness.peak_of("benchmarks.training", *flags) for each in names}


def main(config: Config) -> None:
    """Measures every job on every shape, prints and writes."""
    if len(config.batches) != len(config.shapes):
        sys.exit("--batches: give one per shape")
    if config.alone:
        name, job, index = config.alone.split()
        if config.folder is not None:
            # Before JAX is imported; as the jobs have it.
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.folder)
            os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
        (step,) = steps(config, job, int(index), "float32", (name,)).values()  # type: ignore[arg-type]
        step()
        step()
        print(harness.own_peak())
        return
    about, rows = (
        harness.facts(config, "jax", "flax", "optax", "torch"),
        [],
    )
    for precision in config.precisions:
        for index in range(len(config.shapes)):
            for job in config.jobs:
                for row in measure(config, job, index, precision):
                    rows.append(row)
                    print(_line(row), flush=True)
                harness.record(config.out, {**about, "rows": rows})


def measure(config: Config, job: Job, index: int, precision: Precision) -> list[dict[str, Any]]:
    """A row per variant: steps per second, cost relative to ours, first loss and peak memory."""
    made = steps(config, job, index, precision, config.variants)
    first = {name: step() for name, step in made.items()}  # compiles
    turns = harness.take_turns(made, config.turns)
    rows = []
    for name in made:
        row = {
            "job": job,
            "shape": config.shapes[index],
            "batch": config.batches[index],
            "precision": precision,
            **turns.row(name, "ours"),
            "first_loss": first[name],
        }
        row["steps_per_second"] = 1 / row["seconds_median"]
        if config.memory:
            row |= peak_memory(config, name, job, index)
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    text = (
        f"{row['job']:14} {'x'.join(map(str, row['shape'])):9} batch {row['batch']} "
        f"{row['precision']:8} {harness.line(row, 'ours')}, first loss {row['first_loss']:.4f}"
    )
    peaks = [f"{row[name]:.0f}" for name in ("peak_mib", "peak_again_mib") if name in row]
    return text + (f"  {', again '.join(peaks)} MiB" if peaks else "")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
