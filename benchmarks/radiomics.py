"""Radiomics: cases per minute and peak memory, ours against a plain PyRadiomics loop.

``python -m benchmarks.radiomics [--t2 FILE --gland FILE]``

One T2 image with a gland of real size, resampled to 0.5 x 0.5 x 1.0 mm, in copies that differ by a
little noise. Three ways to the same 837 features of each copy, each in a process of its own,
interleaved in rounds: the loop of PyRadiomics' documentation (whole image, default threads), and
`extract_cohort` of `lens.radiomics` with one and with two workers. The time is that of the loop or
call, starting the workers, hashing, reading and writing included, importing PyRadiomics not.
Memory is the largest sum of resident memory over the process and its children, sampled ten times
a second. Writes ``benchmarks/results/radiomics.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks import harness

SPACING_MM = (0.5, 0.5, 1.0)
PACKAGES = ("pyradiomics-bhklab", "SimpleITK", "numpy", "scipy", "distributed")
PARAMETERS = "t2.yaml"
"""Of the package."""

WAYS = ("plain", "one worker", "two workers")
WORKERS = {"one worker": 1, "two workers": 2}
BARS = {"one worker": 1.8, "two workers": 3.0}
"""Least speed over the plain loop."""

MEMORY_BAR = 0.5
"""Most peak memory of one worker as a share of the plain loop's."""


@dataclass(frozen=True)
class Config:
    """Times our extraction against a plain PyRadiomics loop."""

    t2: Path | None = None
    """A T2 image; a phantom in a field of view of 192 x 192 x 60 mm by default."""

    gland: Path | None = None
    """Its gland mask, on its grid."""

    rounds: int = 3
    """Interleaved repetitions."""

    cases: tuple[int, int, int] = (1, 4, 8)
    """Cases a round: of the plain loop, of one worker and of two workers."""

    out: Path = harness.RESULTS / "radiomics.json"
    """Where the figures go."""


def main(config: Config) -> dict[str, Any]:
    """Runs all rounds, prints the table and writes the results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = write_cases(folder, max(config.cases), config.t2, config.gland)
        load = [os.getloadavg()[0]]
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for index in range(config.rounds):
            for way, cases in zip(WAYS, config.cases, strict=True):
                runs[way].append(run(folder, way, cases, index))
                load.append(os.getloadavg()[0])
                print(way, runs[way][-1], f"load {load[-1]:.1f}", flush=True)
        difference = largest_difference(folder)
    results = harness.facts(config, *PACKAGES) | summary(runs)
    results |= {"load": [round(min(load), 1), round(max(load), 1)]}
    results |= {"case": made, "runs": runs, "difference": difference}
    harness.record(config.out, results)
    report(results)
    return results


def write_cases(
    folder: Path, count: int, t2: Path | None, gland: Path | None
) -> dict[str, int | str]:
    """Writes the images, masks and manifests of every number of cases up to `count`."""
    from lens.cohort import read_image, read_mask
    from lens.cohort.geometry import sample, sample_mask, target_grid
    from lens.cohort.phantom import phantom

    if t2 is None or gland is None:
        patient = phantom(0, 0)
        image, mask = patient.images["t2"], patient.masks["gland"]
    else:
        image, mask = read_image(t2, "benchmark"), read_mask(gland, "benchmark")[0]
    grid = target_grid(image, SPACING_MM)
    image, mask = widen(sample(image, grid), sample_mask(mask, grid))
    sitk.WriteImage(mask, folder / "gland.nii.gz")
    # As files of the user's own: both ways then normalise over the whole image.
    shutil.copy(str(files("lens.radiomics") / PARAMETERS), folder / PARAMETERS)
    rng = np.random.default_rng(0)
    array = sitk.GetArrayFromImage(image)
    rows = []
    for index in range(count):
        noisy = sitk.GetImageFromArray((array + rng.normal(0, 1, array.shape)).astype(np.float32))
        noisy.CopyInformation(image)
        sitk.WriteImage(noisy, folder / f"{index}.nii.gz")
        rows.append(f"case-{index},{index}.nii.gz,gland.nii.gz")
        text = "\n".join(["patient_id,t2,gland", *rows])
        (folder / f"cohort-{index + 1}.csv").write_text(text + "\n")
    return {
        "source": "phantom" if t2 is None else t2.name,
        "voxels": int(array.size),
        "gland voxels": int(sitk.GetArrayViewFromImage(mask).sum()),
    }


def widen(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """Mirrored beyond its edges to the field of view of a clinical T2 series, if it is smaller."""
    missing = [max(0, n - s) for s, n in zip(image.GetSize(), (384, 384, 60), strict=True)]
    low = [n // 2 for n in missing]
    high = [n - k for n, k in zip(missing, low, strict=True)]
    return sitk.MirrorPad(image, low, high), sitk.ConstantPad(mask, low, high, 0)


def run(folder: Path, way: str, cases: int, index: int) -> dict[str, float]:
    """One way in a process of its own: seconds, cases per minute and peak memory in MB."""
    child = [sys.executable, "-m", __spec__.name, "child", way, str(folder), str(cases), str(index)]
    process = subprocess.Popen(child, stdout=subprocess.PIPE, text=True)
    peak = Peak(process.pid)
    output, _ = process.communicate()
    megabytes = peak.stop()
    if process.returncode:
        raise RuntimeError(f"{way} failed with exit code {process.returncode}")
    seconds = float(output.split()[-1])
    return {
        "cases": cases,
        "seconds": round(seconds, 2),
        "cases_per_minute": round(60 * cases / seconds, 2),
        "peak_mb": round(megabytes),
    }


class Peak:
    """The largest sum of resident memory over a process and its children, watched by a thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._largest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        """Ends the watch; the peak in MB."""
        self._done.set()
        self._thread.join()
        return self._largest / 1e6

    def _watch(self) -> None:
        import psutil

        process = psutil.Process(self._pid)
        while not self._done.wait(0.1):
            try:
                family = [process, *process.children(recursive=True)]
                self._largest = max(self._largest, sum(p.memory_info().rss for p in family))
            except psutil.NoSuchProcess:
                continue


