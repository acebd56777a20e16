"""Our encoder against the same network, with the same weights, in other packages, taking turns.

``python -m benchmarks.encoder`` prints the table of docs/benchmarks.md and writes
``benchmarks/results/encoder.json``. The measure is the time of a whole call, on the clock and of
the processor. Peak memory is that of a process that does nothing else. Errors are relative to
PyTorch in float32 on the CPU. A package that is not installed is named and left out.

With ``MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647`` before the command
freed memory is kept for the next call, for all alike, as `experiments.embed` keeps it for itself.

On a CUDA card the input is there beforehand, and both libraries multiply at the same precision:
``tf32`` is JAX's default for float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.harness import Call
from benchmarks.rates import card_rates, product_rates
from lens.machine import cpu_count

Precision = Literal["float32", "tf32", "bfloat16"]
Kind = Literal["forward", "backward"]
Size = Literal["atto", "tiny", "dinov2-small"]
ON_CPU = ("ours", "torch", "torch-channels-last", "torch-compiled", "onnxruntime", "openvino")
ON_CARD = ("ours", "ours-one-program", "torch", "torch-channels-last", "torch-compiled")


@dataclass(frozen=True)
class Config:
    """Which network, which input and how often."""

    size: Size = "tiny"
    """Published size of the encoder; dinov2-small reads the slices of its input as images."""
    shape: tuple[int, int, int] = (64, 224, 224)
    """Depth, height and width of the input, in voxels."""
    batches: tuple[int, ...] = (1, 4)
    """Volumes per call."""
    precisions: tuple[Precision, ...] = ("float32",)
    """Of the products; others than float32 are for a CUDA card."""
    variants: tuple[str, ...] = ()
    """Whom to run, ours first; by default all that suit the device."""
    turns: int = 12
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
    config: Config, batch: int, precision: Precision, *, backward: bool, variants: tuple[str, ...]
) -> dict[str, Callable[[], Any]]:
    """One call per variant, compiled and warmed up, on the same random input."""
    x = np.random.default_rng(0).normal(size=(batch, *config.shape, 3)).astype(np.float32)
    set_precision(precision)
    made: dict[str, Callable[[], Any]] = {}
    for name in variants:
        if name.startswith("ours"):
            call: Call | None = _ours(config, x, precision, backward, whole="program" in name)
        elif name.startswith("torch"):
            call = _torch(config, x, precision, backward, name)
        else:
            call = None if backward else _from_onnx(config, x, name)
        if call is None:
            continue
        seconds = harness.cost_of(call).seconds
        print(f"  {name} {precision}: ready, first call {seconds:.1f} s", flush=True)
        made[name] = call
    return made


def set_precision(precision: Precision, *, ours: bool = True, torch: bool = True) -> None:
    """Of matrix products and convolutions, in both libraries or in the one that is used.

    A library that is not used is not imported either: it is in a process's peak memory.
    """
    if ours:
        import jax

        exact = "float32" if precision == "float32" else None
        jax.config.update("jax_default_matmul_precision", exact)
    if torch:
        from torch import backends

        backends.cuda.matmul.allow_tf32 = precision == "tf32"
        backends.cudnn.allow_tf32 = precision == "tf32"


class Layout(NamedTuple):
    """Of a published size in 3D, as the network in PyTorch takes it."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]


LAYOUTS = {
    "atto": Layout((2, 2, 6, 2), (40, 80, 160, 320), (2, 2, 1)),
    "tiny": Layout((3, 3, 9, 3), (96, 192, 384, 768), (2, 2, 1)),
}
"""Those of `encoders.convnext`, without JAX, which PyTorch's peak memory should not hold."""


@cache
def _model(size: Size) -> Any:
    """The network in PyTorch, random weights everywhere; gives a pair, embeddings first."""
    import torch

    from tests.encoders.reference import Reference, randomise

    torch.set_num_threads(cpu_count())
    if size == "dinov2-small":
        return _of_slices(torch)
    model = Reference(*LAYOUTS[size])
    randomise(model)
    return model


