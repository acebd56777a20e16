"""Our encoder beside the same network in PyTorch, on CPU, in one process, taking turns.

``python -m benchmarks.encoder`` prints the table of docs/benchmarks.md and writes
``benchmarks/results/encoder.json``. The measure is the time of a whole call; runs take turns, so
that a busy machine slows all of them, and ratios are taken turn by turn. Peak memory is that of a
process that does nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

Variant = Literal["ours", "torch", "torch-channels-last"]
VARIANTS: tuple[Variant, ...] = ("ours", "torch", "torch-channels-last")


@dataclass(frozen=True)
class Config:
    """Which network, which input and how often."""

    size: Literal["atto", "tiny"] = "tiny"
    """Published size of the encoder."""
    shape: tuple[int, int, int] = (64, 224, 224)
    """Depth, height and width of the input, in voxels."""
    batches: tuple[int, ...] = (1, 4)
    """Volumes per call."""
    turns: int = 5
    """Calls of each variant."""
    backward: bool = True
    """Also the gradient of the embedding's sum of squares, for one volume."""
    backward_shape: tuple[int, int, int] = (32, 112, 112)
    """Its input, in voxels: PyTorch takes minutes for the gradient at full size."""
    memory: bool = True
    """Also the peak memory of each variant, in a process of its own (Linux)."""
    out: Path = Path(__file__).parent / "results" / "encoder.json"
    """Where the figures go."""
    alone: str | None = None
    """Only print the peak memory of this one: a variant and a kind, e.g. "ours forward"."""


def calls(
    config: Config, batch: int, *, backward: bool, variants: tuple[Variant, ...] = VARIANTS
) -> dict[str, Callable[[], Any]]:
    """One call per variant, compiled and warmed up, on the same random input."""
    x = np.random.default_rng(0).normal(size=(batch, *config.shape, 3)).astype(np.float32)
    made: dict[str, Callable[[], Any]] = {}
    if "ours" in variants:
        made["ours"] = _ours(config, x, backward)
    for name in variants:
        if name != "ours":
            made[name] = _torch(config, x, backward, last=name.endswith("last"))
    for call in made.values():
        call()
    return made


def _ours(config: Config, x: np.ndarray, backward: bool) -> Callable[[], Any]:
    import jax
    from flax import nnx

    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config

    encoder = ConvNeXtV2(ConvNeXtV2Config.named(config.size), rngs=nnx.Rngs(0))
    x_device = jax.numpy.asarray(x)
    if not backward:
        return lambda: jax.block_until_ready(encoder(x_device))
    graph, state = nnx.split(encoder)

    @jax.jit
    @jax.grad
    def gradient(state: Any, x: jax.Array) -> jax.Array:
        return (nnx.merge(graph, state)(x) ** 2).sum()

    return lambda: jax.block_until_ready(gradient(state, x_device))


def _torch(config: Config, x: np.ndarray, backward: bool, *, last: bool) -> Callable[[], Any]:
    import torch

    from encoders.convnext import ConvNeXtV2Config
    from tests.encoders.reference import Reference

    torch.set_num_threads(os.cpu_count() or 1)
    ours = ConvNeXtV2Config.named(config.size)
    model = Reference(ours.depths, ours.widths, ours.strides)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    volume = torch.from_numpy(x).movedim(-1, 1).contiguous(memory_format=layout)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return model(volume)[0]

    def gradient() -> None:
        model.zero_grad()
        model(volume)[0].square().sum().backward()

    return gradient if backward else forward


def take_turns(made: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each call, one of each in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(turns):
        for name, call in made.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def operations(config: Config) -> float:
    """Multiplications and additions of one forward pass of one volume, without the cheap layers."""
    from encoders.convnext import KERNEL, ConvNeXtV2Config

    ours = ConvNeXtV2Config.named(config.size)
    total, inputs = 0.0, ours.in_channels
    for stage, (depth, width) in enumerate(zip(ours.depths, ours.widths, strict=True)):
        positions = np.prod([side // ours.total_strides[stage] for side in config.shape])
        patch = 4 if stage == 0 else ours.strides[stage - 1]
        total += 2 * positions * patch**3 * inputs * width
        total += 2 * positions * depth * (KERNEL**3 * width + 8 * width**2)
        inputs = width
    return float(total)


def attainable() -> float:
    """Operations per second of a large matrix product, the best of several."""
    import torch

    a = torch.rand(2048, 2048)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds)


def peak_memory(config: Config, name: Variant, kind: str) -> float:
    """Peak resident memory in MiB of a process that makes this call twice."""
    command = [sys.executable, "-m", "benchmarks.encoder", "--size", config.size]
    command += ["--shape", *map(str, config.shape), "--alone", f"{name} {kind}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def main(config: Config) -> None:
    if config.alone:
        name, kind = config.alone.split()
        (call,) = calls(
            config, 1, backward=kind == "backward", variants=(name,)  # type: ignore[arg-type]
        ).values()  # fmt: skip
        call()
        # ru_maxrss would include the parent's memory at the fork.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    rows = []
    limit = attainable()
    work = operations(config)
    kinds = [("forward", batch, config) for batch in config.batches]
    if config.backward:
        kinds.append(("backward", 1, replace(config, shape=config.backward_shape)))
    for kind, batch, settings in kinds:
        made = calls(settings, batch, backward=kind == "backward")
        seconds = take_turns(made, config.turns)
        for name, values in seconds.items():
            ratios = np.array(values) / np.array(seconds["torch"])
            row = {
                "kind": kind,
                "batch": batch,
                "shape": settings.shape,
                "variant": name,
                "seconds_median": float(np.median(values)),
                "seconds_min": min(values),
                "ratio_to_torch_median": float(np.median(ratios)),
                "ratio_to_torch_low": float(ratios.min()),
                "ratio_to_torch_high": float(ratios.max()),
            }
            if kind == "forward":
                row["gflops"] = batch * work / min(values) / 1e9
            if config.memory and batch == 1:
                row["peak_mib"] = peak_memory(settings, name, kind)  # type: ignore[arg-type]
            rows.append(row)
            print(_line(row, limit), flush=True)
        del made
    facts = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "load_average": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("jax", "torch")},
        "config": {k: v for k, v in asdict(config).items() if k not in ("out", "alone")},
        "gflop_per_volume": work / 1e9,
        "attainable_gflops": limit / 1e9,
        "rows": rows,
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{work / 1e9:.1f} GFLOP per volume, {limit / 1e9:.0f} GFLOP/s attainable; {config.out}")


def _line(row: dict[str, Any], limit: float) -> str:
    text = (
        f"{row['kind']:8} batch {row['batch']}  {row['variant']:20} "
        f"{row['seconds_median']:7.2f} s (best {row['seconds_min']:.2f})  "
        f"{row['ratio_to_torch_median']:5.2f} of torch "
        f"[{row['ratio_to_torch_low']:.2f}, {row['ratio_to_torch_high']:.2f}]"
    )
    if "gflops" in row:
        text += f"  {row['gflops']:5.1f} GFLOP/s ({1e11 * row['gflops'] / limit:.0f}%)"
    if "peak_mib" in row:
        text += f"  {row['peak_mib']:.0f} MiB"
    return text


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
