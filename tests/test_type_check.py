"""What counts of pyright's findings: all of the packages, all but a few rules of the tests."""

from __future__ import annotations

import json
import tomllib
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests import type_check
from tests.type_check import ROOT, TESTS_MAY, counted, told


def found(file: str, rule: str | None) -> dict[str, Any]:
    place = {"line": 6, "character": 2}
    made = {
        "file": str(ROOT / file),
        "severity": "error",
        "message": "m",
        "range": {"start": place},
    }
    return made | ({"rule": rule} if rule else {})


@pytest.mark.parametrize("file", ["lens/files.py", "benchmarks/tests.py", "experiments/sweep.py"])
@pytest.mark.parametrize("rule", [*sorted(TESTS_MAY), "reportAttributeAccessIssue", None])
def test_everything_counts_in_the_packages(file: str, rule: str | None) -> None:
    assert list(counted([found(file, rule)]))


def test_a_few_rules_do_not_count_in_the_tests() -> None:
    file = "tests/lens/test_files.py"
    assert not list(counted(found(file, rule) for rule in TESTS_MAY))
    left = [
        found(file, rule) for rule in ("reportAttributeAccessIssue", "reportMissingImports", None)
    ]
    assert list(counted(left)) == left


def test_a_finding_is_told_with_its_place() -> None:
    line = told(found("lens/files.py", "reportCallIssue"))
    assert line == f"{ROOT}/lens/files.py:7:3 - error: m (reportCallIssue)"


def test_one_run_reads_all_that_the_packages_run_reads_and_the_tests() -> None:
    one, packages = (
        tomllib.loads((ROOT / name).read_text("utf-8"))["tool"]["pyright"]
        for name in ("pyright-all.toml", "pyproject.toml")
    )
    assert one == {"extends": "pyproject.toml", "include": [*packages["include"], "tests"]}


def test_an_error_that_counts_fails(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for rule, code in (("reportCallIssue", 0), ("reportAttributeAccessIssue", 1)):
        content = {
            "generalDiagnostics": [found("tests/test_a.py", rule)],
            "summary": {"filesAnalyzed": 1},
        }
        done = CompletedProcess([], 1, "fetched\n" + json.dumps(content, indent=4))
        monkeypatch.setattr(type_check.subprocess, "run", lambda *_, done=done, **__: done)
        assert type_check.main() == code
        assert f"{code} errors in 1 files" in capsys.readouterr().out
