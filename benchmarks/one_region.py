"""Features of one region from images in memory: processor time, ours against PyRadiomics.

``python -m benchmarks.one_region [--t2 FILE --adc FILE --dwi FILE --gland FILE --lesion FILE]``

The 837 features of the gland and of the lesion of one patient in T2, ADC and DWI at
0.5 x 0.5 x 1.0 mm, by the parameter files of the package, read as a user's own, so that T2 and DWI
are normalised over the whole image. Ours, PyRadiomics with ``preCrop`` (and a padding of 10 voxels)
and plain PyRadiomics take turns in one process and one thread, after a call of each that warms up.
Writes ``benchmarks/results/one_region.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tyro

from benchmarks import harness
from benchmarks.radiomics import PACKAGES, PADDING, SPACING_MM, largest_relative

OURS, CROPPED, PLAIN = "ours", "preCrop", "plain"


@dataclass(frozen=True)
class Config:
    """Times the features of one region at a time."""

    t2: Path | None = None
    """T2 image of a real study; a phantom by default."""
    adc: Path | None = None
    """Its ADC map."""
    dwi: Path | None = None
    """Its high-b image."""
    gland: Path | None = None
    """Its gland mask."""
    lesion: Path | None = None
    """Its lesion mask."""
    turns: int = 3
    """Calls of each way and region."""
    modalities: tuple[str, ...] = ("t2", "adc", "dwi")
    """Of those, which."""
    regions: tuple[str, ...] = ("gland", "lesion")
    """Of those, which."""
    ways: tuple[str, ...] = (OURS, CROPPED, PLAIN)
    """What takes turns; ours first."""
    out: Path = harness.RESULTS / "one_region.json"
    """Where the figures go."""


def main(config: Config) -> None:
    """Measures region by region, prints the table and writes the results."""
    from lens.radiomics.engine import one_thread

    images, masks = read_study(config)
    rows = []
    with one_thread():
        for modality in config.modalities:
            for region in config.regions:
                found = measured(config, modality, images[modality], masks[region])
                rows.append({"region": f"{modality}, {region}"} | found)
                print(rows[-1], flush=True)
    show(rows, config.ways)
    harness.record(config.out, harness.facts(config, *PACKAGES) | {"rows": rows})


def read_study(config: Config) -> tuple[Mapping[str, sitk.Image], Mapping[str, sitk.Image]]:
    """Images and masks of the patient on one grid."""
    from lens.cohort import CaseFiles, read_case
    from lens.cohort.geometry import sample, sample_mask, target_grid
    from lens.cohort.phantom import phantom

    given = {name: getattr(config, name) for name in ("t2", "adc", "dwi", "gland", "lesion")}
    paths = {name: path for name, path in given.items() if path is not None}
    if len(paths) not in (0, len(given)):
        raise SystemExit("a real study needs --t2, --adc, --dwi, --gland and --lesion")
    if paths:
        shown = {name: paths.pop(name) for name in ("t2", "adc", "dwi")}
        case = read_case(CaseFiles("patient", None, shown, paths, {}, None), spacing_mm=SPACING_MM)
        return case.images, case.masks
    made = next(
        each for each in (phantom(index, 0) for index in range(99)) if "lesion" in each.masks
    )
    grid = target_grid(made.images["t2"], SPACING_MM)
    images = {name: sample(image, grid) for name, image in made.images.items()}
    return images, {name: sample_mask(mask, grid) for name, mask in made.masks.items()}


def measured(config: Config, modality: str, image: sitk.Image, mask: sitk.Image) -> dict[str, Any]:
    """Processor seconds of each way, their ratios to ours, and how far values differ at most."""
    file = Path(str(files("lens.radiomics"))) / f"{modality}.yaml"
    every = ways(file, image, mask)
    calls = {way: every[way] for way in config.ways}
    values = {way: call() for way, call in calls.items()}
    turns = harness.take_turns(calls, config.turns)
    row: dict[str, Any] = {"voxels": int(sitk.GetArrayViewFromImage(mask).sum())}
    for way in config.ways:
        found = turns.row(way, OURS)
        row |= {way: found["processor_median"], f"{way}_min": found["processor_min"]}
        if way != OURS:
            names = ("median", "low", "high")
            row[f"{way}_over_ours"] = [found[f"processor_to_{OURS}_{name}"] for name in names]
            row[f"difference_to_{way}"] = largest_relative(values[way], values[OURS])
    return row


def ways(
    file: Path, image: sitk.Image, mask: sitk.Image
) -> dict[str, Callable[[], dict[str, float]]]:
    """The ways to the features of a region, by name."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    from lens.radiomics.extract import roi_features
    from lens.radiomics.parameters import read_parameters

    ours, plain, cropped = (
        read_parameters(file),
        *(RadiomicsFeatureExtractor(str(file)) for _ in range(2)),
    )
    cropped.settings |= {"preCrop": True, "padDistance": PADDING}

    def theirs(extractor: Any) -> dict[str, float]:
        found = extractor.execute(image, mask)
        return {k: float(v) for k, v in found.items() if not k.startswith("diagnostics")}

    return {
        OURS: lambda: roi_features(image, mask, ours),
        CROPPED: lambda: theirs(cropped),
        PLAIN: lambda: theirs(plain),
    }


def show(rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Prints the table in Markdown."""
    peers = [name for name in names if name != OURS]
    heads = ["region", "voxels", *names, *(f"{name}, over ours" for name in peers)]
    print(f"| {' | '.join(heads)} | largest difference |")
    print("|---" * (len(heads) + 1) + "|")
    for row in rows:
        cells = [row["region"], f"{row['voxels']:,}", *(f"{row[name]:.2f}" for name in names)]
        cells += [str(harness.Ratio(*row[f"{name}_over_ours"])) for name in peers]
        most = max((row[f"difference_to_{name}"] for name in peers), default=np.nan)
        print(f"| {' | '.join(cells)} | {most:.0e} |")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
