"""Text that a spreadsheet would run as a formula: guarded in tables that are written as CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = "=+-@\t\r\n＝＋－＠"
"""First characters by which a spreadsheet takes a cell for a formula, or as the lead-in of one."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)
GUARDED = re.compile(f"'+[{re.escape(FORMULA)}]")


def guarded(text: str) -> str:
    """Text as a spreadsheet shows it and does not run it: ``=1+1`` becomes ``'=1+1``.

    Numbers stay as they are. Text that looks guarded already gets one more apostrophe, so that
    `unguarded` gives back every text unchanged.
    """
    formula = text[:1] in FORMULA and text and not NUMBER.fullmatch(text)
    return f"'{text}" if formula or GUARDED.match(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if GUARDED.match(text) else text


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """`pandas.read_csv` with the apostrophes of `guarded` taken away, in cells and header."""
    import pandas as pd  # here and below late: workers read no table

    return _each_text(pd.read_csv(path, **options), unguarded)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """`DataFrame.to_csv` without the index, with every text `guarded`."""
    safe = _each_text(table, guarded)
    # A lone carriage return ends a line for the reader unless it is quoted, which the writer's own
    # rule forgets; names of files that are no Unicode are written as escapes.
    texts = (cell for _, column in _texts(safe) for cell in column if isinstance(cell, str))
    returns = any("\r" in text for text in (*map(str, safe.columns), *texts))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    safe.to_csv(path, index=False, quoting=quoting, errors="backslashreplace")


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with all text in it changed, that of its header too; a copy if any is."""
    import pandas as pd

    names = [change(name) if isinstance(name, str) else name for name in table.columns]
    changed: dict[int, pd.Series] = {}
    for position, column in _texts(table):
        new = [change(cell) if isinstance(cell, str) else cell for cell in column]
        if any(a is not b and a != b for a, b in zip(new, column, strict=True)):
            changed[position] = pd.Series(new, index=table.index, dtype=column.dtype)
    if not changed and names == list(table.columns):
        return table
    parts = [changed.get(i, table.iloc[:, i]) for i in range(table.shape[1])]
    return pd.concat(parts, axis=1).set_axis(names, axis=1)


def _texts(table: pd.DataFrame) -> Iterator[tuple[int, pd.Series]]:
    """The columns that may hold text, with their positions."""
    import pandas as pd

    for position, kind in enumerate(table.dtypes):
        if pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind):
            yield position, table.iloc[:, position]
