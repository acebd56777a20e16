"""A finished run folder, small and with the short form of the doctor."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lens.comparison import compare
from tests.planted import plant
from tests.shared_folders import made_once
from tests.undrawn import undraw


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests, to be left as it is."""
    return made_once(tmp_path_factory, "finished-run", _run) / "run"


def _run(folder: Path) -> None:
    planted = plant(n=120, d=12)
    paths = planted.write(folder)
    ft = {"cls": paths["ft"], "same": (planted.ids, 2 * planted.pre)}
    options = {"hidden": 8, "l1": (0.0, 1e-6), "l2": (0.0,), "epochs": 5, "folds": 2, "repeats": 1}
    options |= {"flips": 200, "bootstraps": 50}
    result = compare(paths["pre"], ft, paths["radiomics"], progress=False, **options)
    result.save(folder / "run")


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Leaves figures out of the pages of a test that looks at words; gives their names."""
    return undraw(monkeypatch)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser for Playwright's pages; a skip where there is none."""
    from tests.report.browser import browsing

    with browsing() as found:
        yield found
