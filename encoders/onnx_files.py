"""Networks as ONNX files, run by ONNX Runtime (extra ``onnx``).

The layout is told by the input's shape: (n, C, D, H, W) reads volumes, (n, C, H, W) slices, whose
embeddings are averaged; channels may also come last. Files with the weights of a large model beside
it are found by their names in the file, and count with their content.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.functions import FunctionConfig, FunctionEncoder
from encoders.torch_files import first_line
from lens.disk import file_hash
from lens.errors import InputError

SLICES = 16
"""Slices or volumes that a network without a batch size of its own reads at once."""

_LOCATION = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)
"""How a tensor says in which file beside the model it lies: key, and length of the value."""

_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def onnx_hash(path: Path) -> str:
    """SHA-256 of a model and of all files of weights beside it.

    Raises:
        InputError: a file that the model names is not there, or not beside it.
    """
    digest = hashlib.sha256(file_hash(path).encode())
    for name in _external(path):
        file = path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: names {name}, which is not beside it; refused")
        if not file.is_file():
            raise InputError(f"{path}: its weights are in {name}, which is not beside it; copy it")
        digest.update(f"{name} {file_hash(file)}".encode())
    return digest.hexdigest()


def open_onnx(path: Path, output: str | None = None) -> FunctionEncoder:
    """The network of an ONNX file as an encoder.

    Args:
        path: the file.
        output: name of the output to take, where there are several.

    Raises:
        InputError: ONNX Runtime is not installed, the file is none, or its input or outputs are
            not those of an encoder.
    """
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{path}: ONNX files are run by ONNX Runtime, which is not installed; install the "
            "extra 'onnx' (pip install 'radiomic-lens[onnx]')"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = onnx_hash(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # ONNX Runtime has an exception for every status
        raise InputError(
            f"{path}: not readable by ONNX Runtime ({first_line(error)}); export it again"
        ) from error
    network = _network(path, session, output)
    digest = hashlib.sha256(f"onnx {content} {network.output}".encode()).hexdigest()
    config = FunctionConfig(in_channels=network.channels or 0)
    return FunctionEncoder(str(path), network, digest, config, users=False)


@dataclass(frozen=True)
class _Network:
    """A session as a function of volumes.

    Attributes:
        sides: (D,) H, W that the input is fixed to, None for any.
        channels: of the input, None for any.
        batch: that the input is fixed to, None for any.
        last: whether channels come last.
    """

    path: Path
    session: Any
    input: str
    kind: type
    output: str
    others: tuple[str, ...]
    sides: tuple[int | None, ...]
    channels: int | None
    batch: int | None
    last: bool

    def __call__(self, volumes: np.ndarray) -> np.ndarray:
        slices = len(self.sides) == 2
        x = volumes.reshape(-1, *volumes.shape[2:]) if slices else volumes
        found = x.shape[1:-1]
        if any(a is not None and a != b for a, b in zip(self.sides, found, strict=True)):
            wanted = " x ".join("any" if side is None else str(side) for side in self.sides)
            raise InputError(
                f"{self.path}: reads images of {wanted} voxels, and the shape gives "
                f"{' x '.join(map(str, found))}; set --shape to it, or export it with free sides"
            )
        rows = self._run(x if self.last else np.moveaxis(x, -1, 1))
        if rows.ndim == x.ndim and not self.last:
            rows = np.moveaxis(rows, 1, -1)
        if rows.ndim not in (2, x.ndim):
            raise InputError(
                f"{self.path}: output {self.output} is {rows.shape}; expected embeddings (n, d) or "
                f"maps on the input's axes. Name another with --output ({self._named()}), or call "
                "the network in a function of your own (docs/encoders.md)"
            )
        if not slices:
            return rows
        rows = rows.reshape(*volumes.shape[:2], *rows.shape[1:])
        return rows.mean(axis=1) if rows.ndim == 3 else rows

    def _run(self, x: np.ndarray) -> np.ndarray:
        """In batches of the size that the network reads, the last one filled up."""
        size = self.batch or SLICES
        parts = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            fill = (self.batch or len(part)) - len(part)
            batch = np.concatenate([part, np.zeros((fill, *part.shape[1:]), part.dtype)])
            feed = {self.input: np.ascontiguousarray(batch, dtype=self.kind)}
            (out,) = self.session.run([self.output], feed)
            parts.append(np.asarray(out, np.float32)[: len(part)])
        return np.concatenate(parts)

    def _named(self) -> str:
        return "it has " + ", ".join((self.output, *self.others))


def _network(path: Path, session: Any, output: str | None) -> _Network:
    inputs, outputs = session.get_inputs(), [each.name for each in session.get_outputs()]
    if len(inputs) != 1:
        raise InputError(
            f"{path}: has {len(inputs)} inputs ({', '.join(each.name for each in inputs)}); an "
            "encoder has one, of images"
        )
    if output is not None and output not in outputs:
        raise InputError(f"{path}: --output {output}: it has {', '.join(outputs)}")
    if output is None and len(outputs) > 1:
        raise InputError(
            f"{path}: has the outputs {', '.join(outputs)}; name the one to take with --output"
        )
    chosen, (image,) = output or outputs[0], inputs
    kind, shape = _TYPES.get(image.type), image.shape
    if kind is None or len(shape) not in (4, 5):
        raise InputError(
            f"{path}: its input {image.name} is {image.type} of {len(shape)} axes; expected images "
            "(n, C, H, W) or volumes (n, C, D, H, W)"
        )
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    last = _channels_last(sizes)
    channels, sides = (sizes[-1], sizes[1:-1]) if last else (sizes[1], sizes[2:])
    others = tuple(name for name in outputs if name != chosen)
    return _Network(
        path, session, image.name, kind, chosen, others, tuple(sides), channels, sizes[0], last
    )


def _channels_last(sizes: Sequence[int | None]) -> bool:
    """Channels come first unless only the last axis is as short as they are."""
    first, last = sizes[1] or 10**6, sizes[-1] or 10**6
    return last <= 16 < first


def _external(path: Path) -> list[str]:
    """Names of the files beside a model that hold tensors of it."""
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        ends = [(at.end(), at[1][0]) for at in _LOCATION.finditer(data)]
        names = {data[end : end + size].decode("utf-8", "replace") for end, size in ends}
    return sorted(names)
