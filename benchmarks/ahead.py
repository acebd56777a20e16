"""What runs on a card, compiled for one without having it: memory, kernels, arithmetic.

``python -m benchmarks.ahead`` compiles for an NVIDIA H200 what the jobs run there, at the sizes of
`benchmarks.accelerator`, and says what XLA plans: bytes that the card must hold, the kernels of its
libraries and its own, and what the arithmetic takes at the rates that such a card has shown
(``benchmarks/results/accelerator.json``). Nothing is timed. It needs no card, only XLA's compiler
for one, without what that depends on::

    pip install --no-deps jax-cuda12-plugin==JAX jax-cuda12-pjrt==JAX nvidia-cuda-nvcc-cu12

in the version of JAX. Kernels of matrix products and convolutions are chosen on the card, so that
their working space is not in the figures, and products stay with the library.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.encoder import Config as EncoderConfig
from benchmarks.encoder import operations
from lens.errors import InputError

DEVICE = """
gpu_device_info {
  name: "NVIDIA H200" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  platform_version: "Compute Capability 9.0a"
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 l2_cache_size: 52428800
  device_memory_size: 151397597184 memory_bandwidth: 4800000000000 device_address_bits: 64
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200"
"""
"""The card's specification, as XLA's compiler takes it."""

RATES = {"float32": 404e12, "bfloat16": 777e12}
"""Operations a second of large matrix products on an H200 as `benchmarks.accelerator` measured
them; those of float32 in tf32, JAX's default there."""

LIBRARIES = {"__cublas$lt$matmul": "matrix products", "__cublas$gemm": "matrix products",
             "__cudnn$convForward": "convolutions", "__cudnn$convBackwardFilter": "convolutions",
             "__cudnn$convBackwardInput": "convolutions"}  # fmt: skip

HIDDEN = 256
"""Hidden units of the published sweep."""


@dataclass(frozen=True)
class Config:
    """What is compiled, and where to."""

    size: Literal["atto", "tiny"] = "tiny"
    """Published size of the encoder."""
    shape: tuple[int, int, int] = (64, 224, 224)
    """Depth, height and width of its input, in voxels."""
    batch: int = 4
    """Volumes of a pass and of a training step."""
    patients: int = 595
    """Train patients of the sweep and of the refits."""
    width: int = 768
    """Dimensions of their embedding."""
    columns: int = 2511
    """Radiomic features."""
    pairs: tuple[int, ...] = (24, 256)
    """Penalty pairs of the sweeps."""
    out: Path = harness.RESULTS / "ahead.json"
    """Where the figures go."""


class Program(NamedTuple):
    """Something to compile.

    Attributes:
        name: in words.
        run: a function that JAX can compile.
        arguments: their shapes.
        precision: of the products.
        operations: of its matrix products and convolutions.
    """

    name: str
    run: Any
    arguments: tuple
    precision: str
    operations: float


def main(config: Config) -> None:
    """Compiles every program, prints and writes."""
    devices = _devices()
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    place = NamedSharding(Mesh(devices, ("card",)), PartitionSpec())
    rows: list[dict[str, Any]] = []
    # What is traced asks JAX what it will run on.
    with patch("jax.default_backend", return_value="gpu"):
        for program in programs(config):
            rows.append(plan(program, place))
            print(_line(rows[-1]), flush=True)
    about = harness.facts(config, "jax", "jax-cuda12-plugin")
    harness.record(config.out, about | {"device": "NVIDIA H200", "rates": RATES, "rows": rows})


def plan(program: Program, place: Any) -> dict[str, Any]:
    """What XLA plans for a program on a device, and what that takes to compile."""
    import jax

    shapes = jax.tree.map(
        lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=place),
        program.arguments,
    )
    made: list[Any] = []
    # A function that JAX compiles already, such as a step, keeps what it may overwrite.
    run = program.run if hasattr(program.run, "lower") else jax.jit(program.run)
    cost = harness.cost_of(lambda: made.append(run.lower(*shapes).compile()))
    (compiled,) = made
    memory, text = compiled.memory_analysis(), compiled.as_text()
    calls: Counter[str] = Counter(re.findall(r'custom_call_target="([^"]+)"', text))
    kernels: Counter[str] = Counter({"own": len(re.findall(r" fusion\(", text))})
    for name, count in calls.items():
        kernels[LIBRARIES.get(name, name)] += count
    return {
        "program": program.name,
        "precision": program.precision,
        "arguments_mib": memory.argument_size_in_bytes / 2**20,
        "working_mib": (memory.temp_size_in_bytes + memory.output_size_in_bytes
                        - memory.alias_size_in_bytes) / 2**20,
        "kernels": dict(kernels),
        "arithmetic_ms": 1e3 * program.operations / RATES[program.precision],
        "compile_seconds": cost.processor,
    }  # fmt: skip


