"""What a training of the study with a known mechanism leaves for its judging: a few small files.

Embeddings are stored in 16 bits, each channel over its own range: 65,536 steps.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lens.files import atomic, write_arrays, write_json


def pack(folder: Path, out: Path, settings: Mapping[str, Any], phantoms: Mapping[str, Any]) -> None:
    """Writes ``mechanism.npz``, ``mechanism.json`` and the encoders as ``.tar`` files.

    Args:
        folder: of a training, finished or not.
        out: gets the files.
        settings: of the training, for the record.
        phantoms: of `benchmarks.mechanism_data.Sizes`, for the record.
    """
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for path in _finished(folder / "embedded", "npz"):
        with np.load(path) as stored:
            for pool in stored.files:
                arrays |= packed(f"{path.stem}/{pool}", stored[pool])
    write_arrays(out / "mechanism.npz", **arrays)
    runs = [json.loads(path.read_text()) for path in _finished(folder / "runs", "json")]
    made = folder / "pretraining.json"
    write_json(
        out / "mechanism.json",
        {
            "settings": dict(settings),
            "phantoms": dict(phantoms),
            "pretraining": json.loads(made.read_text()) if made.is_file() else {},
            "runs": runs,
        },
    )
    for name in ("random", "pretrained"):
        if (folder / name / "encoder.json").is_file():
            with atomic(out / f"{name}.tar") as partial, tarfile.open(partial, "w") as archive:
                archive.add(folder / name, arcname=name)
    for path in sorted(out.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    print(f"{len(runs)} runs", flush=True)


def _finished(folder: Path, ending: str) -> list[Path]:
    """Files of a training that may still go on: those on their way have a name of their own."""
    return sorted(folder.glob(f"[!.]*.{ending}"))


def packed(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """An array (n, f) as 16-bit steps over the range of each channel."""
    low, high = values.min(axis=0), values.max(axis=0)
    step = np.where(high > low, (high - low) / 65_535, 1).astype(np.float32)
    steps = np.rint((values - low) / step).clip(0, 65_535).astype(np.uint16)
    return {f"{name}/steps": steps, f"{name}/low": low.astype(np.float32), f"{name}/step": step}


def unpacked(stored: Any) -> dict[str, dict[str, np.ndarray]]:
    """Pool -> encoder -> embeddings (n, f) of a file of `pack`, float32."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key in stored:
        name, pool, part = key.split("/")
        if part == "steps":
            low, step = (stored[f"{name}/{pool}/{which}"] for which in ("low", "step"))
            found.setdefault(pool, {})[name] = (low + stored[key] * step).astype(np.float32)
    return found