def _of_slices(torch: Any) -> Any:
    """DINOv2 of Hugging Face, small, of the slices of volumes."""
    from tests.encoders.reference_vit import reference

    dinov2 = reference(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518)

    class OfSlices(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dinov2 = dinov2

        def forward(self, x: Any) -> Any:
            images = x.movedim(1, 2).reshape(-1, x.shape[1], *x.shape[3:])
            return (self.dinov2(images).last_hidden_state[:, 0],)

    return OfSlices()


def _encoder(size: Size, precision: str) -> Any:
    """Ours, with the same weights."""
    from flax import nnx

    from encoders import vit_weights
    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config
    from encoders.convnext_weights import convert
    from tests.encoders import reference, reference_vit

    model, dtype = _model(size), "bfloat16" if precision == "bfloat16" else "float32"
    if size == "dinov2-small":
        encoder = vit_weights.convert(reference_vit.arrays(model.dinov2))[0]
        encoder.config = replace(encoder.config, dtype=dtype)
        return encoder
    encoder = ConvNeXtV2(ConvNeXtV2Config.named(size, dtype=dtype), rngs=nnx.Rngs(0))
    nnx.update(encoder, nnx.state(convert(reference.arrays(model))[0]))
    return encoder


def _ours(config: Config, x: np.ndarray, precision: str, backward: bool, *, whole: bool) -> Call:
    import jax
    from flax import nnx

    encoder = _encoder(config.size, precision)
    if config.size == "dinov2-small":
        x = x.reshape(-1, *x.shape[2:])
    graph, state = nnx.split(encoder)
    x_device = jax.device_put(x)

    @jax.jit
    @jax.grad
    def gradient(state: Any, x: jax.Array) -> jax.Array:
        return (nnx.merge(graph, state)(x) ** 2).sum()

    @jax.jit
    def program(state: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, state)(x)

    if backward:
        return lambda: jax.block_until_ready(gradient(state, x_device))
    if whole:
        return lambda: np.asarray(program(state, x_device))
    return lambda: np.asarray(encoder(x_device))


def _torch(config: Config, x: np.ndarray, precision: str, backward: bool, name: str) -> Call:
    import copy

    import torch

    card = torch.cuda.is_available()
    layout = torch.channels_last_3d if "last" in name else torch.contiguous_format
    model = copy.deepcopy(_model(config.size)).to(memory_format=layout)  # type: ignore[call-overload]
    volume = torch.from_numpy(x).movedim(-1, 1).contiguous(memory_format=layout)
    if card:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model, volume = model.to("cuda", dtype), volume.to("cuda", dtype)
    run = model
    if "compiled" in name:
        run = torch.compile(model, mode="reduce-overhead" if card else None)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return run(volume)[0].float().cpu().numpy()

    def gradient() -> None:
        model.zero_grad()
        run(volume)[0].square().sum().backward()
        if card:
            torch.cuda.synchronize()

    return gradient if backward else forward


def _from_onnx(config: Config, x: np.ndarray, name: str) -> Call | None:
    """The network run from an ONNX file by another package, where it is installed."""
    if find_spec(name) is None:
        print(f"  {name}: not installed", flush=True)
        return None
    import torch

    volume = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "encoder.onnx"))
        embedding = _embedding(_model(config.size))
        torch.onnx.export(embedding, (torch.from_numpy(volume),), file, dynamo=False)
        if name == "openvino":
            # A peer that no extra installs.
            openvino = import_module("openvino")

            settings = {
                "INFERENCE_NUM_THREADS": cpu_count(),
                "PERFORMANCE_HINT": "LATENCY",
                # Where the processor has bfloat16, its default.
                "INFERENCE_PRECISION_HINT": "f32",
            }
            program = openvino.Core().compile_model(file, "CPU", settings)
            return lambda: program([volume])[0]
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_count()
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda: session.run(None, {given.name: volume})[0]


def _embedding(model: Any) -> Any:
    """The network without its feature maps."""
    import torch

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(x)[0]

    return Embedding()


