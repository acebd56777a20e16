"""Does the profile by depth find where a change is made, and nothing where there is none?

``python -m benchmarks.layers --embedded O --mechanism F`` reads what `benchmarks.layers_embed`
wrote. Two parts, into ``benchmarks/results/layers.json``:

- *phantoms*: encoders fine-tuned for a label that depends on one factor. The factors themselves are
  read at every stage, before and after, with the random encoder and permuted labels beside.
- *drawn*: tables with a known truth, of three layers of 16, 32 and 64 numbers. Nothing changes, but
  noise, basis or gains; or a class is partly lost at the second layer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from scipy.stats import binomtest

from benchmarks import harness

FACTOR_OF = {
    "volume_ml": "gland_volume", "lesion_grade": "dwi_contrast", "texture_grade": "t2_texture",
    "nodule_grade": "adc_nodularity", "level_grade": "adc_level",
}  # fmt: skip
"""The factor that each label depends on."""

WIDTHS = {"stage1": 16, "stage2": 32, "stage3": 64}
CLASSES = ("firstorder", "glcm", "glrlm", "glszm")
CHANGES = ("identical", "rotated", "gains", "noise")
SHAPES = ("normal", "skewed", "outlying", "clustered")
DOSES = (0.25, 0.5, 0.75, 1.0)
CALLED = ("lost", "gained")


@dataclass(frozen=True)
class Config:
    """What is read, and how often."""

    embedded: Path = Path("runs/layers")
    """Folder of `benchmarks.layers_embed`."""
    mechanism: Path = Path("runs/mechanism")
    """Folder of `benchmarks.mechanism_train`, for the factors."""
    parts: tuple[str, ...] = ("phantoms", "drawn")
    """What to do; the other part is kept from the last record."""
    draws: int = 20
    """Tables of each kind without a change."""
    planted: int = 10
    """Tables of each dose."""
    patients: int = 120
    """Patients of a drawn table."""
    folds: int = 3
    """Parts of the cross-validation of a drawn table; 5 of the phantoms."""
    flips: int = 500
    """Sign flips of each test of a drawn table."""
    out: Path = harness.RESULTS / "layers.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Does the parts, and records each as soon as it is done."""
    for part in config.parts:
        found = phantoms(config) if part == "phantoms" else drawn(config)
        facts = harness.facts(config, "scipy")
        harness.record_part(config.out, part, {**facts, **found})


def phantoms(config: Config) -> dict[str, Any]:
    """Profiles of the factors, of every fine-tuned encoder that is there."""
    from benchmarks.mechanism_data import Sizes, labels
    from lens.cohort.factor_images import FACTORS

    sizes = Sizes(2000, 1680, 600, (24, 32, 32), (2.0, 2.0, 2.0), 17)
    table = labels(config.mechanism / "data", sizes, "judged")
    names = list(FACTORS)
    features = pd.DataFrame({"column": names, "feature_class": names})
    patients, r = table["patient_id"].to_numpy(str), table[names].to_numpy(float)
    read = {path.stem: _layers(path) for path in sorted(config.embedded.glob("*.npz"))}
    runs = []
    for name in (name for name in read if name.endswith("-full")):
        label, seed, _ = name.rsplit("-", 2)
        controls = {"random": read["random"]}
        if (noise := f"{label}-{seed}-noise") in read:
            controls["permuted"] = read[noise]
        found = _profile(read["pretrained"], read[name], r, features, patients, controls)
        run = _of_label(found, FACTOR_OF[label])
        runs.append({"label": label, "seed": int(seed), "factor": FACTOR_OF[label], **run})
        print(label, seed, {key: run[key] for key in ("called_at", "others_called", "step_at")})
    noise = []
    for name in (name for name in read if name.endswith("-noise")):
        found = _profile(read["pretrained"], read[name], r, features, patients, {})
        rows = found[found["group"] != "all"]
        called = rows[rows["verdict"].isin(CALLED)]
        noise.append({
            "run": name, "tests": len(rows), "called": len(called),
            "cells": [f"{row.group} {row.verdict} {row.layer}" for row in called.itertuples()],
        })  # fmt: skip
        print(noise[-1])
    return {"patients": len(r), "runs": runs, "permuted_labels": noise}


