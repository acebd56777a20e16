"""Local paths and addresses in text: found, and replaced by what may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PureWindowsPath
from typing import Any

ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)

_NAME = r"[^\s/\\'\"<>|:,;()\[\]]+"
PATH = re.compile(
    rf"(?<![\w/\\.~:])(?:\.{{1,2}}|~[\w.-]*|[A-Za-z]:|\\)?[/\\](?:{_NAME}[/\\])*{_NAME}[/\\]?"
)
"""An absolute path, or one from the folder above or the user's own; it holds no blanks."""


def base_name(path: str) -> str:
    """The last part of a path of any system; a full stop that ends a sentence stays."""
    end = "." if path.endswith(".") else ""
    # Windows takes both kinds of slash.
    return PureWindowsPath(path.rstrip(".")).name + end


def replace_paths(
    text: str, known: Mapping[str, str] | None = None, shown: Callable[[str], str] = base_name
) -> str:
    """Text without local paths and network addresses.

    Args:
        text: of a message, say.
        known: path -> what stands for it; of these relative ones and such with blanks are found.
        shown: what stands for any other path.
    """
    for path, name in sorted((known or {}).items(), key=lambda item: len(item[0]), reverse=True):
        if path in text:
            whole = rf"(?<![\w.-]){re.escape(path)}(?![\w-])([/\\]{_NAME})*"
            text = re.sub(whole, partial(_stand_in, path, name, shown), text)
    text = ADDRESS.sub("[address]", text)
    return PATH.sub(lambda found: shown(found[0]), text)


def _stand_in(path: str, name: str, shown: Callable[[str], str], found: re.Match[str]) -> str:
    """What is found in a known folder is shown like any other path."""
    return name if found[0] == path else shown(found[0])


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Nested content of a JSON file with each text in it changed, names of entries excepted."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: each_text(content, change) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [each_text(content, change) for content in value]
    return value
