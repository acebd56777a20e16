"""Text files in UTF-8: what is in another encoding is refused with its place and the remedy."""

from __future__ import annotations

import re
from pathlib import Path

from lens.errors import InputError

AS_TABLE = "Save it as 'CSV UTF-8 (comma delimited)'"
AS_TEXT = "Save it as UTF-8: a text editor offers that where it saves"


def read_utf8(path: Path, remedy: str = AS_TABLE) -> str:
    """The text of a file, line ends as they are, without a byte-order mark.

    Args:
        path: the file.
        remedy: a sentence without its full stop.

    Raises:
        InputError: in another encoding, such as Latin-1; names line and byte.
    """
    content = path.read_bytes()
    try:
        # Spreadsheets put a byte-order mark before the first column's name.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Places count from behind a byte-order mark.
        content = error.object
        line = content.count(b"\n", 0, error.start) + 1
        near = content[max(0, error.start - 10) :][:20].decode("latin-1")
        raise InputError(
            f"{path}, line {line}: not readable as UTF-8 (byte {content[error.start]:#04x} near "
            f"{re.sub(r'[^ -~]', '?', near)!r}). {remedy}"
        ) from error
