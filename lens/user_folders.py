"""The package's folders among the user's own; they need not exist or be writable."""

from __future__ import annotations

import os
from pathlib import Path


def config_home() -> Path:
    """Settings of the user: ``radiomic-lens`` in ``XDG_CONFIG_HOME``, else in ``~/.config``."""
    return _home("XDG_CONFIG_HOME", "~/.config")


def cache_home() -> Path:
    """What can be made again: ``radiomic-lens`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    return _home("XDG_CACHE_HOME", "~/.cache")


def _home(variable: str, default: str) -> Path:
    # Path.expanduser fails where there is no home.
    return Path(os.environ.get(variable) or os.path.expanduser(default)) / "radiomic-lens"  # noqa: PTH111
