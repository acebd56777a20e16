"""Runs compared: encoders, layers, seeds or hospitals, from run folders or lens cards.

python -m experiments.compare runs/site-a runs/site-b --out runs/both

python -m experiments.compare ours/card.json theirs/card.json --out together
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.common.cli import DONE, alone, run
from lens.lock import of_folder


@dataclass(frozen=True)
class Config:
    """Where runs agree and where they differ: a page, tables and figures, without patients."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Two or more: folders of finished runs, or lens cards (card.json), in any mixture."""
    out: Path
    """Folder to write: compare.html, tables (.csv), figures."""
    task: tuple[str, ...] = ()
    """The task to compare: one for all runs, or one for each in their order. By default every task
    that all runs have, or the only one of each."""
    names: tuple[str, ...] = ()
    """What to call the runs, one for each; by default the names of their folders."""
    kinds: tuple[str, ...] = ()
    """What each run is of, in their order, the same word for seeds of the same task and method: how
    far seeds agree is the noise ceiling for all other runs (three or more runs)."""
    patients: Literal["auto", "same", "different"] = "auto"
    """Whether runs share patients, so that nothing is pooled. auto: by the hashes of their tables,
    and by ids where both are run folders; cards alone cannot rule it out."""


@alone(lambda config: of_folder(config.out))
def job(config: Config) -> int:
    """Reads the runs, writes the comparison and gives the exit code."""
    from lens.cards.entries import choose
    from lens.cards.page import PAGE, write_comparison
    from lens.cards.reading import read_sources
    from lens.errors import InputError
    from lens.report.words import literal

    if (config.out / "run.json").exists():
        raise InputError(f"{config.out}: is the folder of a run; choose another --out")
    sources = read_sources(config.runs, config.names)
    blocks = choose(sources, config.task, config.patients)
    said = write_comparison(config.out, blocks, config.kinds)
    print("\n".join(map(literal, said)))
    print(f"comparison: {config.out / PAGE}")
    return DONE


if __name__ == "__main__":
    run(Config, job, description=__doc__)
