"""Are fine-tunings told apart by the profile of their changes, and are seeds not? On phantoms.

``python -m benchmarks.taxonomy --trained T --folder F`` takes the verdicts that
`benchmarks.mechanism` wrote for encoders fine-tuned for one factor each, three seeds of each label,
on the label and on permuted labels (``noise``), clusters them by their changes of R2
(`lens.cards.taxonomy`), and writes ``benchmarks/results/taxonomy.json`` and the figure
``docs/evidence-taxonomy.png``. Where profiles are the same by construction, the rate at which kinds
are called different is counted on drawn ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness, mechanism
from benchmarks.mechanism_files import unpacked
from lens.cards.taxonomy import Taxonomy, cluster, sentences
from lens.cards.taxonomy_figure import taxonomy_figure

KINDS = ("full", "noise")
NOISES = (0.5, 1.0, 2.0)
"""Standard deviations of a seed's errors, in those of the profile."""


@dataclass(frozen=True)
class Config:
    """What is read."""

    trained: Path = Path("runs/mechanism/packed")
    """Folder with mechanism.npz and mechanism.json."""
    folder: Path = Path("runs/mechanism")
    """Of `benchmarks.mechanism`, with its verdicts."""
    features: Path | None = None
    """The features of the judged phantoms as a table, where they are not to be measured again."""
    draws: int = 100
    """Drawn comparisons of each kind."""
    out: Path = harness.RESULTS / "taxonomy.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-taxonomy.png")
    """Where the picture goes."""


def main(config: Config) -> None:
    """Clusters the fine-tunings, counts on drawn profiles, writes record and figure."""
    found = profiles(config)
    taxonomy_figure(found).savefig(config.figure, dpi=160, bbox_inches="tight")
    said = sentences(found)
    print("\n".join(said))
    drawn = [row for noise in NOISES for row in rates(config.draws, noise)]
    for row in drawn:
        print(row)
    pairs = found.pairs.round(4)
    harness.record(config.out, {
        **harness.facts(config, "scipy"), "features": found.features,
        "runs": found.table().round(4).to_dict("records"), "kinds": pairs.to_dict("records"),
        "ceiling": {kind: round(value, 4) for kind, value in found.ceiling.items()},
        "sentences": said, "drawn": drawn,
    })  # fmt: skip


def profiles(config: Config) -> Taxonomy:
    """The fine-tunings by their changes of R2."""
    theirs = mechanism.Config(trained=config.trained, folder=config.folder)
    with np.load(config.trained / "mechanism.npz") as stored:
        embeddings = unpacked(stored)[theirs.pool]
    material = _material(config, theirs, embeddings)
    names = [n for n in embeddings if n.count("-") == 2 and n.rsplit("-", 1)[1] in KINDS]
    tables = [
        pd.read_csv(
            config.folder / f"verdicts-{theirs.pool}"
            / f"{mechanism._key(theirs, material, 'pretrained', name)}.csv"
        )
        for name in names
    ]  # fmt: skip
    changes = np.array([table["delta_r2"].to_numpy(float) for table in tables])
    read = np.any([table["verdict"].to_numpy(str) != "absent" for table in tables], axis=0)
    kinds = [f"{name.split('-')[0]} {name.rsplit('-', 1)[1]}" for name in names]
    return cluster(changes[:, read], names, kinds)


def _material(
    config: Config, theirs: mechanism.Config, embeddings: dict[str, np.ndarray]
) -> mechanism.Material:
    if config.features is None:
        about = json.loads((config.trained / "mechanism.json").read_text())
        return mechanism.read_material(theirs, about["phantoms"], embeddings)
    table = pd.read_csv(config.features)
    values = table.drop(columns="patient_id")
    usable = values.columns[values.notna().all() & (values.nunique() > len(values) // 4)]
    return mechanism.Material(
        embeddings, list(usable), values[usable].to_numpy(), table["patient_id"].to_numpy(),
        pd.DataFrame(),
    )  # fmt: skip


def rates(draws: int, noise: float) -> list[dict[str, Any]]:
    """How often two kinds of three seeds each are called different: the same, and other ones."""
    rng, rows = np.random.default_rng(0), []
    for alike in (True, False):
        called = 0
        for _ in range(draws):
            truth = rng.normal(size=(2, 200))
            truth[1] = truth[0] if alike else truth[1]
            changes = truth[[0, 0, 0, 1, 1, 1]] + noise * rng.normal(size=(6, 200))
            kinds = ["a"] * 3 + ["b"] * 3
            called += cluster(changes, [*"abcdef"], kinds).pairs["differ"].iloc[0] == "yes"
        rows.append({"same": alike, "noise": noise, "draws": draws, "called": called / draws})
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
