"""What a flag names as an encoder: weights, a function of the user's own, or an ONNX file."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from encoders.checkpoints import load
from encoders.encoder import Encoder
from encoders.functions import FunctionEncoder
from encoders.headers import Header, read_header
from encoders.onnx_files import open_onnx
from encoders.source_names import is_called, is_function, is_onnx, named_file
from encoders.state_dicts import source_hash
from encoders.user_code import open_function


def open_encoder(
    source: Path, *, partial: bool = False, output: str | None = None
) -> Encoder | FunctionEncoder:
    """The encoder that a flag names.

    Args:
        source: a checkpoint as `encoders.load` takes it, ``module:function``,
            ``file.py:function``, or an ``.onnx`` file. Code is run for a function alone.
        partial: accept weights that do not match fully.
        output: of an ONNX file, which; others have none.

    Raises:
        InputError: it cannot be used.
    """
    return _called(source, output) if is_called(source) else load(source, partial=partial)


def exists(source: Path) -> bool:
    """Whether there is such a file or folder, or it is a function, which is looked for later."""
    return is_function(source) or source.exists()


def content_hash(source: Path, output: str | None = None) -> str:
    """Hash of all that is known to determine an encoder's numbers.

    Raises:
        InputError: it cannot be used.
    """
    return _called(source, output).fingerprint if is_called(source) else source_hash(source)


def header_of(
    source: Path,
    shape: tuple[int, int, int],
    channels: int,
    *,
    partial: bool = False,
    output: str | None = None,
    regional: bool = False,
) -> Header:
    """What an encoder is, without reading weights; what is called is tried out on noise.

    Args:
        source, partial, output: as `open_encoder` takes them.
        shape, channels: of the volumes it will be shown.
        regional: whether regions will be pooled over.

    Raises:
        InputError: it cannot be used.
    """
    if not is_called(source):
        return read_header(source, partial=partial)
    config = _called(source, output).config
    if config.in_channels in (0, channels):
        config = replace(config, features=_width(source, output, shape, channels, regional))
    return Header(config, 0)


def _called(source: Path, output: str | None) -> FunctionEncoder:
    return _opened(source, output, _file_as_it_is(source))


def _width(
    source: Path, output: str | None, shape: tuple[int, int, int], channels: int, regional: bool
) -> int:
    return _tried(source, output, _file_as_it_is(source), shape, channels, regional)


@lru_cache(maxsize=1)
def _opened(source: Path, output: str | None, _: tuple[str | int, ...]) -> FunctionEncoder:
    """Kept for the next question, so that a large model is read once; only the last one."""
    return open_onnx(source, output) if is_onnx(source) else open_function(source)


@lru_cache
def _tried(
    source: Path,
    output: str | None,
    file: tuple[str | int, ...],
    shape: tuple[int, int, int],
    channels: int,
    regional: bool,
) -> int:
    return _opened(source, output, file).try_out(shape, channels, regional=regional)


def _file_as_it_is(source: Path) -> tuple[str | int, ...]:
    """Tells a file from another of its name and from itself once it is changed; of a module of the
    user's own, the folder that it is looked for in."""
    file = named_file(source)
    if file is None or not file.exists():
        return (str(Path.cwd()),)
    facts = file.stat()
    return (str(file.resolve()), facts.st_mtime_ns, facts.st_size)
