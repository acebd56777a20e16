"""The code in README.md and docs: fenced blocks, found, run in order, or read by the parsers.

A page's blocks `bash` and `python` run in a scratch folder of the page, from top to bottom, each in
a process of its own. A block with a title (``title="encode.py"``) is written as that file instead.
A block below the comment ``<!-- not run: REASON -->`` is not run; its commands are parsed, so that
a flag that was renamed is found all the same. What a block prints may be shown in a block `text`
below ``<!-- printed -->``; numbers may differ.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tyro

from experiments.common.command_help import plain
from experiments.common.commands import JOBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>not run: [^>]+?|printed) -->\n\s*)?"
    r"^(?P<indent>[ ]*)```(?P<kind>[a-z]*)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"/]+)"')
NUMBER = re.compile(r"[-−+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: its file.
        line: of its fence.
        kind: as the fence names it: bash, python, text, ...
        text: what is in it.
        title: file that it is; an empty text where it is none.
        reason: why it is not run; an empty text where it is.
        printed: whether it is what the block before it prints.
    """

    page: Path
    line: int
    kind: str
    text: str
    title: str
    reason: str
    printed: bool

    @property
    def place(self) -> str:
        """Where it is, for people."""
        inside = self.page.is_relative_to(ROOT)
        return f"{self.page.relative_to(ROOT) if inside else self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text, found = page.read_text("utf-8"), []
    for match in FENCE.finditer(text):
        title = TITLE.search(match["options"])
        mark = match["mark"] or ""
        body = re.sub(rf"(?m)^{match['indent']}", "", match["text"])
        found.append(
            Block(
                page, text.count("\n", 0, match.start("kind")) + 1, match["kind"], body,
                title[1] if title else "", mark.partition("not run: ")[2], mark == "printed",
            )
        )  # fmt: skip
    return found


def runs(page: Path) -> bool:
    """Whether a page has anything to run."""
    return any(b.kind in ("bash", "python") and not b.reason for b in blocks(page))


def environment(commands: Path) -> dict[str, str]:
    """Of what pages run, with the commands of a folder first."""
    return os.environ | {
        "PYTHONPATH": str(ROOT), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def run_page(page: Path, folder: Path, commands: Path) -> None:
    """Runs a page's blocks in `folder`; an error names the block and what it printed.

    Args:
        page: to run.
        folder: an empty one.
        commands: a folder with ``python`` and ``radiomic-lens`` (`tests.warm`).
    """
    said = ""
    for block in blocks(page):
        if block.printed:
            missing = [line for line in lines(block.text) if line not in lines(said)]
            assert not missing, f"{block.place}: not printed: {missing}\n{said}"
        elif block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.kind in ("bash", "python") and not block.reason:
            words = ["bash", "-euo", "pipefail", "-c"] if block.kind == "bash" else [
                str(commands / "python"), "-c"
            ]  # fmt: skip
            done = subprocess.run(
                [*words, block.text], cwd=folder, env=environment(commands), capture_output=True,
                text=True, check=False,
            )  # fmt: skip
            said = done.stdout + done.stderr
            assert not done.returncode, f"{block.place}: exit {done.returncode}\n{said}"


def lines(text: str) -> list[str]:
    """The lines without their numbers, spaces made one."""
    return [re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip() for line in text.splitlines()]


def problems(block: Block) -> Iterator[str]:
    """What is wrong with a block that is not run, as far as can be told without running it."""
    if block.kind == "python":
        try:
            ast.parse(block.text)
        except SyntaxError as error:
            yield f"{error}"
    elif block.kind == "bash":
        done = subprocess.run(
            ["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False
        )
        if done.returncode:
            yield done.stderr
        for words in command_lines(block.text):
            yield from wrong_usage(words)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command, comments apart."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quotation over several lines: no command of ours
            continue
        if words:
            yield words


def wrong_usage(words: list[str]) -> Iterator[str]:
    """What a command of this project does not understand; other commands pass."""
    if words[0] == "make":
        targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
        yield from (f"make has no {word}" for word in words[1:2] if word not in targets)
        for word in words[2:]:
            name, _, value = word.partition("=")
            if words[1] == "sweep" and name == "ARGS":
                yield from wrong_usage(["radiomic-lens", "sweep", *shlex.split(value)])
        return
    module, arguments = "", []
    for index, word in enumerate(words[:-1]):
        if word == "-m" and words[index + 1].partition(".")[0] in ("experiments", "benchmarks"):
            module, arguments = words[index + 1], words[index + 2 :]
        elif Path(word).name == "radiomic-lens" and words[index + 1] in JOBS:
            module, arguments = f"experiments.{words[index + 1]}", words[index + 2 :]
    if not module:
        return
    config = getattr(importlib.import_module(module), "Config", None)
    if config is None:
        return
    try:
        tyro.cli(config, args=arguments, registry=plain(), console_outputs=False)
    except SystemExit as ended:
        if ended.code:
            yield f"{module} does not understand {shlex.join(arguments)}"
