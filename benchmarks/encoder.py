"""Our encoder against the same network in PyTorch, on CPU, in one process, taking turns.

``python -m benchmarks.encoder`` prints the table of docs/benchmarks.md and writes
``benchmarks/results/encoder.json``. The measure is the time of a whole call. Peak memory is that of
a process that does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import harness
from lens.machine import cpu_count

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
    out: Path = harness.RESULTS / "encoder.json"
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

    torch.set_num_threads(cpu_count())
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


def peak_memory(config: Config, name: Variant, kind: str) -> float:
    """Peak resident memory in MiB of a process that makes this call twice."""
    shape = map(str, config.shape)
    return harness.peak_of(
        "benchmarks.encoder", "--size", config.size, "--shape", *shape, "--alone", f"{name} {kind}"
    )


def main(config: Config) -> None:
    """Measures every kind of call, prints and writes."""
    if config.alone:
        name, kind = config.alone.split()
        (call,) = calls(
            config, 1, backward=kind == "backward", variants=(name,)  # type: ignore[arg-type]
        ).values()  # fmt: skip
        call()
        print(harness.own_peak())
        return
    rate, work, rows = harness.product_rates()["float32"], operations(config), []
    for batch in config.batches:
        for row in measure(config, "forward", batch):
            row["gflops"] = batch * work / row["seconds_min"] / 1e9
            rows.append(row)
            print(_line(row, rate), flush=True)
    if config.backward:
        for row in measure(replace(config, shape=config.backward_shape), "backward", 1):
            rows.append(row)
            print(_line(row, rate), flush=True)
    print(f"{work / 1e9:.1f} GFLOP per volume, {rate / 1e9:.0f} GFLOP/s attainable")
    found = {"gflop_per_volume": work / 1e9, "attainable_gflops": rate / 1e9, "rows": rows}
    harness.record(config.out, harness.facts(config, "jax", "torch") | found)


def measure(
    config: Config, kind: Literal["forward", "backward"], batch: int
) -> list[dict[str, Any]]:
    """A row per variant: seconds, ratio to PyTorch and peak memory."""
    seconds = harness.take_turns(calls(config, batch, backward=kind == "backward"), config.turns)
    rows = []
    for name, values in seconds.items():
        row = {
            "kind": kind,
            "batch": batch,
            "shape": config.shape,
            "variant": name,
            **harness.timing(values),
            **harness.ratio(values, seconds["torch"]).named("ratio_to_torch"),
        }
        if config.memory and batch == 1:
            row["peak_mib"] = peak_memory(config, name, kind)  # type: ignore[arg-type]
        rows.append(row)
    return rows


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
