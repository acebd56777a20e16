"""Every row of the page on reliability is backed by a test of this suite."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
COLUMNS = ["attack", "outcome", "promise", "test"]


def rows() -> list[list[str]]:
    """Cells of the tables' rows, headings left out; a bar within a cell has a backslash."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row != COLUMNS and set("".join(row)) != {"-"}]


def test_every_row_names_a_test_that_is_there() -> None:
    known: dict[str, set[str]] = {}
    for attack, outcome, promise, test in rows():
        file, _, name = test.partition("::")
        if file not in known:
            tree = ast.parse((ROOT / file).read_text("utf-8"))
            known[file] = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        assert name.startswith("test_"), test
        assert name in known[file], f"{attack}: there is no {test}"
        assert outcome, attack
        assert promise, attack


def test_no_attack_is_told_twice() -> None:
    attacks = Counter(attack for attack, *_ in rows())
    assert [attack for attack, times in attacks.items() if times > 1] == []
    assert len(attacks) >= 150


def test_the_readme_counts_them() -> None:
    told = re.search(r"lists (\d+) inputs", (ROOT / "README.md").read_text("utf-8"))
    assert told is not None
    assert int(told[1]) == len(rows())
