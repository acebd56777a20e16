"""The whole analysis on tables of a planted cohort: seconds per stage, memory, and how both grow.

``python -m benchmarks.analysis`` runs the main job on each size in turn, each in a process of its
own, and writes ``benchmarks/results/analysis.json``. The first size is the paper's: 850 patients,
three modalities with 837 features each, embeddings of width 768.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from benchmarks import harness
from lens.cohort.prostate import MODALITIES

IMAGES = 9
FACTORS = 12


@dataclass(frozen=True)
class Config:
    """What to run."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (850, 2511, 1000),
        (850, 2511, 4000),
        (850, 10044, 1000),
        (8500, 2511, 1000),
    )
    """Patients, radiomic columns (a multiple of 27) and bootstrap draws."""
    width: int = 768
    """Dimensions of the embeddings."""
    options: str = ""
    """More flags of the main job: --options="--epochs 20 --repeats 1"."""
    folder: Path | None = None
    """Where tables and runs stay; a temporary folder by default. Finished stages are kept there."""
    out: Path = harness.RESULTS / "analysis.json"
    """Where the figures go."""


def plant(folder: Path, patients: int, columns: int, width: int, seed: int = 0) -> None:
    """Writes ``pre.npz``, ``ft.npz`` and ``radiomics.parquet`` of `plant_arrays`."""
    ids, embeddings, table = plant_arrays(patients, columns, width, seed)
    for name, x in embeddings.items():
        np.savez(folder / f"{name}.npz", patient_id=ids, embeddings=x)
    pd.DataFrame({"patient_id": ids, **table}).to_parquet(folder / "radiomics.parquet")


def plant_arrays(
    patients: int, columns: int, width: int, seed: int = 0
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ids, embeddings ``pre`` and ``ft``, and features by name: a quarter of the factors is lost.

    Features come in families of nine that share most of their variance, as a feature of an image
    and of its wavelet bands does.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(patients, FACTORS))
    mixing = rng.normal(size=(FACTORS, width))
    ids = np.array([f"p{i:05d}" for i in range(patients)])
    after = latent.copy()
    after[:, : FACTORS // 4] = 0
    embeddings: dict[str, np.ndarray] = {}
    for name, factors in (("pre", latent), ("ft", after)):
        x = factors @ mixing + 2 * rng.normal(size=(patients, width))
        embeddings[name] = x.astype(np.float32)
    table: dict[str, np.ndarray] = {}
    for modality in MODALITIES:
        for family in range(columns // (IMAGES * len(MODALITIES))):
            own = rng.normal(size=patients)
            strength = rng.uniform(0.2, 0.9)
            common = np.sqrt(strength) * latent[:, family % FACTORS] + np.sqrt(1 - strength) * own
            for image in range(IMAGES):
                name = f"{modality}.gland.wavelet-{image:03b}_glcm_Feature{family}"
                name = name.replace("wavelet-1000", "original")
                table[name] = common + 0.3 * rng.normal(size=patients)
    return ids, embeddings, table


def measure(config: Config, patients: int, columns: int, draws: int, root: Path) -> dict[str, Any]:
    """One run of the main job."""
    folder = root / f"{patients}x{columns}-{draws}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "radiomics.parquet").exists():
        plant(folder, patients, columns, config.width)
    words = ["-m", "experiments.sweep", "--pre", folder / "pre.npz"]
    words += ["--ft", f"cls={folder / 'ft.npz'}", "--radiomics", folder / "radiomics.parquet"]
    words += ["--out", folder / "run", "--bootstraps", draws, *shlex.split(config.options)]
    job = harness.run_process(*words)
    run = json.loads((folder / "run" / "run.json").read_text())
    verdicts = pd.read_parquet(folder / "run" / "cls" / "features.parquet")["verdict"]
    estimate = re.search(r"cross-validation: .*", job.errors)
    seconds = {name: stage["seconds"] for name, stage in run["stages"].items()}
    return {
        "patients": patients,
        "columns": columns,
        "bootstraps": draws,
        "seconds": {"total": round(sum(seconds.values()), 1), **seconds},
        "job_seconds": job.cost.seconds,
        "estimate": estimate.group() if estimate else None,
        "processor_seconds": job.cost.processor,
        "peak_memory_gb": job.peak_mib * 2**20 / 1e9,
        "verdicts": verdicts.value_counts().to_dict(),
    }


def main(config: Config) -> None:
    """Measures every size and prints as it goes."""
    with tempfile.TemporaryDirectory() as temporary:
        runs = []
        for size in config.sizes:
            runs.append(measure(config, *size, config.folder or Path(temporary)))
            print(json.dumps(runs[-1], indent=2), flush=True)
            about = harness.facts(config, "jax", "numpy", "scipy", "pandas")
            harness.record(config.out, {**about, "runs": runs})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
