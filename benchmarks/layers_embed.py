"""Every stage of encoders whose labels depend on one factor each, for `benchmarks.layers`.

``python -m benchmarks.layers_embed --mechanism F --encoders E --out O`` takes the judged phantoms,
the random start and the pre-trained encoder of `benchmarks.mechanism_train` from F and fine-tuned
copies, ``<label>-<seed>-<kind>``, from E (`benchmarks.edits_train` keeps them; kinds ``full``, and
``noise``: the last epoch on permuted labels), and writes the means of every stage over the gland,
a file per encoder. What is finished is not made again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.mechanism_data import Sizes, Volumes, glands

NAME = re.compile(r"\w+-\d+-(full|noise)")


@dataclass(frozen=True)
class Config:
    """Which encoders, where."""

    mechanism: Path = Path("runs/mechanism")
    """Folder of `benchmarks.mechanism_train`: data, random, pretrained."""
    encoders: Path = Path("runs/mechanism/edits/encoders")
    """Folder of fine-tuned checkpoints."""
    out: Path = Path("runs/layers")
    """Gets a file per encoder."""
    batch: int = 30
    """Volumes per pass."""


def main(config: Config) -> None:
    """Embeds what is not there yet."""
    from encoders import embed, load
    from encoders.blocks import layer_names
    from lens.files import write_arrays

    sizes = Sizes(2000, 1680, 600, (24, 32, 32), (2.0, 2.0, 2.0), 17)
    volumes = np.asarray(Volumes(config.mechanism / "data", sizes, "judged")[:])
    masks = np.array(glands(config.mechanism / "data", sizes, "judged"))
    found = {name: config.mechanism / name for name in ("random", "pretrained")}
    found |= {p.name: p for p in sorted(config.encoders.iterdir()) if NAME.fullmatch(p.name)}
    for name, folder in found.items():
        path = config.out / f"{name}.npz"
        if path.is_file() or not (folder / "encoder.json").is_file():
            continue
        encoder = load(folder)
        stages = tuple(range(1, len(encoder.config.widths) + 1))
        x = embed(encoder, volumes, masks=masks, stages=stages, batch_size=config.batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        layer = np.array(layer_names(encoder.config, stages))
        write_arrays(path, embeddings=x, layer=layer)
        print(f"{name}: {x.shape}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
