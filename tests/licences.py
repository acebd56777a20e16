"""The licences of everything that an installation brings, from the packages' own metadata.

``python -m tests.licences`` writes ``docs/licences.md``: a row per package of ``requirements/``.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution, metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"sweep": ROOT / "requirements/sweep.txt", "test": ROOT / "requirements/test.txt"}
PAGE = ROOT / "docs/licences.md"

LONGEST = 60
"""Characters of a licence's name; a longer text is the licence itself."""

HEAD = """# Licences of what is installed

Radiomic Lens is under Apache-2.0. This is what the packages that it brings say of themselves, by
their own metadata: all that `make sweep` installs, and what `make test` installs besides (PyTorch
and the implementations that the tests compare with). `python -m tests.licences` writes this page.
"""

IN_A_REPORT = """
## In a report

A `report.html` works offline, so it holds libraries that these packages ship, under their own
terms, which are in the file beside them: Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) with D3
(ISC) from `vl-convert-python`; DataTables, jQuery, JSZip and FileSaver (MIT) from `itables`.
"""

ELSEWHERE = """
## On other machines

Packages that this list's machine has no use for: those of other systems, and of PyTorch's builds
for NVIDIA's graphics cards, whose libraries are under NVIDIA's own terms. Their metadata tell their
licence.
"""


def pins(lock: Path) -> dict[str, str]:
    """Distribution -> version, as a file with hashes pins them."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text("utf-8"), re.MULTILINE)
    return dict(found)


def licence(name: str) -> str | None:
    """What an installed distribution says that its licence is; None where it is not installed."""
    try:
        facts: Any = metadata(name)  # an email.message.Message
    except PackageNotFoundError:
        return None
    if expression := facts.get("License-Expression"):
        return str(expression)
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in facts.get_all("Classifier") or ()
        if entry.startswith("License ::")
    ]
    told = (facts.get("License") or "").strip()
    if told and len(told) <= LONGEST and "\n" not in told:
        return told
    named = [entry for entry in classifiers if entry != "OSI Approved"]
    return ", ".join(named) or (told.splitlines()[0].strip() if told else _in_its_file(name))


def _in_its_file(name: str) -> str:
    """The licence that the file of a distribution names, where its metadata name none."""
    text = distribution(name).read_text("licenses/LICENSE") or ""
    found = re.search(r"(Apache|MIT|BSD|Mozilla Public) License(, Version [0-9.]+)?", text)
    return found[0] if found else "not stated"


def page() -> str:
    """The page, from the locks and what is installed here."""
    runs, tests = (pins(lock) for lock in LOCKS.values())
    more = {name: version for name, version in tests.items() if name not in runs}
    parts = [HEAD]
    absent = []
    for title, packages in (("To run", runs), ("To test besides", more)):
        parts.append(f"\n## {title}\n\n| package | version | licence |\n|---|---|---|\n")
        for name, version in sorted(packages.items()):
            found = licence(name)
            if found is None:
                absent.append(f"`{name}` {version}")
            else:
                parts.append(f"| {name} | {version} | {found.replace('|', '/')} |\n")
    return "".join([*parts, IN_A_REPORT, ELSEWHERE, "\n", ", ".join(absent), ".\n"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
