"""Draws the figures and the page of a finished run again.

``python -m experiments.report DIR``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from experiments.common.anonymous import Hidden
from experiments.common.cli import DONE, alone, run
from lens.lock import of_folder

if TYPE_CHECKING:
    from lens.anonymise import Names


@dataclass(frozen=True)
class Config:
    """Figures and report.html of a finished run folder, from its tables."""

    folder: tyro.conf.Positional[Path]
    """Run folder written by experiments.sweep."""
    anonymise: bool = False
    """Show salted hashes in place of ids, and no file names, on the page. The tables of the folder
    stay as they are: experiments.sweep --anonymise makes a folder to share."""
    images: bool = True
    """Show pictures of patients, where the images of the run are still there; --no-images leaves
    them out."""
    cohort: Path | None = None
    """Manifest of the images of a run that was given tables; its ids are those of the tables."""
    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3 (with --cohort)."""
    salt: Path | None = None
    """File of the salt, for --anonymise; by default your own, ~/.config/radiomic-lens/salt."""


def hidden(config: Config) -> Hidden:
    """What is asked to be hidden; the ids are those of the run's own tables."""
    tables = {name: config.folder / name for name in ("split.csv", "failures.csv")}
    return Hidden(config.anonymise, config.salt, config.folder, tables)


@alone(lambda config: of_folder(config.folder), hidden)
def job(config: Config, names: Names) -> int:
    """Writes the report and gives the exit code."""
    from experiments.common.album import album_of
    from lens.report.page import write_report

    album = album_of(config.folder, images=config.images, hidden=names.hides, cohort=config.cohort)
    print(f"report: {write_report(config.folder, names=names, album=album)}")
    return DONE


if __name__ == "__main__":
    run(Config, job)
