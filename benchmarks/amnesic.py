"""How long the amnesic test takes: all clusters of a study of 2,511 features.

``python -m benchmarks.amnesic`` plants a study and erases every group of features (a modality,
region and class), and with ``--by copies`` every cluster of near copies, before and after
fine-tuning. It writes ``benchmarks/results/amnesic.json``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from lens.amnesic.clusters import By, clusters_of
from lens.amnesic.labels import label_of
from lens.amnesic.losses import Settings
from lens.amnesic.table import amnesic

CLASSES = {
    "firstorder": 18, "glcm": 24, "glrlm": 16, "glszm": 16, "gldm": 14, "ngtdm": 5,
}  # fmt: skip
"""Features of each class, of one image."""

FACTORS = 12

COPIES = 3
"""Features of a family of near copies, about as many as in real tables (511 features of phantoms
with images: 174 families)."""


@dataclass(frozen=True)
class Config:
    """The study."""

    patients: int = 850
    """Patients, one study each."""
    width: int = 192
    """Channels of the embeddings."""
    modalities: int = 3
    """Modalities; each has nine images (the original and eight wavelet bands)."""
    by: tuple[By, ...] = ("group",)
    """What is erased together, a measurement each."""
    draws: int = 200
    """Random subspaces of each kind."""
    out: Path = harness.RESULTS / "amnesic.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Times the test and prints it."""
    pre, ft, r, features, label, groups = study(config)
    rows = []
    for by in config.by:
        start, processor = time.perf_counter(), time.process_time()
        clusters = clusters_of(features, r, by)
        found = amnesic(
            pre, {"task": ft}, r, label, clusters, groups, settings=Settings(draws=config.draws)
        )["task"]
        seconds = time.perf_counter() - start
        rows.append(
            {
                "by": by,
                "features": r.shape[1],
                "patients": config.patients,
                "clusters": len(clusters),
                "rows": len(found),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(time.process_time() - processor, 1),
                "peak_mib": round(harness.own_peak()),
            }
        )
        print(pd.DataFrame(rows[-1:]).to_string(index=False), flush=True)
    harness.record(config.out, {**harness.facts(config, "numpy", "scipy"), "rows": rows})


def study(config: Config):
    """Embeddings, features of factors that they hold, and a label of one of the factors."""
    rng = np.random.default_rng(0)
    n, f = config.patients, rng.standard_normal((config.patients, FACTORS))
    pre = f @ rng.standard_normal((FACTORS, config.width))
    ft = (f * np.geomspace(3, 0.5, FACTORS)) @ rng.standard_normal((FACTORS, config.width))
    pre, ft = (x + rng.standard_normal(x.shape) for x in (pre, ft))
    rows = [
        (f"m{m}", "gland", f"image{i}", name, f"F{at}")
        for m in range(config.modalities)
        for i in range(9)
        for name, count in CLASSES.items()
        for at in range(count)
    ]
    features = pd.DataFrame(rows, columns=["modality", "roi", "image", "feature_class", "feature"])
    features["column"] = features.agg(".".join, axis=1)
    weights = rng.standard_normal((FACTORS, -(-len(rows) // COPIES))) ** 3
    families = f @ weights + 0.5 * np.abs(weights).max(axis=0) * rng.standard_normal(
        (n, weights.shape[1])
    )
    r = np.repeat(families, COPIES, axis=1)[:, : len(rows)]
    r = r + 0.1 * r.std(axis=0) * rng.standard_normal(r.shape)
    groups = np.arange(n).astype(str)
    values = pd.Series((f[:, 0] + 0.5 * rng.standard_normal(n) > 0).astype(int))
    label = label_of(values, "label", patients=groups, folds=5)
    return pre, ft, np.exp(r / r.std(axis=0)), features, label, groups


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
