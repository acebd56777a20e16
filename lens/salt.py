"""The salt of hidden names: a file of the user's choice, or the user's own."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from lens.errors import InputError
from lens.openable import special
from lens.user_folders import config_home

FEWEST = 16
"""Characters of a salt: 64 random bits in hexadecimal."""

MOST = 1 << 20
"""Bytes of a salt's file."""

BEING_DRAWN = 2.0
"""Seconds after which an empty file is none that another run is about to fill."""


def read_salt(path: Path | None = None, out: Path | None = None) -> bytes:
    """The salt of a file, or the user's own, which is drawn when it is first needed.

    Args:
        path: of the user's choice; None for ``radiomic-lens/salt`` in the user's folder of settings
            (``XDG_CONFIG_HOME``, else ``~/.config``), readable by the user alone.
        out: folder of results, in which no salt may lie.

    Raises:
        InputError: no such file, too short, or among the results.
    """
    own = path is None
    # Not by its path: this is said before anything can be hidden.
    which = "--salt: your own file (radiomic-lens/salt among your settings)" if own else "--salt"
    path = path or config_home() / "salt"
    # The own one lies below the results only where these are the user's whole folder.
    if out is not None and not own and path.resolve().is_relative_to(out.resolve()):
        raise InputError(
            "--salt: the file lies in the folder of the results, and would leave with them; "
            "keep it elsewhere"
        )
    try:
        if own and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another run has begun to draw it
                _draw_salt(path)
        if path.exists() and (special(path) or path.stat().st_size > MOST):
            raise InputError(f"{which} is no file of {FEWEST} to {MOST} characters; name another")
        salt = _once_written(path).strip() if own else path.read_bytes().strip()
    except OSError as error:
        raise InputError(
            f"{which} is not readable ({error.strerror}); name a file with at least {FEWEST} "
            "random characters, and keep it: the same salt gives the same names"
        ) from error
    if len(salt) < FEWEST:
        raise InputError(
            f"{which} has fewer than {FEWEST} characters, which can be guessed; name another file"
        )
    return salt


def _once_written(path: Path) -> bytes:
    """The content of a file; of an empty one, which a run may just have begun, after a while."""
    end = time.monotonic() + BEING_DRAWN
    while not (content := path.read_bytes()) and time.monotonic() < end:
        time.sleep(0.01)
    return content


def _draw_salt(path: Path) -> None:
    """Writes a new salt, readable by the user alone from its first moment."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32) + "\n")
