"""Radiomics as other programs write them, in the form of our table.

PyRadiomics' command line and scripts leave out modality and region, and write how a case was done
between the ids and the features; IBSI programs have names of their own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import pandas as pd

from lens.errors import InputError
from lens.names import PART
from lens.radiomics.ibsi import as_pyradiomics
from lens.radiomics.names import PATTERN
from lens.study.cells import DIAGNOSTICS, ID_COLUMNS
from lens.study.dimensions import listed
from lens.study.id_causes import probable_cause, same_but_for_writing

log = logging.getLogger(__name__)

BATCH = ("Image", "Mask")
"""Columns that every output of PyRadiomics' command line begins with, those of its input; one of
them may be the column of ids."""

_COMBAT = re.compile(r"^(?:combat_)|(?:_combat)$")
"""How some scripts mark values that were harmonised between sites."""

_PREFIX = re.compile(r"(?P<part>[^.\s]+\.[^.\s]+)\.(?P<feature>.+)")


def is_parts(source: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether this maps ``<modality>.<roi>`` to tables: a table is by columns with two dots."""
    return (
        isinstance(source, Mapping)
        and bool(source)
        and all(isinstance(key, str) and PART.fullmatch(key) for key in source)
    )


def named_features(table: pd.DataFrame, name: str, part: str = "") -> pd.DataFrame:
    """The table with features alone, called ``<modality>.<roi>.<image>_<class>_<feature>``.

    Diagnostics are passed over, which is logged; names by MIRP, IBSI and pictologics become those
    of PyRadiomics.

    Args:
        table: ids, features, and what PyRadiomics writes beside them.
        name: what messages call the table.
        part: ``<modality>.<roi>`` of all features whose names do not tell it.

    Raises:
        InputError: a column that is no feature's name, or two of the same feature.
    """
    table = _without_diagnostics(table, name)
    columns = [c for c in table.columns if c not in ID_COLUMNS]
    called = {column: _called(column, part) for column in columns}
    plain = [c for c in columns if called[c] is None and as_feature(_plain(c))]
    if plain and not part:
        raise InputError(
            f"{name}: {listed(plain)} name no modality and region; say which the table is about, "
            "as in --radiomics t2.gland=FILE, in Python radiomics={'t2.gland': table}"
        )
    if part and (unknown := [c for c in columns if called[c] is None]):
        raise InputError(
            f"{name}: not the name of a radiomic feature by PyRadiomics, MIRP, IBSI or pictologics:"
            f" {listed(unknown)}. Drop what is none (a label, say); rename another feature to "
            "original_other_Name, class other"
        )
    places: dict[str, str] = {}
    for column, new in called.items():
        new = new or column
        if new in places and places[new] != column:
            raise InputError(
                f"{name}: columns {places[new]!r} and {column!r} are the same feature, {new}; drop "
                "one"
            )
        places[new] = column
    return table.rename(columns={column: new for column, new in called.items() if new})


def as_feature(name: str) -> str | None:
    """``<image>_<class>_<feature>`` of a name without modality and region; None of no feature."""
    if PATTERN.fullmatch(f"x.x.{name}"):
        return name
    return as_pyradiomics(name)


def join_parts(parts: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> pd.DataFrame:
    """One table from one per modality and region; a patient whom some lack has blanks there.

    Args:
        parts: ``<modality>.<roi>`` -> ids and features.
        names: what messages call each table.

    Raises:
        InputError: ``study_id`` in some tables only, none of a table's patients in another, or ids
            that are the same but for their writing.
    """
    keys = [c for c in ID_COLUMNS if any(c in table for table in parts.values())]
    if lacking := [names[p] for p, table in parts.items() if not set(keys) <= set(table.columns)]:
        raise InputError(f"{lacking[0]}: has no column {keys[-1]}, which others have; add it there")
    joined = pd.DataFrame()
    for part, table in parts.items():
        joined = table if joined.empty else _merged(joined, table, keys, names[part])
    return joined


def _merged(one: pd.DataFrame, two: pd.DataFrame, keys: Sequence[str], name: str) -> pd.DataFrame:
    # Copied, since pandas warns of a wide table that lost columns one by one.
    merged = one.copy().merge(
        two.copy(), how="outer", on=list(keys), validate="one_to_one", indicator="_from"
    )
    left, right = (merged["_from"].eq(f"{side}_only") for side in ("left", "right"))
    others, own = (
        ["/".join(row) for row in merged.loc[side, list(keys)].to_numpy()] for side in (left, right)
    )
    met = int((~left & ~right).sum())
    cause = probable_cause(own, others, (name, "the tables before it"))
    if not met or same_but_for_writing(own, others):
        raise InputError(
            f"{name}: {met or 'none'} of its {len(two)} rows meet those of the tables before it: "
            f"{cause}. Write ids alike"
        )
    if own or others:
        log.warning(
            "%s: %d of its %d rows meet the %d of the tables before it%s; the others get blanks",
            name, met, len(two), len(one), f" ({cause})" if cause else "",
        )  # fmt: skip
    return merged.drop(columns="_from")


def _without_diagnostics(table: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = [c for c in table.columns if c not in ID_COLUMNS]
    over = [c for c in columns if DIAGNOSTICS.fullmatch(c)]
    if set(BATCH) & set(columns):
        # What the batch's own list had comes first, then diagnostics and features.
        known = [bool(DIAGNOSTICS.fullmatch(c)) or as_feature(c) is not None for c in columns]
        first = known.index(True) if True in known else len(columns)
        over = [c for c in columns if c in over or c in columns[:first]]
    if over:
        log.warning("%s: passed over %d column(s) that are no features: %s",
                    name, len(over), listed(over))  # fmt: skip
    return table.drop(columns=over)


def _called(column: str, part: str) -> str | None:
    """The column in our form; None where it is no feature's name."""
    column = _plain(column)
    prefix = f"{part}." if part else ""
    if prefix and column.startswith(prefix):
        column = column.removeprefix(prefix)
    elif not prefix:
        found = _PREFIX.fullmatch(column)
        if found is None:
            return None
        prefix, column = f"{found['part']}.", found["feature"]
    feature = as_feature(_plain(column))
    return None if feature is None else prefix + feature


def _plain(column: str) -> str:
    """The name without the word for harmonised values."""
    return _COMBAT.sub("", column)
