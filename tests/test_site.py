"""The documentation site: built strictly, without the network, and complete."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import encoders
import lens

ROOT = Path(__file__).resolve().parents[1]
PAGES = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
LOADED = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//", re.IGNORECASE
)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """``make docs`` of a folder with mkdocs.yml, docs and the packages."""
    if importlib.util.find_spec("mkdocstrings_handlers") is None:
        pytest.skip("the extra docs is not installed; make lint builds the site")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)], cwd=root,
        capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


def navigation(entries: list) -> list[str]:
    """The pages of mkdocs.yml, in order."""
    found = []
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += [value] if isinstance(value, str) else navigation(value)
    return found


def config() -> dict:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    return yaml.safe_load(re.sub(r"!!python/\S+", "", text))


def test_every_page_is_in_the_navigation_once() -> None:
    listed = navigation(config()["nav"])
    assert sorted(listed) == sorted(PAGES)
    tutorials = [page for page in listed if page.startswith("tutorials/")]
    numbers = [int(re.sub(r"\D.*", "", page.removeprefix("tutorials/"))) for page in tutorials]
    assert numbers == list(range(1, len(tutorials) + 1))


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    named = re.findall(r"(?m)^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"))
    public = {
        f"{package.__name__}.{name}" for package in (lens, encoders) for name in package.__all__
    }
    assert public - {"lens.__version__"} == set(named)
    assert len(named) == len(set(named))


def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    assert config()["strict"] is True, "a warning is an error"
    done = build(ROOT, tmp_path / "site")
    assert not done.returncode, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text("utf-8")
        assert not LOADED.search(text), page.name
    api = (tmp_path / "site" / "api.html").read_text("utf-8")
    for package in (lens, encoders):
        for name in package.__all__:
            assert name == "__version__" or f'id="{package.__name__}.{name}"' in api, name
    assert "penalty" in api, "the docstrings are there"


def test_a_broken_link_fails(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    text = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(text, encoding="utf-8")
    (docs / "index.md").write_text("[there](other.md#first)\n")
    (docs / "other.md").write_text("# First\n")
    assert not build(tmp_path, tmp_path / "site").returncode
    (docs / "index.md").write_text("[there](other.md#second)\n")
    assert build(tmp_path, tmp_path / "site").returncode
