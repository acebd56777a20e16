"""The jobs that go case by case, run as a user runs them on samples of a cohort."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Cost
from benchmarks.journey_cases import IMAGES
from lens.machine import cpu_count

MANIFEST, CHECK, RADIOMICS = "manifest (prepare)", "check of every file", "radiomics"
PRE, FT = "embeddings before", "embeddings after"
AGAIN, ALONE, EMBED_ALONE = "radiomics, all finished", "radiomics, one core", "embed, one core"

ONE_CORE = (
    "import os, runpy, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); "
    "del sys.argv[0]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""Runs a module on one core."""


@dataclass(frozen=True)
class Sampling:
    """What is run.

    Attributes:
        samples: numbers of cases.
        alone: the same for what is measured on one core.
        shape: of the encoder's input.
    """

    samples: tuple[int, ...]
    alone: tuple[int, ...]
    shape: tuple[int, int, int]

    def wants(self, stage: str, count: int) -> bool:
        """Whether a job is run on so many cases; 0 is the run that compiles."""
        if count == 0 or stage == MANIFEST:
            return stage not in (FT, ALONE, EMBED_ALONE)
        return count in (self.alone if stage in (ALONE, EMBED_ALONE) else self.samples)


def measure(settings: Sampling, folder: Path) -> dict[str, dict[int, Cost]]:
    """Cost of every job that goes case by case, by number of cases.

    A run on one case comes first: it compiles what is kept on disk for later runs.
    """
    encoders = _encoders(folder)
    costs: dict[str, dict[int, Cost]] = {}
    for count in (0, *sorted({*settings.samples, *settings.alone})):
        place = folder / str(count)
        for case in range(count or 1):
            name = f"case-{case:03d}"
            shutil.copytree(folder / "cases" / name, place / name)
        for stage, words in jobs(settings, place, encoders).items():
            if not settings.wants(stage, count):
                continue
            cost = harness.run_process(*words).cost
            print(f"{stage}, {count} cases: {cost}", flush=True)
            if count:
                costs.setdefault(stage, {})[count] = cost
    return costs


def jobs(settings: Sampling, place: Path, encoders: Mapping[str, Path]) -> dict[str, list[object]]:
    """The command line of each job on the cases of a folder, in order."""
    manifest = ["--cohort", place / "cohort.csv", "--rois", "gland"]
    patterns = [word for name in IMAGES for word in (f"--{name}", f"{{patient}}/{name}.nii.gz")]
    prepare = ["-m", "experiments.prepare"]
    radiomics = ["-m", "experiments.radiomics", *manifest, "--out"]
    embed = ["experiments.embed", *manifest, "--shape", *settings.shape]
    alone, extract = place / "alone" / "R.parquet", [*radiomics, place / "R.parquet"]

    def with_encoder(name: str, out: str) -> list[object]:
        return [*embed, "--encoder", encoders[name], "--out", place / f"{out}.npz"]

    return {
        MANIFEST: [*prepare, "glob", "--root", place, *patterns, "--out", place / "cohort.csv"],
        CHECK: [*prepare, "check", *manifest, "--out", place / "geometry.csv"],
        RADIOMICS: [*extract, "--workers", cpu_count()],
        AGAIN: extract,
        ALONE: [*radiomics, alone, "--workers", 1],
        PRE: ["-m", *with_encoder("pre", "pre")],
        FT: ["-m", *with_encoder("ft", "ft")],
        EMBED_ALONE: ["-c", ONE_CORE, *with_encoder("pre", "alone")],
    }


def _encoders(folder: Path) -> dict[str, Path]:
    """Two checkpoints of random weights."""
    from flax import nnx

    from encoders.checkpoints import save
    from encoders.convnext import ConvNeXtV2, ConvNeXtV2Config

    paths = {name: folder / f"{name}-encoder" for name in ("pre", "ft")}
    for seed, path in enumerate(paths.values()):
        save(path, ConvNeXtV2(ConvNeXtV2Config.named("tiny"), rngs=nnx.Rngs(seed)))
    return paths
