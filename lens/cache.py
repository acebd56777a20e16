"""The one rule by which finished work is reused.

A result is taken from an earlier run only if its *key* is the same and its files are as they were
left. The key is the hash of everything that determines the result: the input with its ids and
names, the settings, the source code behind it (`code_version`), and the versions of the libraries.
A file counts as it was left if size and SHA-256 are those recorded. Everything else, an unreadable
record too, counts as not done: work is done again rather than a stale number shown.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lens.disk import file_hash, write_json
from lens.errors import InputError
from lens.openable import special

LIBRARIES = (
    "flax", "jax", "jaxlib", "numpy", "orbax-checkpoint", "pandas", "pyradiomics-bhklab",
    "PyWavelets", "scikit-learn", "scipy", "SimpleITK",
)  # fmt: skip
"""Whose versions are part of every key: a number may change with any of them."""

PACKAGES = ("lens", "encoders", "experiments")


def fingerprint(*facts: Any) -> str:
    """SHA-256 of nested facts, 64 hex digits.

    Args:
        facts: arrays and tables (types, names and contents), dataclasses, mappings (their order
            counts, as that of columns does), sequences, paths (as text: hash the content with
            `lens.disk.file_hash`), text, numbers, None.

    Raises:
        TypeError: a kind of thing whose content cannot be told; no object's address ever enters.
    """
    digest = hashlib.sha256()
    for part in _parts(facts):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def key(code: Sequence[str], *facts: Any) -> str:
    """The key of a result.

    Args:
        code: modules whose functions make it (``lens.verdicts.rules``); all that they import of
            this project counts with them.
        facts: everything else that determines it, as in `fingerprint`.
    """
    return fingerprint(code_version(*code), libraries(), facts)


@cache
def libraries() -> dict[str, str]:
    """Installed versions of `LIBRARIES`; an empty text for one that is absent."""
    return {name: _version(name) for name in LIBRARIES}


@cache
def code_version(*modules: str) -> str:
    """SHA-256 over the sources of modules and of all that they import from this project."""
    sources: dict[str, bytes] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in sources:
            files = _sources(name)
            sources[name] = b"\0".join(file.read_bytes() for file in files)
            waiting += [other for file in files for other in _imported(file, name)]
    return fingerprint(dict(sorted(sources.items())))


def recorded(outputs: Iterable[Path], folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every output, a file or all files of a folder, by path below `folder`."""
    return {
        str(file.relative_to(folder)): {"size": file.stat().st_size, "sha256": file_hash(file)}
        for output in outputs
        for file in ([output] if output.is_file() else sorted(output.rglob("*")))
        if file.is_file()
    }


def intact(files: Any, folder: Path) -> bool:
    """Whether every file is there as `recorded` it; False for what is no such record."""
    try:
        return bool(files) and all(
            _same(folder / name, int(facts["size"]), str(facts["sha256"]))
            for name, facts in files.items()
        )
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return False


def finished(path: Path, key: str) -> bool:
    """Whether `path` holds the result of this key, as `finish` left it."""
    entry = read_record(_entry(path))
    return entry.get("key") == key and intact(entry.get("files"), path.parent)


def finish(path: Path, key: str, *beside: Path) -> None:
    """Records that `path` holds the result of this key, in a small file beside it.

    Args:
        path: file or folder.
        key: of the result.
        beside: files of the same folder that belong to it.
    """
    write_json(_entry(path), {"key": key, "files": recorded([path, *beside], path.parent)})


def read_record(path: Path) -> dict[str, Any]:
    """A record's content; empty where the file is absent, damaged or something else.

    Raises:
        InputError: it is a pipe or a device, which would never end.
    """
    if path.exists() and (kind := special(path)):
        raise InputError(f"{path}: is {kind}, where a record is kept; remove it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _entry(path: Path) -> Path:
    return path.with_name(f".{path.name}.done.json")


def _same(path: Path, size: int, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size == size and file_hash(path) == sha256


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _parts(value: Any) -> Iterable[bytes]:
    """The content of a value in pieces, each led by its kind: 1 and "1" are two things."""
    if value is None or isinstance(value, bool | int | float | str | bytes | Path | np.generic):
        yield type(value).__name__.encode()
        yield value if isinstance(value, bytes) else str(value).encode()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif _is_of_pandas(value, "DataFrame"):
        table: Any = value
        yield b"table"
        yield from _parts({str(name): column for name, column in table.items()})
    elif isinstance(value, np.ndarray) or _is_of_pandas(value, "Series"):
        yield b"column"
        yield from _parts(np.asarray(value).tolist())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        yield from _parts({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        yield f"mapping of {len(value)}".encode()
        for name, content in value.items():
            yield from _parts(name)
            yield from _parts(content)
    elif isinstance(value, list | tuple):
        yield f"sequence of {len(value)}".encode()
        for content in value:
            yield from _parts(content)
    else:
        raise TypeError(f"{type(value).__name__} has no content to hash")


def _is_of_pandas(value: Any, kind: str) -> bool:
    """Whether a value is of a class of pandas, which workers do without: where it is not imported
    there is none."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, kind))


def _sources(module: str) -> list[Path]:
    """The files of a module, with the stub that lists what a lazy package imports."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return []
    file = Path(spec.origin)
    return [each for each in (file, file.with_suffix(".pyi")) if each.is_file()]


def _imported(file: Path, module: str) -> set[str]:
    """Modules of this project that a file imports, anywhere in it."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    ours = (
        name for name in _import_names(file.read_bytes(), package) if name.split(".")[0] in PACKAGES
    )
    return {name for name in ours if _is_module(name)}


@cache
def _import_names(source: bytes, package: str) -> frozenset[str]:
    """What a source imports, in any of its statements; expressions import nothing."""
    found: set[str] = set()
    waiting: list[Any] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*start, node.module or ""]).strip(".") if node.level else node.module
            found |= {str(base), *(f"{base}.{alias.name}" for alias in node.names)}
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, part, ())
    return frozenset(found)


def _is_module(name: str) -> bool:
    """Whether a name is a module's; packages alone are imported for the answer."""
    return _found(name) is not None


@cache
def _found(name: str) -> ModuleSpec | None:
    package = name.rpartition(".")[0]
    # Asked for what is below a plain module, Python would import it.
    above = _found(package) if package else None
    if package and (above is None or above.submodule_search_locations is None):
        return None
    return find_spec(name)
