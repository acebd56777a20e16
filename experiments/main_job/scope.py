"""What a task of the main job is read against."""

from __future__ import annotations

from dataclasses import dataclass

from lens.errors import InputError
from lens.names import name_problem

LONGEST_FOLDER = 180
"""Bytes of the name of a scope; its folder's name may have 255, and other names are added."""


@dataclass(frozen=True)
class Scope:
    """What a task is read against.

    Attributes:
        rois: regions of the radiomics table; none means all.
        modalities: modalities of the radiomics table; none means all.
        channels: modalities the encoder sees (with images), the others are zeros; none means all.
    """

    rois: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = {"region": self.rois, "modality": (*self.modalities, *self.channels)}
        for kind, names in named.items():
            for problem in filter(None, map(name_problem, names)):
                raise InputError(f"{kind} {problem}")
        if len(str(self).encode()) > LONGEST_FOLDER:
            raise InputError(
                f"{str(self)[:40]}...: the names of so many regions are too long for a folder; "
                "name fewer, or rename the columns of the radiomics table"
            )

    def __str__(self) -> str:
        name = ".".join("+".join(part) for part in (self.modalities, self.rois) if part) or "all"
        return name + ("-from-" + "+".join(self.channels) if self.channels else "")
