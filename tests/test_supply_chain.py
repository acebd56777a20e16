"""Everything that is installed is known by version, hash and licence."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

import pytest
from packaging.requirements import Requirement

from tests.licences import LOCKS, PAGE, licence, pins
from tests.test_packaging import ROOT, canonical


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Distributions that an installation of `name` brings here, by their own metadata."""
    found: set[str] = set()
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for line in requires(name) or ():
            wanted = Requirement(line)
            marker = wanted.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in (extras or {""})):
                continue
            found.add(canonical(wanted.name))
            waiting.append((wanted.name, frozenset(wanted.extras)))
    return found - {"radiomic-lens"}


@pytest.mark.parametrize(("command", "extra"), [("sweep", "radiomics"), ("test", "test")])
def test_a_lock_pins_what_its_command_installs(command: str, extra: str) -> None:
    locked = {canonical(name): pin for name, pin in pins(LOCKS[command]).items()}
    try:
        needed = closure("radiomic-lens", frozenset({extra}))
    except PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed, so what it needs cannot be asked")
    assert needed
    assert needed <= set(locked)
    tested = (ROOT / "constraints.txt").read_text("utf-8")
    common = dict(line.split("==") for line in tested.splitlines() if "==" in line)
    for name, pin in common.items():
        assert locked.get(canonical(name), pin) == pin, name


@pytest.mark.parametrize("command", LOCKS)
def test_every_file_of_a_lock_has_its_hash_and_no_address(command: str) -> None:
    text = LOCKS[command].read_text("utf-8")
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.partition("\n# ")[2].partition("\n")[2])
    assert len(entries) == len(pins(LOCKS[command]))
    for entry in entries:
        first, *hashes = entry.strip().splitlines()
        assert re.match(r"[A-Za-z0-9._-]+==\S+ (; .+ )?\\$", first), first
        assert hashes, first
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}( \\)?", each) for each in hashes)
    assert "://" not in text
    assert "--index" not in text


def test_the_licences_are_those_of_what_is_installed() -> None:
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    listed = {name: (pin, told) for name, pin, told in rows if name != "package"}
    assert len(listed) > 100
    locked = pins(LOCKS["sweep"]) | pins(LOCKS["test"])
    elsewhere = PAGE.read_text("utf-8").partition("## On other machines")[2]
    for name, pin in locked.items():
        told = licence(name)
        if name not in listed:
            assert f"`{name}` {pin}" in elsewhere, name
        elif told is not None and version(name).partition("+")[0] == pin:
            assert listed[name] == (pin, told), name
    assert not set(listed) - set(locked)
    assert "not stated" not in {told for _, told in listed.values()}