def _of_label(found: pd.DataFrame, factor: str) -> dict[str, Any]:
    """One fine-tuning: the factor of its label by depth, and what else changed."""
    own = found[found["group"] == factor]
    others = found[~found["group"].isin([factor, "all"])]
    columns = [
        "r2_pre", "r2_ft", "delta_r2", "delta_r2_low", "delta_r2_high", "p_maxt", "step_r2",
        "p_step", "r2_random", "r2_permuted", "r2_shuffled", "r2_whole_pre", "r2_whole_ft",
    ]  # fmt: skip
    steps = own[own["p_step"] <= 0.05]
    called = others[others["verdict"].isin(CALLED)]
    mean = others.groupby("layer", sort=False)[["r2_pre", "r2_ft", "r2_random", "r2_shuffled"]]
    return {
        "components": int(own["components"].iloc[0]),
        "layers": own["layer"].tolist(),
        "verdicts": own["verdict"].tolist(),
        **{column: own[column].round(4).tolist() for column in columns},
        "called_at": own.loc[own["verdict"].isin(CALLED), "layer"].tolist(),
        "step_at": _largest_step(steps),
        "others_called": [f"{row.group} {row.verdict} {row.layer}" for row in called.itertuples()],
        "others": mean.mean().round(4).reset_index().to_dict("list"),
    }


def _largest_step(steps: pd.DataFrame) -> str | None:
    """The layer with the largest of the steps; None of none."""
    if steps.empty:
        return None
    return str(steps["layer"].iloc[int(steps["step_r2"].abs().to_numpy().argmax())])


def drawn(config: Config) -> dict[str, Any]:
    """Rates of alarms without a change, and of calls by dose; each is recorded once it is done."""
    found: dict[str, Any] = {"alarms": {}, "power": {}}
    kinds = [("noise", shape) for shape in reversed(SHAPES)]
    kinds += [(change, "normal") for change in CHANGES if change != "noise"]
    todo = [("alarms", f"{change}, {shape}", partial(_alarm, config, change, shape), config.draws)
            for change, shape in kinds]  # fmt: skip
    of_doses = [("power", str(dose), partial(_found, config, dose), config.planted)
                for dose in reversed(DOSES)]  # fmt: skip
    for part, name, draw, count in [todo[0], *of_doses, *todo[1:]]:
        found[part][name] = _rates([draw(at) for at in range(count)])
        print(name, found[part][name], flush=True)
        harness.record_part(config.out, "drawn", {**harness.facts(config, "scipy"), **found})
    return found


def _alarm(config: Config, change: str, shape: str, seed: int) -> dict[str, float]:
    """Whether any cell is called where nothing changed."""
    rng = np.random.default_rng([seed, SHAPES.index(shape), CHANGES.index(change)])
    drawn = _Drawn(config.patients, shape, rng)
    pre = {name: drawn.embedded(name) for name in WIDTHS}
    ft = {name: drawn.changed(x, name, change) for name, x in pre.items()}
    found = _profile(
        pre, ft, drawn.r, drawn.features, drawn.patients, {}, config.flips, config.folds
    )
    shuffled = found.loc[found["group"] == "all", "r2_shuffled"]
    return {
        "called": float(found["verdict"].isin(CALLED).any()),
        "p_change": float(found["p_maxt"].min() <= 0.05),
        "p_step": float(found["p_step"].min() <= 0.05),
        "spread_of_shuffled": float(shuffled.max() - shuffled.min()),
        "r2_shuffled": float(shuffled.mean()),
    }


def _found(config: Config, dose: float, seed: int) -> dict[str, float]:
    """Whether a class that is partly lost at the second layer is called there, and only there."""
    rng = np.random.default_rng([seed, 99, int(100 * dose)])
    drawn = _Drawn(config.patients, "normal", rng)
    pre = {name: drawn.embedded(name) for name in WIDTHS}
    lost = drawn.latent.copy()
    lost[:, 0] = np.sqrt(1 - dose**2) * lost[:, 0] + dose * rng.normal(size=len(lost))
    ft = {name: drawn.embedded(name, drawn.latent if name == "stage1" else lost) for name in WIDTHS}
    found = _profile(
        pre, ft, drawn.r, drawn.features, drawn.patients, {}, config.flips, config.folds
    )
    own = found[found["group"] == CLASSES[0]].set_index("layer")
    others = found[~found["group"].isin([CLASSES[0], "all"])]
    steps = own[own["p_step"] <= 0.05]
    return {
        "called": float(str(own.loc["stage2", "verdict"]) == "lost"),
        "step_at_second": float(_largest_step(steps.reset_index()) == "stage2"),
        "called_at_first": float(str(own.loc["stage1", "verdict"]) in CALLED),
        "others_called": float(others["verdict"].isin(CALLED).any()),
        "change": float(own["delta_r2"].to_dict()["stage2"]),
    }


