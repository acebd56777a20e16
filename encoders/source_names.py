"""What kind of encoder a flag names, told from its name alone and without an import that takes
time: weights, a function of the user's own, or an ONNX file."""

from __future__ import annotations

from pathlib import Path

from lens.errors import InputError

ONNX_SUFFIX = ".onnx"


def is_function(source: Path) -> bool:
    """Whether a name is ``module:function`` or ``file.py:function``, and no file by itself."""
    module, colon, function = str(source).rpartition(":")
    dotted = function.replace(".", "")
    return bool(module and colon and dotted.isidentifier()) and not source.exists()


def meant_function(source: Path) -> str | None:
    """``module:function`` for what was written ``module.function``; None where no module is so."""
    module, dot, function = str(source).rpartition(".")
    if not (dot and function.isidentifier() and module.replace(".", "").isidentifier()):
        return None
    place = Path(*module.split("."))
    return f"{module}:{function}" if place.with_suffix(".py").is_file() else None


def is_onnx(source: Path) -> bool:
    """Whether a path names an ONNX file."""
    return source.suffix.lower() == ONNX_SUFFIX and not is_function(source)


def is_called(source: Path) -> bool:
    """Whether it is called as it is, so that it can be embedded with and not trained."""
    return is_function(source) or is_onnx(source)


def code_file(source: Path) -> Path | None:
    """The file of ``file.py:function``; None for ``module:function``."""
    file = Path(str(source).rpartition(":")[0])
    return file if file.suffix == ".py" else None


def named_file(source: Path) -> Path | None:
    """The file or folder that a flag names; None for a function of a module."""
    return code_file(source) if is_function(source) else source


def check_output_name(output: str | None, *sources: Path) -> None:
    """Refuses the name of an output where nothing has one.

    Raises:
        InputError: as said.
    """
    if output is not None and not any(is_onnx(source) for source in sources):
        raise InputError(f"--output {output}: names an output of an .onnx file; leave it out")
