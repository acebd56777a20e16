"""Every public name says what it is, and every result says what its fields are."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import encoders
import lens

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    file
    for package in ("lens", "encoders", "experiments")
    for file in (ROOT / package).rglob("*.py")
)
FEW = 4
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@pytest.mark.parametrize("package", [lens, encoders])
def test_every_public_name_is_documented(package) -> None:
    bare = [name for name in package.__all__ if not inspect.getdoc(getattr(package, name))]
    assert not bare


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_public_functions_and_classes_have_docstrings(file: Path) -> None:
    assert not undocumented(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_results_document_every_field(file: Path) -> None:
    assert not undescribed(file.read_text(encoding="utf-8"))


def undocumented(source: str) -> list[str]:
    """Public functions and classes of a module, and the module, that have no docstring.

    Methods count with their class, but for those that override or stand in for a name that is
    documented elsewhere (``__call__``, ``__str__`` and other private names).
    """
    module = ast.parse(source)
    found = [] if ast.get_docstring(module) or not module.body else ["the module"]
    for node in module.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                found.append(node.name)
            elif isinstance(node, ast.ClassDef):
                found += [f"{node.name}.{each}" for each in _bare_methods(node)]
    return found


def _bare_methods(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
            inherits = any(_name(base) not in ("NamedTuple", "Protocol") for base in node.bases)
            if not ast.get_docstring(each) and not inherits:
                yield each.name


def undescribed(source: str) -> list[str]:
    """Fields of public dataclasses and NamedTuples that no text describes.

    A field is described by an entry under ``Attributes:`` or by a string below it, as flags of a
    command line are. In a NamedTuple its name in the text will do, and up to `FEW` fields, as in
    "mean and standard deviation", need not be named.
    """
    found = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        attributes = text.partition("Attributes:")[2]
        if _is_dataclass(node):
            known = set(re.findall(r"\w+", " ".join(_entries(attributes))))
        elif "NamedTuple" in map(_name, node.bases) and len(list(_bare_fields(node))) > FEW:
            known = set(re.findall(r"\w+", text))
        else:
            continue
        found += [f"{node.name}.{name}" for name in _bare_fields(node) if name not in known]
    return found


def _entries(attributes: str) -> Iterator[str]:
    """What stands before the colon of each entry, as in ``low, high: ends (k,).``"""
    for line in attributes.splitlines():
        if entry := re.match(r"\s{4}(\w[\w, *`]*):", line):
            yield entry[1]


def _bare_fields(node: ast.ClassDef) -> Iterator[str]:
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            described = (
                isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            )
            if not described and not field.target.id.startswith("_"):
                yield field.target.id


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in _name(each) for each in node.decorator_list)


def _name(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_a_missing_docstring_and_a_missing_field_are_found() -> None:
    source = '''
"""A module."""
@dataclass(frozen=True)
class Result:
    """Result of it.

    Attributes:
        low, high: its ends.
    """

    low: float
    high: float
    bare: int
    flag: bool = False
    """Described below."""

    def act(self) -> None:
        pass

class Pair(NamedTuple):
    """Mean and variance."""

    mean: int
    variance: int

class Many(NamedTuple):
    """Numbers `a`, `b`, `c` and `d`."""

    a: int
    b: int
    c: int
    d: int
    e: int

def function():
    pass

def _private():
    pass
'''
    assert undocumented(source) == ["Result.act", "function"]
    assert undescribed(source) == ["Result.bare", "Many.e"]
