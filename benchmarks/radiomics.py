"""Radiomics: processor time, cases per minute and peak memory, ours against PyRadiomics' ways.

``python -m benchmarks.radiomics [--t2 FILE --gland FILE]``

One T2 image with a gland of real size, resampled to 0.5 x 0.5 x 1.0 mm, in copies that differ by a
little noise. Several ways to the same 837 features of each copy, each in processes of its own,
interleaved in rounds: the loop of PyRadiomics' documentation (whole image, default threads); the
same with ``preCrop`` and a padding of 10 voxels, as who knows it runs it; that in a single-threaded
process per core; and `extract_cohort` of `lens.radiomics` with one worker and with one per core.
The time is that of the loop or call, starting the workers, hashing, reading and writing included,
importing PyRadiomics not. Processor time is of all processes. Memory is the largest sum of
resident memory over the process and its children. With several numbers of cases, the difference of
what two jobs cost says what one more case does, without what a job costs once. At the end the parts
of ours are timed, in a process of their own. Writes ``benchmarks/results/radiomics.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks import harness
from lens.allocator import freed_memory_kept
from lens.machine import cpu_count

SPACING_MM = (0.5, 0.5, 1.0)
PACKAGES = ("pyradiomics-bhklab", "SimpleITK", "numpy", "scipy", "distributed")
PARAMETERS = "t2.yaml"
"""Of the package."""

PADDING = 10
"""Voxels that ``preCrop`` leaves around the mask: more than any filter reaches."""


@dataclass(frozen=True)
class Way:
    """How the features are had.

    Attributes:
        processes: at work; single-threaded where there are several of PyRadiomics.
        ours: by `extract_cohort`, else by PyRadiomics.
        crop: with ``preCrop``.
    """

    processes: int = 1
    ours: bool = False
    crop: bool = False


PLAIN, CROPPED, OURS = "plain loop", "cropped loop", "ours"
WAYS = {
    OURS: Way(ours=True),
    PLAIN: Way(),
    CROPPED: Way(crop=True),
    "ours, a worker per core": Way(cpu_count(), ours=True),
    "cropped, a process per core": Way(cpu_count(), crop=True),
}


@dataclass(frozen=True)
class Config:
    """Times our extraction against PyRadiomics."""

    t2: Path | None = None
    """An image; a phantom in a field of view of 192 x 192 x 60 mm by default."""

    gland: Path | None = None
    """Its mask, on its grid."""

    rounds: int = 3
    """Interleaved repetitions."""

    cases: tuple[int, ...] = (2,)
    """Cases a round of each process; for each number of them a job."""

    ways: tuple[str, ...] = tuple(WAYS)
    """Ours first."""

    out: Path = harness.RESULTS / "radiomics.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Runs all rounds, prints the table and writes the results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = max(WAYS[way].processes for way in config.ways)
        made = write_cases(folder, most * max(config.cases), config.t2, config.gland)
        results: dict[str, Any] = harness.facts(config, *PACKAGES) | {"case": made}
        turns = {cases: harness.Turns() for cases in config.cases}
        peaks: dict[tuple[int, str], float] = {}
        for index, cases in product(range(config.rounds), config.cases):
            for way in config.ways:
                cost, peak = run(folder, way, cases, index)
                turns[cases].add(way, cost)
                peaks[cases, way] = max(peaks.get((cases, way), 0.0), peak)
                print(f"{way}: {cost.seconds:.1f} s, {cost.processor:.1f} of the processor a case")
            results["rows"] = [
                row_of(turns[cases], cases, way, peaks[cases, way])
                for cases, way in product(config.cases, config.ways)
                if way in turns[cases].costs
            ]
            results["one_more_case"] = one_more_case(results["rows"])
            results["largest_difference"] = largest_difference(folder, config.ways)
            harness.record(config.out, results)
        spent = json.loads(
            harness.run_process("-m", __spec__.name, "parts", folder, min(config.cases)).output
        )
        harness.record(config.out, {**results, "parts_of_ours": spent})
    for row in results["rows"]:
        print(
            f"{row['cases']:3} cases, {row['variant']:28} {row['processor_median']:6.2f} s of the "
            f"processor a case, {row['processor_to_ours_median']:.2f} of ours; "
            f"{row['cases_per_minute']:6.2f} cases a minute at best; {row['peak_mib']:.0f} MiB"
        )
    for way, seconds in results["one_more_case"].items():
        print(f"one more case, {way:28} {seconds:6.3f} s of the processor")
    print(f"largest relative difference of a value: {results['largest_difference']}")
    told = ", ".join(f"{part} {seconds:.2f}" for part, seconds in spent.items())
    print(f"parts of ours, seconds of the processor: {told}")


def row_of(turns: harness.Turns, cases: int, way: str, peak: float) -> dict[str, Any]:
    """What a case costs in jobs of so many a process."""
    fastest = {"cases_per_minute": 60 / min(turns.seconds[way]), "peak_mib": peak}
    return {"cases": cases} | turns.row(way, OURS) | fastest


def one_more_case(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Processor seconds that a case more costs, by way: between the least and the most of cases."""
    jobs: dict[str, dict[int, float]] = {}
    for row in rows:
        jobs.setdefault(row["variant"], {})[row["cases"]] = row["cases"] * row["processor_median"]
    return {
        way: (spent[max(spent)] - spent[min(spent)]) / (max(spent) - min(spent))
        for way, spent in jobs.items()
        if len(spent) > 1
    }


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


