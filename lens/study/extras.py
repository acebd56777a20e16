"""Libraries that some kinds of files need, and that are installed only on demand."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from lens.errors import InputError


def needed(library: str, extra: str, path: Path) -> ModuleType:
    """The library that reads a file.

    Args:
        library: its name, as it is imported.
        extra: of this package that installs it.
        path: of the file, for the message.

    Raises:
        InputError: it is not installed; with the line that installs it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(
            f"{path}: {library} reads such files and is not installed; "
            f"pip install 'radiomic-lens[{extra}]' (in a checkout, pip install '.[{extra}]')"
        ) from error
