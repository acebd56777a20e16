"""What the command line of PyRadiomics writes besides CSV: a JSON list, or a line per value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from lens.errors import InputError
from lens.utf8 import AS_TEXT, read_utf8

LINE = re.compile(r"Case-(?P<case>\d+)_(?P<name>[^:]+): (?P<value>.*)")
"""A line of ``pyradiomics -f txt``: ``Case-1_original_glcm_Idm: 0.5``."""


def read_lines(path: Path) -> pd.DataFrame:
    """A row per case from lines of one value each, as ``pyradiomics -f txt`` writes them.

    Raises:
        InputError: not in UTF-8, a line is none of these, or a case has a name twice.
    """
    cases: dict[int, dict[str, str]] = {}
    for number, line in enumerate(read_utf8(path, AS_TEXT).splitlines(), start=1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"{path}: line {number} is not Case-<number>_<name>: <value>, as pyradiomics -f "
                "txt writes; save tables as .csv, .tsv or .parquet"
            )
        case = cases.setdefault(int(match["case"]), {})
        if match["name"] in case:
            raise InputError(f"{path}: line {number} gives {match['name']!r} of its case again")
        case[match["name"]] = match["value"]
    return pd.DataFrame(list(cases.values()))


def read_json(path: Path) -> pd.DataFrame:
    """A row per object of a list, as ``pyradiomics -f json`` writes it.

    Raises:
        InputError: not in UTF-8, or another JSON.
    """
    content: Any = json.loads(read_utf8(path, AS_TEXT))
    if not isinstance(content, list) or not all(isinstance(case, dict) for case in content):
        raise InputError(
            f"{path}: is no list of cases, as pyradiomics -f json writes; save a table with "
            "DataFrame.to_parquet or to_csv(index=False)"
        )
    return pd.DataFrame(content)
