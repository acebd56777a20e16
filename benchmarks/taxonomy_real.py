"""Which fine-tunings of two real studies changed the same? Full, low-rank and permuted, by seed.

``python -m benchmarks.taxonomy_real --ultrasound U --hippocampus H`` takes the embeddings of the
region that both studies left (``trained`` in their folders), finds the change of R2 of every
feature for each run (5 folds, without the MLP, and thus without *recoded*), clusters the runs by
these changes (`lens.cards.taxonomy`), and writes ``benchmarks/results/taxonomy_real.json`` and
``docs/evidence-taxonomy-real.png``. Encoders of low-rank updates that were trained apart, from a
start of their own, may lie in another folder (``--low-rank``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from benchmarks.edits_real import TITLES
from benchmarks.layers_real import POOLS
from benchmarks.real.gathered import Gathered, gathered

KINDS = {
    "us": {"cls": "malignancy", "lora": "malignancy, low-rank", "permuted": "permuted"},
    "hip": {"reg": "volume", "lora": "volume, low-rank", "permuted": "permuted", "seg": "outline"},
}
"""Study -> what its runs are called -> kind."""

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Config:
    """Where the studies are."""

    ultrasound: Path = Path("runs/ultrasound")
    """Folder of `benchmarks.ultrasound`, with cohort.csv and features."""
    hippocampus: Path = Path("runs/hippocampus")
    """Folder of `benchmarks.hippocampus`, likewise."""
    low_rank: Path | None = None
    """Embeddings (``collect`` of `benchmarks.real.train`) of low-rank updates and of what they
    started from; those of the studies if not given."""
    folds: int = 5
    """Parts of the cross-validation."""
    flips: int = 2000
    """Sign flips of each test."""
    out: Path = harness.RESULTS / "taxonomy_real.json"
    """Where the figures go."""
    figure: Path = Path("docs/evidence-taxonomy-real.png")
    """Where the pictures go, one below the other."""


def main(config: Config) -> None:
    """Finds the changes, clusters the runs, writes the record and the figure."""
    from lens.cards.taxonomy import cluster, sentences

    found: dict[str, Any] = {}
    drawn = []
    for study, folder in (("us", config.ultrasound), ("hip", config.hippocampus)):
        x = _embeddings(folder / "trained", study)
        rows = gathered(folder, x["pre"])
        own = {name: kind for name, kind in KINDS[study].items() if name not in ("seg", "lora")}
        tables = changes(config, rows, x["pre"], x, own)
        tables |= changes(config, rows, x.get("pre-outline", x["pre"]), x, ("seg",))
        apart = x if config.low_rank is None else _embeddings(config.low_rank, study)
        tables |= changes(config, rows, apart["pre"], apart, ("lora",))
        profiles = np.array([table["delta_r2"].to_numpy(float) for table in tables.values()])
        read = np.any([table["verdict"] != "absent" for table in tables.values()], axis=0)
        means = profiles[:, read].mean(axis=1)
        kinds = [KINDS[study][name.rpartition("-")[0]] for name in tables]
        labels = [f"{kind} {name[-1]}" for kind, name in zip(kinds, tables, strict=True)]
        taxonomy = cluster(profiles[:, read], labels, kinds)
        drawn.append((TITLES[study].partition(":")[0], taxonomy))
        found[study] = {
            "features": taxonomy.features,
            "sentences": sentences(taxonomy),
            "ceiling": {kind: round(value, 4) for kind, value in taxonomy.ceiling.items()},
            "runs": taxonomy.table().round(4).to_dict("records"),
            "kinds": taxonomy.pairs.round(4).to_dict("records"),
            "mean_change": dict(zip(labels, means.round(4).tolist(), strict=True)),
            "called": {
                label: int(table["verdict"].isin(["lost", "gained"]).sum())
                for label, table in zip(labels, tables.values(), strict=True)
            },
        }  # fmt: skip
        print(study, " ".join(found[study]["sentences"]))
    harness.record(config.out, {**harness.facts(config, "numpy", "scipy"), "studies": found})
    _draw(drawn, config.figure)


def _embeddings(folder: Path, study: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{study}-{POOLS[study]}.npz") as stored:
        return dict(stored)


def changes(
    config: Config,
    rows: Gathered,
    pre: np.ndarray,
    x: Mapping[str, np.ndarray],
    names: Iterable[str],
) -> dict[str, pd.DataFrame]:
    """Run -> its features with ``delta_r2`` and ``verdict``, of the runs that are there.

    Args:
        config: folds and flips.
        rows: features and patients.
        pre: embeddings before fine-tuning, in the manifest's order, as in `x`.
        x: by run.
        names: what the runs are called, without the seed.
    """
    from lens.settings import Rules
    from lens.verdicts.clusters import cluster_features
    from lens.verdicts.folds import make_folds
    from lens.verdicts.held_out import held_out_errors
    from lens.verdicts.judge import judge

    wanted = [f"{name}-{seed}" for name in names for seed in SEEDS]
    sides = {name: x[name][rows.rows] for name in wanted if name in x}
    if not sides:
        return {}
    folds = make_folds(rows.patients, config.folds, 1, 0)
    held_out = held_out_errors(
        pre[rows.rows], dict(sides), rows.r, rows.patients, folds, None, back=False
    )
    clusters, rules = cluster_features(rows.r), Rules(flips=config.flips)
    return {side: judge(held_out, side, clusters, rows.patients, rules).features for side in sides}


def _draw(drawn: list[tuple[str, Any]], path: Path) -> None:
    """The figures of the page, one below the other."""
    import io

    from PIL import Image

    from lens.cards.taxonomy_figure import taxonomy_figure
    from lens.files import atomic

    pictures = []
    for title, taxonomy in drawn:
        figure = taxonomy_figure(taxonomy)
        figure.suptitle(title)
        stream = io.BytesIO()
        figure.savefig(stream, dpi=130, format="png", bbox_inches="tight")
        pictures.append(Image.open(stream).convert("RGB"))
    whole = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white"
    )
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    with atomic(path) as temporary:
        whole.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