def child(way: str, folder: Path, cases: int, index: int) -> None:
    """Does the work and prints its seconds."""
    work: Callable[[], None]
    if way == "plain":
        work = plain_loop(folder, cases)
    else:
        work = our_call(folder, cases, WORKERS[way], folder / f"cache-{WORKERS[way]}-{index}")
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start)


def plain_loop(folder: Path, cases: int) -> Callable[[], None]:
    """As https://pyradiomics.readthedocs.io/en/latest/usage.html shows it."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    def work() -> None:
        extractor = RadiomicsFeatureExtractor(str(folder / PARAMETERS))
        for case in range(cases):
            result = extractor.execute(str(folder / f"{case}.nii.gz"), str(folder / "gland.nii.gz"))
            values = {k: float(v) for k, v in result.items() if not k.startswith("diagnostics")}
            (folder / f"plain-{case}.json").write_text(json.dumps(values))

    return work


def our_call(folder: Path, cases: int, workers: int, cache: Path) -> Callable[[], None]:
    """The call behind ``python -m experiments.radiomics``."""
    from lens.cohort import read_manifest
    from lens.radiomics.cohort_features import extract_cohort
    from lens.radiomics.engine import pyradiomics
    from lens.radiomics.parameters import load_parameters

    pyradiomics()

    def work() -> None:
        table, errors = extract_cohort(
            read_manifest(folder / f"cohort-{cases}.csv"),
            load_parameters({"t2": folder / PARAMETERS}),
            cache=cache,
            spacing_mm=SPACING_MM,
            workers=workers,
            progress=False,
        )
        if errors or len(table) != cases:
            raise RuntimeError(f"{errors}")
        table.to_json(folder / f"ours-{workers}.json", orient="records", double_precision=15)

    return work


def largest_difference(folder: Path) -> float:
    """Largest relative difference between the plain loop's values and ours, of the first case."""
    plain = json.loads((folder / "plain-0.json").read_text())
    ours = json.loads((folder / "ours-1.json").read_text())[0]
    pairs = np.array([(value, ours[f"t2.gland.{name}"]) for name, value in plain.items()])
    scale = np.maximum(np.abs(pairs).max(axis=1), 1e-12)
    return float((np.abs(pairs[:, 0] - pairs[:, 1]) / scale).max())


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Ratios to the plain loop round by round: median, smallest and largest."""
    made: dict[str, Any] = {}
    for way in WAYS[1:]:
        for kind, name in (("speed", "cases_per_minute"), ("memory", "peak_mb")):
            ours, plain = ([run[name] for run in runs[each]] for each in (way, "plain"))
            median, low, high = (round(value, 3) for value in harness.ratio(ours, plain))
            made[f"{kind}, {way}"] = {"median": median, "range": [low, high]}
    return made


def report(results: dict[str, Any]) -> None:
    runs = results["runs"]
    print(f"\n{results['case']}, load {results['load']}")
    print(f"largest relative difference of a value to the plain loop: {results['difference']:.1e}")
    for way in WAYS:
        rates = [made["cases_per_minute"] for made in runs[way]]
        peaks = [made["peak_mb"] for made in runs[way]]
        print(f"{way:12} {np.median(rates):7.2f} cases a minute, peak {max(peaks):6.0f} MB")
    for way, bar in BARS.items():
        ratio = results[f"speed, {way}"]
        print(f"{way}: {ratio['median']} x the plain loop {ratio['range']}, bar {bar}")
    ratio = results["memory, one worker"]
    print(f"one worker: {ratio['median']} of its memory {ratio['range']}, bar {MEMORY_BAR}")
    ratio = results["memory, two workers"]
    print(f"two workers and the job together: {ratio['median']} of its memory {ratio['range']}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        import tyro

        main(tyro.cli(Config))
