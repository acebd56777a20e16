"""What ``--dry-run`` prints: stages and their state, sizes, and what time, memory and disk take.

A number that is not known before the work is begun is called so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lens.errors import InputError
from lens.files import existing

UNKNOWN = "not known before it is begun; its bar tells"
"""Of a time that nothing here can tell."""

FLOAT = 4
"""Bytes of a number in volumes, weights and embeddings."""

TODO, REUSED = "to do", "done before, reused"


@dataclass(frozen=True)
class Step:
    """A stage and how much of it is done.

    Attributes:
        name: of the stage.
        reused: its outputs are there from an earlier run, and would be taken.
        note: what else is known of its state.
        seconds: that it took in an earlier run here, if any.
    """

    name: str
    reused: bool = False
    note: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        took = "" if self.seconds is None or self.reused else f"took {self.seconds:.0f} s last time"
        return "; ".join(filter(None, [REUSED if self.reused else TODO, self.note, took]))


@dataclass(frozen=True)
class Outlook:
    """What a run would do and need.

    Attributes:
        steps: the stages in order.
        sizes: sentences on patients, features and dimensions.
        time, memory: sentences.
        disk: what is written -> bytes, estimated.
        out: folder that it is written to.
    """

    steps: Sequence[Step]
    sizes: Sequence[str]
    out: Path
    time: Sequence[str] = (UNKNOWN,)
    memory: Sequence[str] = ()
    disk: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(len(step.name) for step in self.steps)
        lines = ["dry run: nothing is done and nothing is written", "stages:"]
        lines += [f"  {step.name:{width}}  {step}" for step in self.steps]
        for title, said in (("sizes", self.sizes), ("time", self.time), ("memory", self.memory)):
            lines += [f"{title}: {sentence}" for sentence in said]
        return "\n".join([*lines, *self._disk()])

    def _disk(self) -> list[str]:
        free = shutil.disk_usage(existing(self.out)).free
        need = sum(self.disk.values())
        parts = ", ".join(f"{what} {amount(size)}" for what, size in self.disk.items())
        told = f"about {amount(need)} ({parts})" if self.disk else "a few MB"
        short = "; THAT IS MORE THAN IS FREE" if need > free else ""
        return [f"disk: {told} in {self.out}, where {amount(free)} are free{short}"]


def check_room(needs: Sequence[tuple[Path, str, float]]) -> None:
    """Refuses a run whose estimated files do not fit on a disk, before they are made.

    What lies in the folders already counts as written, so that a run that goes on is not refused.

    Args:
        needs: folder, the flag that names it, and the bytes that a whole run leaves below it; those
            on one disk are added up.

    Raises:
        InputError: less is free than the estimate says.
    """
    disks: dict[int, list[tuple[Path, str, float]]] = {}
    for each in needs:
        disks.setdefault(existing(each[0]).stat().st_dev, []).append(each)
    for on_disk in disks.values():
        largest = max(on_disk, key=lambda each: each[2])[0]
        free, need = shutil.disk_usage(existing(largest)).free, sum(size for *_, size in on_disk)
        if need > free:
            need -= _written({folder for folder, *_ in on_disk})
        if need > free:
            flags = " or ".join(dict.fromkeys(flag for _, flag, _ in on_disk))
            raise InputError(
                f"{largest}: about {amount(need)} are needed on this disk and {amount(free)} are "
                f"free; make room, or name a place on another disk ({flags})"
            )


def _written(folders: Iterable[Path]) -> float:
    """Bytes of all files below folders, each counted once."""
    files = {file for folder in folders for file in folder.rglob("*") if file.is_file()}
    return float(sum(file.stat().st_size for file in files))


def amount(count: float) -> str:
    """Bytes in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def several(count: int, what: str) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{count} {what}" + ("" if count == 1 else "s")
