"""Tables with a known truth: latent factors drive both the embeddings and the radiomic features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

QUICK: dict[str, Any] = {
    "hidden": 4, "epochs": 2, "l1": (1e-6,), "l2": (0.0,), "folds": 2, "repeats": 1,
    "bootstraps": 10, "flips": 50,
}  # fmt: skip
"""Settings of a run that has to be there, whatever it finds."""

CLASSES = ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")


@dataclass(frozen=True)
class Planted:
    """A planted study.

    Attributes:
        ids: patients.
        pre, ft: embeddings (n, d), a smooth map of the latent factors with little noise.
        radiomics: id column and features, each a noisy multiple of one factor.
        factor: the factor of each feature (k,).
        erased: factors that are absent from `ft`.
    """

    ids: np.ndarray
    pre: np.ndarray
    ft: np.ndarray
    radiomics: pd.DataFrame
    factor: np.ndarray
    erased: tuple[int, ...]

    def write(self, folder: Path, seed: int = 0) -> dict[str, Path]:
        """Writes the tables, each in a patient order of its own."""
        rng = np.random.default_rng(seed)
        paths = {name: folder / f"{name}.npz" for name in ("pre", "ft")}
        for name, path in paths.items():
            order = rng.permutation(len(self.ids))
            np.savez(path, patient_id=self.ids[order], embeddings=getattr(self, name)[order])
        paths["radiomics"] = folder / "radiomics.csv"
        order = rng.permutation(len(self.ids))
        self.radiomics.iloc[order].to_csv(paths["radiomics"], index=False)
        return paths


def columns(per_class: int = 2) -> list[str]:
    """Feature names of two modalities and two images."""
    return [
        f"{modality}.gland.{image}_{feature_class}_F{index}"
        for modality in ("t2", "adc")
        for image in ("original", "wavelet-LLH")
        for feature_class in CLASSES
        for index in range(per_class)
    ]


def plant(
    n: int = 240, d: int = 48, latents: int = 6, erased: tuple[int, ...] = (0,), seed: int = 0
) -> Planted:
    """Draws a planted study."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, latents))
    names = columns()
    factor = np.arange(len(names)) % latents
    r = latent[:, factor] + 0.3 * rng.normal(size=(n, len(names)))
    mixing = rng.normal(size=(latents, d)) / np.sqrt(latents)

    def embed(factors: np.ndarray) -> np.ndarray:
        return (np.tanh(factors @ mixing) + 0.05 * rng.normal(size=(n, d))).astype(np.float32)

    kept = latent.copy()
    kept[:, list(erased)] = 0.0
    ids = np.array([f"P{i:04d}" for i in range(n)])
    table = pd.DataFrame(r, columns=names)
    table.insert(0, "patient_id", ids)
    return Planted(ids, embed(latent), embed(kept), table, factor, erased)


def plant_quick() -> Planted:
    """The study of `QUICK`: one size, so that its programs are compiled once for all tests."""
    return plant(n=90, d=8)
