"""Which columns of a table are dimensions of an embedding, and which of two tables belong together.

Columns of embeddings are nearly always a run of numbers behind one stem, ``f00, f01, ...`` or ``0,
1, ...``; a label that was left among them would be read as a dimension.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lens.errors import InputError

UNNAMED = re.compile(r"(Unnamed: \d+(_level_\d+)?|__index_level_\d+__|level_\d+|index|\s*)")
"""Names that an index gets when it is written, or put back, as a column."""

MOST = 0.5
"""Share of the columns in numbered runs from which the others break the run."""

SHORTEST = 0.5
"""Columns of a numbered run, as a share of those of the longest."""

_LISTED = 5


def check_named(columns: Sequence[str], name: str) -> None:
    """Refuses a column without a name, which an index is that was written with the table.

    Args:
        columns: those beside the ids.
        name: what messages call the table.

    Raises:
        InputError: names the column.
    """
    unnamed = [column for column in columns if UNNAMED.fullmatch(column)]
    if unnamed:
        raise InputError(
            f"{name}: column {unnamed[0]!r} has no name of its own: a row number or index that was "
            "written with the table. Drop it; in pandas, write with index=False"
        )


def check_run(columns: Sequence[str], name: str) -> None:
    """Refuses columns that break the run of names, such as ``volume_ml`` after ``f00`` to ``f15``.

    Args:
        columns: those beside the ids.
        name: what messages call the table.

    Raises:
        InputError: names the columns.
    """
    counts = Counter(stem for stem in map(_stem, columns) if "#" in stem)
    # Two readers' scores are numbered as well; a run is of the length of the longest.
    least = max(2, SHORTEST * max(counts.values(), default=0))
    runs = {stem for stem, count in counts.items() if count >= least}
    inside = [column for column in columns if _stem(column) in runs]
    outside = [column for column in columns if _stem(column) not in runs]
    if outside and len(inside) > MOST * len(columns):
        raise InputError(
            f"{name}: column(s) {listed(outside)} break the run of names from {inside[0]} to "
            f"{inside[-1]}: a label among dimensions would be read as what the encoder knows. Drop "
            "them, or allow them (--any-columns, in Python any_columns=True)"
        )


def matched(
    pre: Sequence[str], other: Sequence[str], names: tuple[str, str], *, named: bool
) -> list[str]:
    """The columns of an embedding in the order of the same dimensions before fine-tuning.

    The same names in another order are put in order. Two runs with other stems, ``e0, e1`` and
    ``f00, f01``, go by their numbers; where one is an array without names, by their order.

    Args:
        pre: columns of the embeddings before fine-tuning.
        other: of those compared with them.
        names: what messages call the two tables.
        named: whether both have names of their own.

    Raises:
        InputError: the names differ (named), or their number does.
    """
    if set(pre) == set(other):
        return list(pre)
    if len(pre) != len(other) and not named:
        raise InputError(
            f"{names[1]}: embeddings have {len(other)} dimensions, {names[0]} has {len(pre)}; the "
            "frozen projection needs the same width"
        )
    one, two = _numbered(pre), _numbered(other)
    other_stem = bool(one and two) and _stem(pre[0]) != _stem(other[0])
    if one and two and len(one) == len(two) and (other_stem or not named):
        of_number = dict(zip(sorted(one), [two[number] for number in sorted(two)], strict=True))
        return [of_number[_number(column)] for column in pre]
    if named:
        raise InputError(_different(pre, other, names))
    return list(other)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more


def _stem(column: str) -> str:
    return re.sub(r"\d+", "#", column)


def _number(column: str) -> int:
    return int(re.findall(r"\d+", column)[0])


def _numbered(columns: Sequence[str]) -> dict[int, str]:
    """Number -> column of a single run; empty where the columns are none."""
    stems = {_stem(column) for column in columns}
    if len(stems) != 1 or next(iter(stems)).count("#") != 1:
        return {}
    numbered = {_number(column): column for column in columns}
    return numbered if len(numbered) == len(columns) else {}


def _different(pre: Sequence[str], other: Sequence[str], names: tuple[str, str]) -> str:
    """What to say of two embeddings whose columns differ."""
    sides = zip((pre, other), (set(other), set(pre)), names, strict=True)
    only = [(name, [c for c in own if c not in others]) for own, others, name in sides]
    found = "; ".join(f"{name} alone has {listed(alone)}" for name, alone in only if alone)
    return (
        f"{names[1]}: embeddings have {len(other)} dimensions, {names[0]} has {len(pre)}, and "
        f"their columns differ: {found}. A dimension must be the same before and after fine-"
        "tuning; give both tables the same columns"
    )
