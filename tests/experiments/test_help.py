"""What ``--help`` shows: the same flags as ever, in groups, with examples that are true."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
from collections.abc import Callable, Iterator

import pytest
import tyro

import experiments.sweep
from experiments.common.cli import run
from experiments.common.command_help import plain
from experiments.main_job.config import EXAMPLES, GROUPS, Config

FLAG = re.compile(r"(?m)^│ (--[a-z0-9-]+)")
BOX = re.compile(r"(?m)^╭─ (.+?) ─+╮$")


def shown(monkeypatch: pytest.MonkeyPatch, **options) -> str:
    """What the main job prints on ``--help``."""
    monkeypatch.setattr("sys.argv", ["sweep", "--help"])
    monkeypatch.setattr("experiments.common.cli.stop_tidily", lambda: None)
    with printed() as text:
        with pytest.raises(SystemExit) as ended:
            run(Config, experiments.sweep.job, prog="sweep", **options)
        got = text()
    assert not ended.value.code
    return got


@contextlib.contextmanager
def printed() -> Iterator[Callable[[], str]]:
    """What is printed, as on a terminal that knows the lines of boxes."""
    stream = io.BytesIO()
    wrapped = io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(wrapped):
        yield lambda: stream.getvalue().decode("utf-8")


def test_the_help_is_grouped_and_ends_with_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, groups=GROUPS, examples=EXAMPLES)
    assert "None" not in text
    assert "(default: )" not in text
    boxes = [title.removesuffix(" options") for title in BOX.findall(text)]
    # The groups of the settings are named by their fields.
    assert [title for title in boxes if not title.startswith("analysis.")][1:] == list(GROUPS)
    firsts = [title.split(":")[0].split(".")[0] for title in boxes[1:]]
    assert [name for i, name in enumerate(firsts) if name not in firsts[:i]] == [
        "input", "analysis", "output"
    ]  # fmt: skip
    assert text.rstrip().endswith("--out runs/seeds")


def test_the_flags_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = shown(monkeypatch, groups=GROUPS, examples=EXAMPLES)
    with printed() as text:
        with pytest.raises(SystemExit):
            tyro.cli(Config, args=["--help"])
        flags = FLAG.findall(text())
    assert len(flags) > 50
    assert sorted(FLAG.findall(grouped)) == sorted(flags)


def test_every_example_is_understood() -> None:
    lines = EXAMPLES.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.strip().startswith("{program}")]
    assert len(commands) == 6
    for words in commands:
        parsed = tyro.cli(Config, args=words, registry=plain(GROUPS, Config))
        assert isinstance(parsed, Config)
        assert parsed == tyro.cli(Config, args=words), "the groups change what is shown alone"


def test_a_flag_that_may_be_left_out_may_also_be_none() -> None:
    words = ["--out", "None", "--memory", "2.5", "--spacing", "1", "1", "2", "--roi", "gland"]
    parsed = tyro.cli(Config, args=words, registry=plain(GROUPS, Config))
    assert (parsed.out, parsed.analysis.memory) == (None, 2.5)
    assert (parsed.images.spacing, parsed.roi) == ((1.0, 1.0, 2.0), ("gland",))
    with pytest.raises(SystemExit):
        tyro.cli(
            Config, args=["--memory", "much"], console_outputs=False,
            registry=plain(GROUPS, Config),
        )  # fmt: skip


def test_every_group_of_flags_has_a_title() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(Config))


def test_what_has_no_title_is_shown_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, groups={"input": ("tables", "images"), "output": ("out",)})
    boxes = [title.removesuffix(" options") for title in BOX.findall(text)]
    assert (boxes[1], boxes[-1]) == ("input", "output")
    assert {"context", "privacy", "phantom"} < set(boxes)
    assert len(FLAG.findall(text)) > 50
    assert "--dry-run" in text.rpartition("output options")[2]
