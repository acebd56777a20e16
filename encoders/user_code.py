"""A function of the user's own code as an encoder: ``module:function``, ``file.py:function``.

The code is run, with all rights of the user; only a flag that names it does so, and no file of
weights. Its numbers are kept by a fingerprint of what is known about it: the content of the file
that holds the function, and whatever the function names as its ``cache_key``. Other modules that it
imports, and weights that it loads without naming them, are not noticed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from encoders.functions import FunctionEncoder, kept_folder, user_failure
from encoders.source_names import code_file
from encoders.torch_files import first_line
from lens.cache import fingerprint
from lens.disk import file_hash
from lens.errors import InputError
from lens.names import PACKAGES

log = logging.getLogger(__name__)


def open_function(source: Path) -> FunctionEncoder:
    """Imports the code and gives its function as an encoder.

    A function without parameters, or a class, is called once, and what it gives is the encoder;
    anything else that can be called is the encoder itself.

    Raises:
        InputError: there is no such module or function, it cannot be called, or the code fails.
    """
    with kept_folder() as left:
        made = _made(source)
    if left:
        log.warning(
            "%s: changes the current folder to %s (os.chdir) when it is opened; it is put back, "
            "for the paths of this job are relative to it", source, left[0],
        )  # fmt: skip
    return made


def _made(source: Path) -> FunctionEncoder:
    name = str(source)
    module_name, _, path = name.rpartition(":")
    module = _imported(source, module_name)
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            there = [key for key, value in vars(module).items() if callable(value)]
            raise InputError(
                f"{name}: {module_name} has no {path}; it has "
                f"{', '.join(key for key in there if not key.startswith('_')) or 'no function'}"
            ) from error
    encoder = found
    if _makes_one(found):
        try:
            encoder = found()
        except (Exception, SystemExit) as error:
            raise user_failure(name, error) from error
    if not callable(encoder):
        raise InputError(
            f"{name}: {type(encoder).__name__} is no function; give one from volumes "
            "(n, D, H, W, C) to embeddings (n, d) or maps (n, D', H', W', C')"
        )
    return FunctionEncoder(name, encoder, _fingerprint(name, module, path, encoder, found))


class _Fresh(SourceFileLoader):
    """Compiles the file as it is now: kept bytecode stands for a file of its size and second."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _imported(source: Path, module_name: str) -> ModuleType:
    """The module; the current folder, or that of the file, can be imported from."""
    file = code_file(source)
    folder = str((file.parent if file else Path()).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if file is None:
            return importlib.import_module(module_name)
        if not file.is_file():
            raise InputError(f"{source}: no such file {file}")
        # By the whole path: two files may have one name.
        own = f"{file.stem}_{sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(own, file, loader=_Fresh(own, str(file)))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[own] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if file is None and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{source}: no module {error.name}, neither in the current folder nor installed; "
                "give file.py:function to name it by its path"
            ) from error
        raise _taken_name(source, folder, error) or user_failure(str(source), error) from error
    except ImportError as error:
        raise (
            _taken_name(source, folder, error)
            or _of_package(source, file, error)
            or user_failure(str(source), error)
        ) from error
    except (Exception, SystemExit) as error:
        raise user_failure(str(source), error) from error
    return module


def _taken_name(source: Path, folder: str, error: ImportError) -> InputError | None:
    """About a folder of the user's that is called like one of this program's, which is found."""
    first = (error.name or "").partition(".")[0]
    if first not in PACKAGES:
        return None
    places = (Path(folder, first), Path(folder, f"{first}.py"))
    there = next((place for place in places if place.exists()), None)
    return there and InputError(
        f"{source}: your code imports from {first} ({first_line(error)}), which is the name of a "
        f"package of this program and stands for that; {there} is not reached. Rename it, or put "
        f"it into a folder of another name and import from that, as in my_code.{first}"
    )


def _of_package(source: Path, file: Path | None, error: ImportError) -> InputError | None:
    """About a file that imports relative to its package, and was named by its path."""
    if file is None or "relative import" not in str(error):
        return None
    place = file.resolve().with_suffix("")
    depth = 2
    while depth < len(place.parts) - 1 and (place.parents[depth - 1] / "__init__.py").is_file():
        depth += 1
    dotted = ".".join(place.parts[-depth:])
    return InputError(
        f"{source}: {file.name} is a part of a package, and imports relative to it; start the "
        f"command in {place.parents[depth - 1]} and give {dotted}:{str(source).rpartition(':')[2]}"
    )


def _makes_one(found: Any) -> bool:
    """Whether it is called without a volume to make the encoder."""
    if inspect.isclass(found):
        return True
    if not (inspect.isfunction(found) or inspect.ismethod(found)):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
             inspect.Parameter.VAR_POSITIONAL)  # fmt: skip
    return not any(p.kind in kinds for p in inspect.signature(found).parameters.values())


def _fingerprint(name: str, module: ModuleType, path: str, *holders: Any) -> str:
    key = next((each for h in holders if (each := getattr(h, "cache_key", None)) is not None), None)
    if key is None:
        _note_no_key(name)
    file = getattr(module, "__file__", None)
    try:
        return fingerprint("function", path, file_hash(Path(file)) if file else name, _hashed(key))
    except (TypeError, OSError) as error:
        raise InputError(
            f"{name}: its cache_key cannot be used ({error}); give text, numbers, arrays, lists of "
            "them, or pathlib.Path, which counts with the content of its file"
        ) from error


@cache
def _note_no_key(name: str) -> None:
    """Says so, once: a job opens an encoder for its checks and again for its work."""
    log.info(
        "%s: has no cache_key; changed weights are not noticed while its file stays the same", name
    )


def _hashed(key: Any) -> Any:
    """With the content of files in place of their paths."""
    if isinstance(key, Path):
        return file_hash(key)
    if isinstance(key, Mapping):
        return {name: _hashed(value) for name, value in key.items()}
    return [_hashed(value) for value in key] if isinstance(key, list | tuple) else key
