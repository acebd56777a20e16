"""What of a change is radiomic and what is not, in sentences that are written from the table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from lens.report.words import modality_name, number, short
from lens.rest.table import LEVEL

NAMED = 3
"""Groups named in a sentence."""

FLOOR_SHARE = 0.5
"""Share of what is called new from which on its floor is said to be a caution."""

ROUNDING = 1e-9
"""Share of the variance below which embeddings are the same."""

CHANGED = {
    "new": "{} of the embedding after fine-tuning is new: a linear reader of the one before does "
    "not tell it.",
    "gone": "{} of the embedding before is gone: a linear reader of the one after does not tell "
    "it.",
    "difference": "The plain difference, channel by channel, is {} of the variance after "
    "fine-tuning.",
}

IT = {"new": "what is new", "gone": "what is gone", "difference": "the plain difference"}

Row = Mapping[Hashable, Any]


def sentences(table: pd.DataFrame) -> list[str]:
    """A paragraph for each side of the change.

    Args:
        table: rows of ``rest.csv``.
    """
    told = table[table["finding"] == "told"]
    first = told["side"].iloc[0] if len(told) else None
    return [
        _of_side(str(side), rows, side == first) for side, rows in table.groupby("side", sort=False)
    ]


def percent(value: float) -> str:
    """A share in whole per cent with a true minus sign; a tenth where it is below one."""
    digits = 0 if not abs(value) < 0.01 else 1
    return "–" if pd.isna(value) else f"{number(100 * value, digits)}%"


def group_name(row: Row) -> str:
    """A group as it is read: ``T2 gland`` for ``t2 gland``."""
    name = str(row["group"])
    if row["grouping"] != "modality":
        return short(name)
    modality, _, rest = name.partition(" ")
    return short(f"{modality_name(modality)} {rest}".strip())


def _of_side(side: str, rows: pd.DataFrame, explain: bool) -> str:
    """A paragraph; the first one with a share says what the rest of it may be."""
    whole = rows[rows["grouping"] == "all"].iloc[0].to_dict()
    if pd.isna(whole["size"]):
        return f"{IT[side].capitalize()}: the embedding does not vary, so that nothing can be said."
    said = [CHANGED[side].format(_with_ends(whole, "size"))]
    if whole["finding"] == "no change shown":
        said.append(_nothing(side, whole))
        return " ".join(said)
    if whole["floor"] > FLOOR_SHARE * whole["size"]:
        said.append(
            f"The same reader leaves {percent(whole['floor'])} of an embedding that holds nothing "
            "else, so that much of this may be no change."
        )
    if whole["finding"] == "not told":
        said.append(
            f"{_features(whole)} {_verb(whole, 'is', 'are')} not shown to tell any of {IT[side]} "
            f"({_with_ends(whole, 'share')})."
        )
    else:
        said.append(
            f"{_features(whole)} {_verb(whole, 'tells', 'tell')} {_with_ends(whole, 'share')} of "
            f"{IT[side]}{_groups(rows)}."
        )
        if explain:
            said.append(
                f"The other {percent(1 - whole['share'])} is not radiomic, or not in a form that "
                "a linear reader finds with so many patients, or noise."
            )
    return " ".join(said + _seeds(side, whole, rows))


def _nothing(side: str, whole: Row) -> str:
    """Why no share is claimed."""
    if side == "difference":
        nothing = abs(whole["size_high"]) < ROUNDING
        what = "Nothing changed" if nothing else "That anything changed is not shown"
        return f"{what}, and no share of it is claimed."
    return (
        f"The same reader leaves {percent(whole['floor'])} of an embedding that holds nothing "
        f"else: no more is shown to be {side}, and no share of it is claimed."
    )


def _groups(rows: pd.DataFrame) -> str:
    """The groups that tell most of it by themselves."""
    own = rows[rows["grouping"].isin(["modality", "class"]) & (rows["p_maxt"] <= LEVEL)]
    own = own[own["share_low"] > 0].sort_values("share", ascending=False, kind="stable")
    if own.empty:
        return ""
    named = [
        f"{group_name(row)} {percent(row['share'])}" for row in own.head(NAMED).to_dict("records")
    ]
    return f" (alone: {', '.join(named)})"


def _seeds(side: str, whole: Row, rows: pd.DataFrame) -> list[str]:
    """What another seed tells: the ceiling, and what comes again without being radiomic."""
    own = rows[rows["grouping"] == "seed"].set_index("group")
    if own.empty:
        return []
    seed, both = own.iloc[0].to_dict(), own.iloc[1].to_dict()
    beyond = f"{_with_ends(seed, 'unique')} of it beyond the features"
    tail = (
        "this part comes again and is not radiomic, as far as a linear reader can show"
        if seed["unique_low"] > 0
        else "nothing that comes again is shown to lie outside of the features"
    )
    return [
        f"An encoder fine-tuned again from another seed tells {_with_ends(seed, 'share')} of "
        f"{IT[side]}, {beyond}: {tail}. Neither tells {percent(1 - both['share'])}, which may be "
        "chance of the training."
    ]


def _with_ends(row: Row, name: str) -> str:
    """A share with its interval; estimates may come out above the whole, which no share is."""
    value, low, high = (percent(min(row[f"{name}{end}"], 1.0)) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _features(whole: Row) -> str:
    count = whole["n_features"]
    return "The only feature" if count == 1 else f"The {count} features"


def _verb(whole: Row, one: str, several: str) -> str:
    return one if whole["n_features"] == 1 else several
