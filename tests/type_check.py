"""Types of the packages and of their tests in one run of pyright: ``python -m tests.type_check``.

What both import is read once. In the tests some rules do not count: values come out of tables,
whose stubs allow for dates and missing values in every cell, and are compared as they are; fixtures
are passed on as ``*data``, whose length pyright cannot know. Names, imports, attributes and returns
are checked as everywhere. An environment of pyright's own would not do: rooted at tests/, it would
take tests/radiomics for PyRadiomics.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

TESTS_MAY = {
    "reportArgumentType", "reportCallIssue", "reportGeneralTypeIssues", "reportIndexIssue",
    "reportOperatorIssue", "reportOptionalMemberAccess", "reportOptionalOperand",
    "reportOptionalSubscript",
}  # fmt: skip
"""Rules that do not count in the tests."""


def counted(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What pyright found, without what the tests may.

    Args:
        found: as its ``--outputjson`` tells each.
    """
    tests = ROOT / "tests"
    for each in found:
        if not (each.get("rule") in TESTS_MAY and Path(each["file"]).is_relative_to(tests)):
            yield each


def told(each: dict[str, Any]) -> str:
    """A line as pyright itself prints it."""
    start, rule = each["range"]["start"], f" ({each['rule']})" if "rule" in each else ""
    place = f"{each['file']}:{start['line'] + 1}:{start['character'] + 1}"
    return f"{place} - {each['severity']}: {each['message']}{rule}"


def main() -> int:
    """1 where an error counts."""
    command = [sys.executable, "-m", "pyright", "--project", "pyright-all.toml", "--outputjson"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        print(done.stdout, file=sys.stderr)
        return done.returncode
    # Before it stands what fetching the program has to say, the first time.
    content = json.loads(done.stdout[done.stdout.index("{\n") :])
    found = list(counted(content["generalDiagnostics"]))
    for each in found:
        print(told(each))
    errors = sum(each["severity"] == "error" for each in found)
    print(f"pyright: {errors} errors in {content['summary']['filesAnalyzed']} files")
    return int(errors > 0)


if __name__ == "__main__":
    sys.exit(main())