def operations(config: Config) -> float:
    """Multiplications and additions of one forward pass of one volume, without the cheap layers."""
    from encoders.convnext import KERNEL, ConvNeXtV2Config

    if config.size == "dinov2-small":
        slices, *sides = config.shape
        tokens, width, blocks = 1 + int(np.prod([side // 14 for side in sides])), 384, 12
        patches = 2 * (tokens - 1) * 14**2 * 3 * width
        return slices * (patches + blocks * (24 * tokens * width**2 + 4 * tokens**2 * width))
    ours = ConvNeXtV2Config.named(config.size)
    total, inputs = 0.0, ours.in_channels
    for stage, (depth, width) in enumerate(zip(ours.depths, ours.widths, strict=True)):
        positions = np.prod([side // ours.total_strides[stage] for side in config.shape])
        patch = 4 if stage == 0 else ours.strides[stage - 1]
        total += 2 * positions * patch**3 * inputs * width
        total += 2 * positions * depth * (KERNEL**3 * width + 8 * width**2)
        inputs = width
    return float(total)


def peak_memory(config: Config, name: str, kind: str) -> float:
    """Peak resident memory in MiB of a process that makes this call twice."""
    shape = map(str, config.shape)
    return harness.peak_of(
        "benchmarks.encoder", "--size", config.size, "--shape", *shape, "--alone", f"{name} {kind}"
    )


def main(config: Config) -> None:
    """Measures every kind of call, prints and writes."""
    if config.alone:
        name, kind = config.alone.split()
        calls(config, 1, "float32", backward=kind == "backward", variants=(name,))[name]()
        print(harness.own_peak())
        return
    work, rows = operations(config), []
    rates = card_rates() if not harness.on_cpu() else product_rates()
    found = {"gflop_per_volume": work / 1e9, "rates": rates}
    print(f"{work / 1e9:.1f} GFLOP per volume, {rates}", flush=True)
    about = harness.facts(config, "jax", "torch")

    def keep(kind: Kind, batch: int, precision: Precision, config: Config = config) -> None:
        for row in measure(config, kind, batch, precision):
            if kind == "forward":
                row["gflops"] = batch * work / row["seconds_min"] / 1e9
            rows.append(row)
            print(_line(row, rates.get(precision, np.nan)), flush=True)
        harness.record(config.out, about | found | {"rows": rows})

    for precision in config.precisions:
        for batch in config.batches:
            keep("forward", batch, precision)
        if config.backward:
            keep("backward", 1, precision, replace(config, shape=config.backward_shape))


def measure(config: Config, kind: Kind, batch: int, precision: Precision) -> list[dict[str, Any]]:
    """A row per variant: cost, ratio to ours, error and peak memory."""
    variants = config.variants or (ON_CARD if not harness.on_cpu() else ON_CPU)
    if config.size == "dinov2-small":  # its images have no layout of volumes
        variants = tuple(name for name in variants if name != "torch-channels-last")
    made = calls(config, batch, precision, backward=kind == "backward", variants=variants)
    turns = harness.take_turns(made, config.turns)
    reference = _reference(config, batch) if kind == "forward" else None
    rows = []
    for name, call in made.items():
        row = {
            "kind": kind,
            "batch": batch,
            "shape": config.shape,
            "precision": precision,
            **turns.row(name, "ours"),
        }
        if reference is not None:
            error = np.linalg.norm(np.asarray(call(), np.float64) - reference)
            row["error"] = float(error / np.linalg.norm(reference))
        if config.memory and batch == 1:
            row["peak_mib"] = peak_memory(config, name, kind)
        rows.append(row)
    return rows


@cache
def _reference(config: Config, batch: int) -> np.ndarray:
    """Embeddings in PyTorch on the CPU."""
    import torch

    x = np.random.default_rng(0).normal(size=(batch, *config.shape, 3)).astype(np.float32)
    with torch.inference_mode():
        return _model(config.size)(torch.from_numpy(x).movedim(-1, 1))[0].double().numpy()


def _line(row: dict[str, Any], limit: float) -> str:
    text = f"{row['kind']:8} batch {row['batch']} {row['precision']:8} {harness.line(row, 'ours')}"
    if "gflops" in row:
        text += f"  {row['gflops']:.1f} GFLOP/s ({1e11 * row['gflops'] / limit:.0f}%)"
    if "error" in row:
        text += f"  error {row['error']:.0e}"
    if "peak_mib" in row:
        text += f"  {row['peak_mib']:.0f} MiB"
    return text


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
