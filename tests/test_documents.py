"""Every command and snippet of README and docs is run, or read by the parsers with a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.documents import (
    PAGES,
    ROOT,
    Block,
    blocks,
    environment,
    problems,
    run_page,
    runs,
    wrong_usage,
)
from tests.warm import warm_python

COMMAND = re.compile(
    r"(?m)^\s*(\$ |make [a-z]|pip install|(\.venv/bin/)?python -m|radiomic-lens |git clone|export )"
)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
OTHERS = {"--help", "--version", "--require-hashes"}
"""Flags that no dataclass has; the last one is of pip."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``python`` and ``radiomic-lens``, as an environment has them."""
    folder = tmp_path_factory.mktemp("commands")
    with warm_python(folder, environment(folder)):
        yield folder


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=name)
def test_the_blocks_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, commands: Path
) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    run_page(page, folder, commands)
    if page.name == "README.md":
        verdicts = pd.read_csv(folder / "verdicts.csv").set_index("column")["verdict"]
        assert verdicts["t2.gland.original_glcm_Idm"] == "lost", "the trait that fine-tuning lost"
        assert (verdicts == "lost").sum() == 1


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_not_run_has_a_reason_and_is_understood(page: Path) -> None:
    for block in blocks(page):
        assert len(block.reason) > 10 or not block.reason, block.place
        if block.kind in ("bash", "python"):
            assert not list(problems(block)), block.place
        else:
            assert not block.reason, f"{block.place}: only commands and code are run"
            assert not COMMAND.search(block.text), f"{block.place}: a command that is never run"


def test_the_tutorials_are_run() -> None:
    tutorials = [page for page in PAGES if page.parent.name == "tutorials"]
    assert len(tutorials) >= 7
    for page in tutorials:
        ran = [b for b in blocks(page) if b.kind in ("bash", "python")]
        assert ran, name(page)
        assert not [b.place for b in ran if b.reason]


@pytest.fixture(scope="module")
def flags() -> set[str]:
    """Flags of all jobs and benchmarks, as the parser writes the fields of their dataclasses."""
    sources = [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    sources += [ROOT / "lens" / "settings.py", ROOT / "encoders" / "settings.py"]
    classes = [
        node
        for source in sources
        for node in ast.parse(source.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and "dataclass" in ast.dump(node)
    ]
    body = [each for node in classes for each in node.body]
    fields = [each.target for each in body if isinstance(each, ast.AnnAssign)]
    names = {each.id.replace("_", "-") for each in fields if isinstance(each, ast.Name)}
    return {f"--{prefix}{name}" for name in names for prefix in ("", "no-")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_flag_that_a_sentence_names_exists(page: Path, flags: set[str]) -> None:
    text = re.sub(r"(?ms)^[ ]*```.*?^[ ]*```$", "", page.read_text("utf-8"))
    told = {flag for code in INLINE.findall(text) for flag in FLAG.findall(code)}
    assert not told - flags - OTHERS


def test_a_renamed_flag_is_found() -> None:
    assert not list(wrong_usage(["radiomic-lens", "sweep", "--pre", "a.npz", "--out", "b"]))
    assert list(wrong_usage(["radiomic-lens", "sweep", "--before", "a.npz"]))
    assert list(wrong_usage(["python", "-m", "experiments.prepare", "nnunet", "x", "--into", "y"]))
    assert list(wrong_usage(["make", "swep"]))
    assert list(wrong_usage(["make", "sweep", "ARGS=--quik"]))


def test_blocks_that_fail_are_told(tmp_path: Path) -> None:
    block = Block(ROOT / "docs" / "index.md", 1, "python", "def f(:\n", "", "no reason", False)
    assert list(problems(block))
    folder, page = tmp_path / "scratch", tmp_path / "page.md"
    folder.mkdir()
    written = '```text title="a.txt"\nread 3 lines\n```\n\n'
    page.write_text(written + "```bash\ncat a.txt\nfalse\necho on\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:5: exit 1\nread 3 lines\n$"):
        run_page(page, folder, tmp_path)
    page.write_text(
        written + "```bash\ncat a.txt\n```\n\n<!-- printed -->\n```text\nread 4 lines\n```\n"
    )
    run_page(page, folder, tmp_path)
    page.write_text(page.read_text().replace("read 4 lines", "read 4 rows"))
    with pytest.raises(AssertionError, match=r"not printed: .'read # rows'"):
        run_page(page, folder, tmp_path)