class _Drawn:
    """A table whose embeddings hold four factors, each measured by three features.

    Attributes:
        patients, latent, r, features: of its rows, and of its columns.
    """

    def __init__(self, patients: int, shape: str, rng: np.random.Generator) -> None:
        ids = np.repeat(np.arange(patients), 2 if shape == "clustered" else 1)
        latent = rng.normal(size=(patients, len(CLASSES)))[ids]
        if shape == "clustered":
            latent = 0.9 * latent + np.sqrt(1 - 0.81) * rng.normal(size=latent.shape)
        if shape == "skewed":
            latent = np.exp(0.8 * latent) - np.exp(0.32)
        columns = np.repeat(np.arange(len(CLASSES)), 3)
        self.r = latent[:, columns] + 0.5 * rng.normal(size=(len(ids), len(columns)))
        self._size = np.ones((len(ids), 1))
        if shape == "outlying":
            odd = rng.choice(patients, max(1, patients * 3 // 100), replace=False)
            self.r[odd] *= 8
            self._size[odd] = 4
        self.latent, self.patients, self._rng = latent, ids.astype(str), rng
        names, classes = [f"f{at}" for at in range(len(columns))], [CLASSES[at] for at in columns]
        self.features = pd.DataFrame({"column": names, "feature_class": classes})
        self._basis = {
            name: rng.normal(size=(len(CLASSES), width)) for name, width in WIDTHS.items()
        }

    def embedded(self, layer: str, latent: np.ndarray | None = None) -> np.ndarray:
        """Numbers that hold the factors, with noise that is drawn anew."""
        signal = (self.latent if latent is None else latent) @ self._basis[layer]
        return self._size * (signal + 0.7 * self._rng.normal(size=signal.shape))

    def changed(self, x: np.ndarray, layer: str, change: str) -> np.ndarray:
        """The same information, in the way of `change`; ``noise``: other noise, rotated."""
        turn = np.linalg.qr(self._rng.normal(size=(x.shape[1],) * 2))[0]
        return {
            "identical": x,
            "rotated": x @ turn,
            "gains": x * np.exp(0.5 * self._rng.normal(size=x.shape[1])),
            "noise": self.embedded(layer) @ turn,
        }[change]


def _profile(
    pre: dict[str, np.ndarray],
    ft: dict[str, np.ndarray],
    r: np.ndarray,
    features: pd.DataFrame,
    patients: np.ndarray,
    controls: dict[str, dict[str, np.ndarray]],
    flips: int = 2000,
    parts: int = 5,
) -> pd.DataFrame:
    from lens.settings import Rules
    from lens.verdicts.folds import make_folds
    from lens.verdicts.layers import layer_profile

    folds, rules = make_folds(patients, parts, 1, 0), Rules(flips=flips)
    return layer_profile(pre, ft, r, features, patients, folds, rules, controls=controls).classes


def _layers(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        x, layer = stored["embeddings"], stored["layer"]
    return {str(name): x[:, layer == name].astype(float) for name in dict.fromkeys(layer)}


def _rates(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Share of each 0 or 1 with its 95% interval (Wilson); means of what is neither."""
    found: dict[str, Any] = {"tables": len(rows)}
    for key in rows[0]:
        values = [row[key] for row in rows]
        if set(values) <= {0.0, 1.0}:
            low, high = binomtest(int(sum(values)), len(values)).proportion_ci(method="wilson")
            found[key] = [round(float(v), 3) for v in (np.mean(values), low, high)]
        else:
            found[key] = round(float(np.mean(values)), 4)
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(tyro.cli(Config, description=__doc__))