def run(folder: Path, way: str, cases: int, index: int) -> tuple[harness.Cost, float]:
    """One way in a process of its own: cost of a case, and peak memory in MiB."""
    done = harness.run_process("-m", __spec__.name, "child", way, folder, cases, index)
    count = cases * WAYS[way].processes
    seconds, processor = (float(value) / count for value in done.output.split()[-2:])
    return harness.Cost(seconds, processor), done.peak_mib


def child(name: str, folder: Path, cases: int, index: int) -> None:
    """Does the work and prints its seconds, and those of the processor."""
    way = WAYS[name]
    work = (
        our_call(folder, cases, way.processes, folder / f"cache-{way.processes}-{cases}-{index}")
        if way.ours
        else loops(folder, cases, way)
    )
    print(*harness.cost_of(work))


def loops(folder: Path, cases: int, way: Way) -> Callable[[], object]:
    """The loop of PyRadiomics' documentation over each process's share of the cases."""
    shares = [range(n * cases, (n + 1) * cases) for n in range(way.processes)]
    if way.processes == 1:
        import radiomics.featureextractor  # noqa: F401  # not timed

        return lambda: loop(folder, shares[0], way.crop)
    os.environ |= dict.fromkeys(("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS"), "1")
    pool = ProcessPoolExecutor(way.processes, get_context("spawn"))
    for started in [pool.submit(loop, folder, range(0), way.crop) for _ in shares]:
        started.result()
    return lambda: [
        job.result() for job in [pool.submit(loop, folder, share, way.crop) for share in shares]
    ]


def loop(folder: Path, cases: range, crop: bool) -> None:
    """As https://pyradiomics.readthedocs.io/en/latest/usage.html shows it."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    extractor = RadiomicsFeatureExtractor(str(folder / PARAMETERS))
    if crop:
        extractor.settings |= {"preCrop": True, "padDistance": PADDING}
    for case in cases:
        result = extractor.execute(str(folder / f"{case}.nii.gz"), str(folder / "gland.nii.gz"))
        values = {k: float(v) for k, v in result.items() if not k.startswith("diagnostics")}
        name = f"{CROPPED if crop else PLAIN}-{case}.json"
        (folder / name).write_text(json.dumps(values))


def our_call(folder: Path, cases: int, workers: int, cache: Path) -> Callable[[], None]:
    """The call behind ``python -m experiments.radiomics``."""
    from lens.cohort import read_manifest
    from lens.radiomics.cohort_features import extract_cohort
    from lens.radiomics.engine import pyradiomics
    from lens.radiomics.parameters import load_parameters

    pyradiomics()
    count = cases * workers

    def work() -> None:
        cohort = read_manifest(folder / f"cohort-{count}.csv")
        table, errors = extract_cohort(
            cohort,
            load_parameters({"t2": folder / PARAMETERS}, cohort.kinds),
            cache=cache,
            spacing_mm=SPACING_MM,
            workers=workers,
            progress=False,
        )
        if errors or len(table) != count:
            raise RuntimeError(f"{errors}")
        table.to_json(folder / f"{OURS}-0.json", orient="records", double_precision=15)

    return work


@freed_memory_kept()
def parts(folder: Path, cases: int) -> dict[str, float]:
    """Processor seconds of starting a process that extracts, and of what a case costs in it."""
    from lens.cohort import read_case, read_manifest
    from lens.cohort.contents import image_hash
    from lens.radiomics import extract_part  # noqa: F401  # what a worker imports
    from lens.radiomics.compiled import load_alone
    from lens.radiomics.engine import pyradiomics
    from lens.radiomics.extract import extract_regions, margin_needed
    from lens.radiomics.parameters import load_parameters

    load_alone()
    pyradiomics()
    started = time.process_time()
    parameters = load_parameters({"t2": folder / PARAMETERS})
    margin = margin_needed({"t2": "mr"}, parameters, SPACING_MM)
    spent: dict[str, list[float]] = {"hashing": [], "reading": [], "features": []}
    for files_of in read_manifest(folder / f"cohort-{cases}.csv").cases:
        at = [time.process_time()]
        for path in (*files_of.images.values(), *files_of.masks.values()):
            image_hash(path)
        at.append(time.process_time())
        case = read_case(files_of, spacing_mm=SPACING_MM, margin=margin)
        at.append(time.process_time())
        extract_regions(case, parameters)
        at.append(time.process_time())
        for part, seconds in zip(spent, np.diff(at), strict=True):
            spent[part].append(float(seconds))
    return {"starting": started} | {part: min(each) for part, each in spent.items()}


def largest_difference(folder: Path, ways: tuple[str, ...]) -> dict[str, float]:
    """Largest relative difference between PyRadiomics' values and ours, of the first case."""
    ours = json.loads((folder / f"{OURS}-0.json").read_text())[0]
    found = {}
    for way in (PLAIN, CROPPED):
        if way not in ways:
            continue
        theirs = json.loads((folder / f"{way}-0.json").read_text())
        found[way] = largest_relative(theirs, {n: ours[f"t2.gland.{n}"] for n in theirs})
    return found


def largest_relative(theirs: Mapping[str, float], ours: Mapping[str, float]) -> float:
    """Largest relative difference between two values of one name."""
    pairs = np.array([(value, ours[name]) for name, value in theirs.items()])
    scale = np.maximum(np.abs(pairs).max(axis=1), 1e-12)
    return float((np.abs(pairs[:, 0] - pairs[:, 1]) / scale).max())


if __name__ == "__main__":
    if sys.argv[1:2] == ["parts"]:
        print(json.dumps(parts(Path(sys.argv[2]), int(sys.argv[3]))))
    elif sys.argv[1:2] == ["child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        import tyro

        main(tyro.cli(Config, description=__doc__))
