"""What a short pre-training should predict: how well factors of phantoms are read after it.

``python -m benchmarks.pretraining_loss`` pre-trains a small ConvNeXt V2 on phantoms of independent
factors by each loss of the masked autoencoder, from the same starts, and reads the factors of other
phantoms from the embeddings (scikit-learn's ridge regression, five folds). It writes
``benchmarks/results/pretraining_loss.json`` and prints a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.mechanism_truth import squared_errors
from encoders.settings import Target

VISIBLE = (0.0, 1.0)
"""Weights of visible patches."""


@dataclass(frozen=True)
class Config:
    """How many phantoms, how long."""

    trained: int = 720
    """Phantoms to pre-train on; one of eight chooses the epoch."""
    read: int = 400
    """Phantoms whose factors are read."""
    seeds: int = 3
    """Starts, and orders of training."""
    epochs: int = 6
    """Passes over the phantoms."""
    batch: int = 16
    """Volumes per step."""
    rate: float = 2e-3
    """Highest learning rate."""
    decoder_width: int = 64
    """Channels of the decoder."""
    widths: tuple[int, int, int, int] = (24, 48, 96, 192)
    """Channels of each stage, which has one block."""
    out: Path = harness.RESULTS / "pretraining_loss.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Pre-trains by every loss from every start, writes the record, prints the table."""
    from flax import nnx

    from encoders import ConvNeXtV2, ConvNeXtV2Config
    from encoders.convnext import STEM_BIAS
    from lens.cohort.factor_phantom import draw_all

    volumes, _, _ = draw_all(range(config.read, config.read + config.trained), seed=23)
    read = draw_all(range(config.read), seed=23)
    layout = ConvNeXtV2Config(depths=(1, 1, 1, 1), widths=config.widths, strides=(2, 1, 1))
    rows: list[dict[str, Any]] = []
    for seed in range(config.seeds):
        start = ConvNeXtV2(layout, rngs=nnx.Rngs(seed), stem_bias=STEM_BIAS)
        rows.append({"seed": seed, "target": "none", **reading(start, *read)})
        for target, visible in product(get_args(Target), VISIBLE):
            encoder = pretrained(config, start, volumes, target, visible, seed)
            made = {"seed": seed, "target": target, "visible_weight": visible}
            rows.append(made | reading(encoder, *read))
            print(rows[-1], flush=True)
    facts = harness.facts(config, "jax", "flax", "scikit-learn")
    harness.record(config.out, {**facts, "rows": rows})
    print(table(rows), config.out, sep="\n")


def pretrained(
    config: Config, start: Any, volumes: np.ndarray, target: Target, visible: float, seed: int
) -> Any:
    """The start after a pre-training by one loss."""
    from encoders import MaskingSettings, Tracking, TrainingSettings, pretrain

    order = np.arange(len(volumes))
    val = order % 8 == 0
    side = 4 * int(np.prod(start.config.strides))
    encoder, _ = pretrain(
        start,
        volumes,
        train_rows=order[~val],
        val_rows=order[val],
        masking=MaskingSettings(
            patch=(side,), width=config.decoder_width, target=target, visible_weight=visible
        ),
        settings=TrainingSettings(
            epochs=config.epochs, batch_size=config.batch, learning_rate=config.rate, seed=seed
        ),
        tracking=Tracking(progress=False),
    )
    return encoder


def reading(encoder: Any, volumes: np.ndarray, glands: np.ndarray, labels: Any) -> dict[str, Any]:
    """Held-out R2 of each factor from the embedding over the gland, and its effective rank."""
    from encoders import embed
    from encoders.collapse import standardised_rank
    from lens.cohort.factor_images import FACTORS

    x = embed(encoder, volumes, masks=glands, batch_size=50)
    y = np.column_stack([[f.share(v) for v in labels[name]] for name, f in FACTORS.items()])
    errors = squared_errors(x.astype(float), y).sum(axis=0)
    r2 = 1 - errors / np.square(y - y.mean(axis=0)).sum(axis=0)
    factors = {name: round(float(v), 3) for name, v in zip(FACTORS, r2, strict=True)}
    return {"r2": factors, "mean_r2": float(r2.mean()), "effective_rank": standardised_rank(x)}


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, a row per loss, with the smallest and largest mean R2 of a seed."""
    factors = list(rows[0]["r2"])
    head = ["target", "visible", *factors, "mean [seeds]", "effective rank"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    losses = dict.fromkeys((row["target"], row.get("visible_weight")) for row in rows)
    for target, visible in losses:
        own = [r for r in rows if (r["target"], r.get("visible_weight")) == (target, visible)]
        mean = [row["mean_r2"] for row in own]
        cells = [target, "" if visible is None else f"{visible:g}"]
        cells += [f"{np.mean([row['r2'][name] for row in own]):.2f}" for name in factors]
        cells.append(f"{np.mean(mean):.2f} [{min(mean):.2f}, {max(mean):.2f}]")
        cells.append(f"{np.mean([row['effective_rank'] for row in own]):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