def programs(config: Config, precisions: Sequence[str] = tuple(RATES)) -> Iterator[Program]:
    """What the jobs run on a card."""
    import jax
    import jax.numpy as jnp

    volumes = jax.ShapeDtypeStruct((config.batch, *config.shape, 3), jnp.float32)
    for precision in precisions:
        forward = config.batch * operations(EncoderConfig(config.size, config.shape))
        graph, state = _encoder(config, precision)
        yield Program("embedding", partial(_embed, graph), (state, volumes), precision, forward)
        for remat in (False, True):
            step, arguments = _training(config, precision, volumes, remat=remat)
            name = "training step" + (", blocks recomputed" if remat else "")
            yield Program(name, step, arguments, precision, (3 + remat) * forward)
    for pairs in config.pairs:
        yield _sweep(config, pairs)


def _encoder(config: Config, precision: str, *, remat: bool = False) -> tuple[Any, Any]:
    from flax import nnx

    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config

    layout = ConvNeXtV2Config.named(config.size, dtype=precision, remat=remat)
    return nnx.split(nnx.eval_shape(lambda: ConvNeXtV2(layout, rngs=nnx.Rngs(0))))


def _embed(graph: Any, state: Any, x: Any) -> Any:
    from flax import nnx

    return nnx.merge(graph, state)(x)


def _training(
    config: Config, precision: str, volumes: Any, *, remat: bool
) -> tuple[Any, tuple[Any, ...]]:
    """A step of fine-tuning: forward, gradient, AdamW."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from encoders.heads import ClassificationHead
    from encoders.settings import TrainingSettings
    from encoders.steps import start, whole
    from encoders.tasks import Classifier

    encoder = nnx.merge(*_encoder(config, precision, remat=remat))
    head = ClassificationHead(encoder.config.features, 2, rngs=nnx.Rngs(0))
    settings = TrainingSettings(batch_size=config.batch)
    graph, state = start(Classifier(_filled(encoder), head), settings)
    batch = {"volumes": volumes, "targets": jax.ShapeDtypeStruct((config.batch,), jnp.int32)}
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    shapes, key = jax.eval_shape(lambda: (state, jax.random.key(0)))
    return whole(graph, settings), (shapes, batch, key, rate)


def _filled(encoder: Any) -> Any:
    """An encoder of zeros in place of shapes."""
    import jax
    from flax import nnx

    graph, state = nnx.split(encoder)
    return nnx.merge(graph, jax.tree.map(lambda each: np.zeros(each.shape, each.dtype), state))


def _sweep(config: Config, pairs: int) -> Program:
    """An epoch of all penalty pairs together."""
    import jax
    import jax.numpy as jnp

    from lens.probes.training import Data, Point, advance, start
    from lens.settings import SweepConfig

    settings = SweepConfig()
    number: Any = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    train, validation = config.patients, config.patients // 7
    data = Data(
        number((train, config.width)),
        number((train, config.columns)),
        number((validation, config.width)),
        number((validation, config.columns)),
    )
    points = Point(number((pairs,)), number((pairs,)), number((pairs,), dtype=jnp.int32))
    sizes = {"d": config.width, "hidden": HIDDEN, "k": config.columns}
    state = jax.eval_shape(partial(start, **sizes), points)
    epoch = partial(advance, first=0, last=1, batch=settings.batch, rate=settings.rate)
    run = jax.jit(epoch, donate_argnums=2)
    work = 6.0 * pairs * train * HIDDEN * (config.width + config.columns)
    name = f"sweep of {pairs} pairs, an epoch"
    return Program(name, run, (data, points, state), "float32", work)


def _devices() -> list[Any]:
    """The described card, to compile for."""
    if not all(map(find_spec, ("jax_plugins", "jax_cuda12_plugin", "nvidia"))):
        raise InputError("XLA's compiler for cards is not there; `--help` says what to install")
    nvcc = Path(import_module("nvidia").__path__[0], "cuda_nvcc")
    # Triton's products are tuned on the card, and so cannot be compiled without one.
    flags = f"--xla_gpu_cuda_data_dir={nvcc} --xla_gpu_autotune_level=0"
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} {flags} --xla_gpu_enable_triton_gemm=false"
    )
    os.environ["PATH"] = f"{nvcc / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="cuda", target_config=DEVICE, topology="1x1x1")
    return list(topology.devices)


def _line(row: dict[str, Any]) -> str:
    kernels = ", ".join(f"{count} {name}" for name, count in row["kernels"].items())
    return (
        f"{row['program']:36} {row['precision']:8} {row['arguments_mib']:6.0f} MiB given, "
        f"{row['working_mib']:7.0f} MiB more, {row['arithmetic_ms']:8.2f} ms of arithmetic; "
        f"{kernels}; compiled in {row['compile_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
