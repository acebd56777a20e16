"""What kind of encoder a checkpoint holds, told from its description or shapes, without its values.

A wrong checkpoint is to be refused before hours of other work, not when its turn comes.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import NamedTuple

from encoders.checkpoints import is_ours, load_foreign, read_description, read_values
from encoders.encoder import EncoderConfig, parameters


class Header(NamedTuple):
    """An encoder without its values.

    Attributes:
        config: what it is built from.
        values: number of its parameters' values; each takes 4 bytes.
    """

    config: EncoderConfig
    values: int


def read_header(path: Path, *, partial: bool = False) -> Header:
    """The header of a checkpoint or a file of foreign weights, recognised by its content.

    Args:
        path: as `encoders.load` takes it.
        partial: accept a PyTorch file that does not match fully.

    Raises:
        InputError: what `encoders.load` would refuse it for, except for its values.
    """
    if is_ours(path):
        encoder, _ = read_description(path)
        read_values(path, encoder, shapes_only=True)
    else:
        encoder, _ = load_foreign(path, partial=partial, shapes_only=True)
    shapes = [parameter.shape for parameter in parameters(encoder).values()]
    return Header(encoder.config, sum(prod(shape) for shape in shapes))
