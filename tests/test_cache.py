"""The rule for reuse: what a key covers, and when a file counts as it was left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens import cache
from lens.errors import InputError
from lens.files import atomic
from lens.settings import DEFAULTS, Settings, changed, flat


@dataclass(frozen=True)
class Point:
    x: float
    y: float


@dataclass(frozen=True)
class Other:
    x: float
    y: float


TABLE = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]})

DIFFERENT = [
    None, True, 1, 1.0, "1", b"1", Path("1"), np.float32(1), np.float64(1),
    [1, 2], [12], ["1", "2"], [[1], 2], [1, [2]], {"a": 1}, {"b": 1}, {"a": 1, "b": 2},
    {"b": 2, "a": 1}, np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.array(["a", "b"]),
    TABLE, TABLE.rename(columns={"a": "c"}), TABLE[["b", "a"]], TABLE.iloc[::-1], Point(1, 2),
    Point(2, 1), Other(1, 2),
]  # fmt: skip


def test_no_two_different_things_have_one_fingerprint() -> None:
    prints = [cache.fingerprint(thing) for thing in DIFFERENT]
    assert len(set(prints)) == len(DIFFERENT)
    assert prints == [cache.fingerprint(thing) for thing in DIFFERENT], "and each has its own"


def test_boundaries_between_facts_count() -> None:
    assert cache.fingerprint("ab", "c") != cache.fingerprint("a", "bc")
    assert cache.fingerprint(["a"], []) != cache.fingerprint([], ["a"])


def test_what_has_no_content_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no content"):
        cache.fingerprint([object()])


@pytest.mark.parametrize("name", sorted(flat(DEFAULTS)))
def test_every_setting_is_part_of_the_key(name: str) -> None:
    others = {
        "mode": "paper",
        "scores": "raw",
        "l1": (0.5,),
        "l2": (0.5,),
        "memory": 1.0,
        "level": 0.1,
        "id_column": "Patient",
        "pool_tokens": "mean",
    }
    value = flat(DEFAULTS)[name]
    if name in others:
        other = others[name]
    else:
        other = not value if isinstance(value, bool) else (value or 0) + 1
    settings = changed(DEFAULTS, **{name: other})
    assert settings != DEFAULTS
    assert cache.key(("lens.settings",), settings) != cache.key(("lens.settings",), DEFAULTS)


def test_settings_are_all_reached_by_name() -> None:
    groups = {each.name for each in fields(Settings)}
    assert {"mlp", "rules"} <= groups
    assert {"hidden", "level", "seed"} <= set(flat(DEFAULTS))
    with pytest.raises(TypeError, match=r"no setting 'epoch'; there are .*epochs"):
        changed(DEFAULTS, epoch=3)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A project of the same layout: ``lens.a`` imports ``lens.room.b`` inside a function."""
    room = tmp_path / "lens" / "room"
    room.mkdir(parents=True)
    (tmp_path / "lens" / "__init__.py").write_text("")
    (room / "__init__.py").write_text("")
    (tmp_path / "lens" / "a.py").write_text("def f():\n    from lens.room import b\n")
    (room / "b.py").write_text("X = 1\n")
    (room / "unrelated.py").write_text("Y = 1\n")
    source = Path(cache.__file__).parent
    (tmp_path / "lens" / "study").mkdir()
    for path in (*source.glob("*.py"), *source.glob("study/*.py")):
        if path.name != "__init__.py":
            copy = tmp_path / "lens" / path.relative_to(source)
            copy.write_bytes(path.read_bytes())
    return tmp_path


def code_version(package: Path) -> str:
    script = "from lens.cache import code_version; print(code_version('lens.a'))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=package, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(package)},
    )  # fmt: skip
    return done.stdout


def test_a_changed_line_of_code_is_a_new_version(package: Path) -> None:
    before = code_version(package)
    assert code_version(package) == before
    (package / "lens" / "room" / "unrelated.py").write_text("Y = 2\n")
    assert code_version(package) == before, "code that the module never sees"
    (package / "lens" / "room" / "b.py").write_text("X = 2\n")
    assert code_version(package) != before, "code that a module sees by an import in a function"


def test_a_version_is_told_without_importing_what_it_is_of(package: Path) -> None:
    """Of a name that is imported from a module, only packages tell whether it is a module, too."""
    (package / "lens" / "a.py").write_text("from lens.room.b import X\n")
    (package / "lens" / "room" / "b.py").write_text("raise ImportError('not to be run')\nX = 1\n")
    before = code_version(package)
    (package / "lens" / "room" / "b.py").write_text("raise ImportError('not to be run')\nX = 2\n")
    assert code_version(package) != before


def test_the_verdicts_depend_on_probes_and_not_on_the_page() -> None:
    seen = set()
    waiting = ["lens.stages"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            for file in cache._sources(name):
                waiting += cache._imported(file, name)
    assert {"lens.probes.ridge", "lens.verdicts.rules", "lens.paper.shift"} <= seen
    assert "lens.report.page" not in seen


def test_versions_of_libraries_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.key(("lens.settings",), 1)
    monkeypatch.setattr(cache, "libraries", lambda: {"numpy": "0.0"})
    assert cache.key(("lens.settings",), 1) != before


def other_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, other_size, other_bytes, lambda path: path.write_bytes(b""),
     lambda path: (path.unlink(), path.mkdir())],
    ids=["deleted", "truncated", "foreign", "zero-byte", "a folder"],
)  # fmt: skip
def test_a_file_counts_only_as_it_was_left(tmp_path: Path, harm) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(b"numbers")
    assert not cache.finished(path, "key"), "nobody said that it is finished"
    cache.finish(path, "key")
    assert cache.finished(path, "key")
    assert not cache.finished(path, "another key")
    harm(path)
    assert not cache.finished(path, "key")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"key": "key"}', '{"key": "key", "files": {"part.bin": 3}}',
     '{"key": "key", "files": {"part.bin": {"size": "many", "sha256": 1}}}',
     '{"key": "key", "files": ["part.bin"]}', "[" * 100_000],
)  # fmt: skip
def test_an_unreadable_record_counts_as_absent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(b"numbers")
    cache.finish(path, "key")
    (record,) = tmp_path.glob(".*.json")
    assert json.loads(record.read_text())["key"] == "key"
    record.write_text(text)
    assert not cache.finished(path, "key")


def test_a_folder_is_recorded_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "deep" / "a.txt").write_text("a")
    files = cache.recorded([tmp_path / "out", tmp_path / "absent"], tmp_path)
    assert list(files) == ["out/deep/a.txt"]
    assert cache.intact(files, tmp_path)
    assert not cache.intact({}, tmp_path), "no file is no result"


@pytest.mark.timeout(60)
def test_a_record_that_never_ends_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(InputError, match=r"run\.json: is a named pipe, where a record is kept"):
        cache.read_record(tmp_path / "run.json")


def test_a_folder_where_a_file_is_written_is_named_before_the_work(tmp_path: Path) -> None:
    final = tmp_path / "sweep.parquet"
    final.mkdir()
    with pytest.raises(IsADirectoryError) as caught, atomic(final):
        pytest.fail("the file was written")
    assert caught.value.filename == str(final)
    assert list(tmp_path.iterdir()) == [final]
