"""Converts an encoder's weights to our checkpoint.

``python -m experiments.convert IN OUT``
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.common.cli import DONE, alone, run
from lens.lock import of_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Reads PyTorch (.pth, .pt) or .safetensors and writes a folder that loads without torch."""

    source: tyro.conf.Positional[Path]
    """The file to read, recognised by its content; also the index of several, or their folder."""
    out: tyro.conf.Positional[Path]
    """The folder to write; an encoder that is there already is replaced."""
    partial: bool = False
    """Accept a file that does not match fully; the rest keeps its random start."""


@alone(lambda config: of_file(config.out))
def job(config: Config) -> int:
    """Converts the weights and gives the exit code."""
    from encoders.checkpoints import load_foreign, provenance, save
    from encoders.state_dicts import weights_in
    from lens.errors import InputError

    if config.source.is_dir() and not weights_in(config.source):
        raise InputError(
            f"{config.source}: a folder without the weights of a model hub; convert reads PyTorch "
            "or safetensors files, name one"
        )
    encoder, match = load_foreign(config.source, partial=config.partial)
    save(config.out, encoder, provenance(config.source, match))
    log.info("%s: %s", config.source, match)
    log.info("%s: %s", config.out, encoder.config)
    return DONE


if __name__ == "__main__":
    run(Config, job, description=__doc__)
