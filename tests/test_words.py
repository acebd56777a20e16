"""Who knows the word prostate: a short list of modules, and no other code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

WORDS = re.compile(r"(?<![a-z0-9])(prostate|gland|lesion|t2|dwi|adc)(?![a-z0-9])", re.IGNORECASE)

LISTED = re.compile(r"`((?:lens|encoders|experiments)/[a-z0-9_/]+\.py)`")


def modules_listed() -> set[str]:
    """The modules of the table in docs/cohorts.md."""
    text = (ROOT / "docs" / "cohorts.md").read_text(encoding="utf-8")
    return set(LISTED.findall(text.partition("## What knows the prostate")[2]))


EXAMPLES = re.compile(r"such as|for example|\bor\b|--|=")
"""A sentence for people may give an example."""


def code_words(path: Path) -> set[str]:
    """Words of the list in names and strings of the code; docstrings and messages apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    found: set[str] = set()
    for node in ast.walk(tree):
        texts = []
        if isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            texts = [node.name]
        elif isinstance(node, ast.arg | ast.keyword):
            texts = [node.arg or ""]
        elif isinstance(node, ast.ImportFrom) and node.module:
            texts = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [] if id(node) in documented or EXAMPLES.search(node.value) else [node.value]
        for text in texts:
            found |= {word.lower() for word in WORDS.findall(text.replace("_", " "))}
    return found


def modules() -> list[Path]:
    rooms = ("lens", "encoders", "experiments")
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def test_only_these_modules_know_the_prostate() -> None:
    knowing = {str(p.relative_to(ROOT)): words for p in modules() if (words := code_words(p))}
    listed = modules_listed()
    others = {name: words for name, words in knowing.items() if name not in listed}
    # The module of the prostate may be imported by the few that apply it.
    others = {name: words - {"prostate"} for name, words in others.items()}
    assert {name: words for name, words in others.items() if words} == {}


def test_the_list_is_no_longer_than_needed(tmp_path: Path) -> None:
    assert modules_listed()
    assert {name for name in modules_listed() if not code_words(ROOT / name)} == set()
    path = tmp_path / "knows.py"
    path.write_text('REGIONS = ("gland",)\n')
    assert code_words(path) == {"gland"}
