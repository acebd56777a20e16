"""Counts of the compiled loops against counting one voxel after another, and how often they run."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from lens.radiomics import kernels
from lens.radiomics import matrices as ours
from lens.radiomics.classes import PERCENTS
from lens.radiomics.engine import pyradiomics
from lens.radiomics.extract import roi_features
from lens.radiomics.order import parted, percentile, places
from lens.radiomics.parameters import load_parameters, read_parameters
from tests.radiomics.phantoms import ellipsoid, image, texture

Voxel = tuple[int, ...]


def _shapes() -> dict[str, np.ndarray]:
    one = np.zeros((3, 4, 5), bool)
    one[1, 2, 3] = True
    slice_only, holes = np.zeros((4, 5, 6), bool), np.ones((5, 6, 7), bool)
    slice_only[2] = True
    holes[1:4:2, 1:5:2, 1:6:2] = False
    pieces = np.zeros((5, 6, 9), bool)
    pieces[:2, :3, :3] = pieces[3:, 3:, 6:] = True
    return {
        "one voxel": one,
        "one slice": slice_only,
        "to the border, with holes": holes,
        "two pieces": pieces,
    }


SHAPES = _shapes()


def neighbours(at: Voxel) -> list[Voxel]:
    steps = [step for step in product((-1, 0, 1), repeat=3) if any(step)]
    return [tuple(a + s for a, s in zip(at, step, strict=True)) for step in steps]


def zones(level: dict[Voxel, int]) -> Counter[tuple[int, int]]:
    """Level and size of each zone, by flooding it."""
    found: Counter[tuple[int, int]] = Counter()
    waiting = set(level)
    while waiting:
        start = waiting.pop()
        zone, edge = 1, [start]
        while edge:
            for other in neighbours(edge.pop()):
                if other in waiting and level[other] == level[start]:
                    waiting.remove(other)
                    edge.append(other)
                    zone += 1
        found[level[start], zone] += 1
    return found


@pytest.mark.parametrize("gray_levels", [1, 5, ours.MOST_LEVELS])
@pytest.mark.parametrize("name", SHAPES)
def test_counts_of_hostile_regions(name: str, gray_levels: int) -> None:
    mask = SHAPES[name]
    # Every second voxel of a larger array, in another order: not contiguous.
    rng = np.random.default_rng(len(name))
    picked = rng.integers(0, min(gray_levels, 5), mask.shape)
    array = np.zeros([2 * n for n in mask.shape[::-1]], np.int64)
    binned = array.T[::2, ::2, ::2]
    binned[:] = gray_levels - picked
    level = {tuple(map(int, at)): int(binned[tuple(at)]) for at in np.argwhere(mask)}
    made = ours.levels(binned, mask)

    near = [[level[n] for n in neighbours(at) if n in level] for at in level]
    here = list(level.values())
    alike = Counter(
        (a, sum(abs(a - b) <= 1 for b in others)) for a, others in zip(here, near, strict=True)
    )
    apart: Counter[int] = Counter()
    for a, others in zip(here, near, strict=True):
        apart[a] += abs(a - sum(others) / len(others)) if others else 0  # type: ignore[assignment]
    gldm, ngtdm = ours.gldm(made, gray_levels, 1)[0], ours.ngtdm(made, gray_levels)[0]
    assert {(a + 1, k): gldm[a, k] for a, k in np.argwhere(gldm)} == dict(alike)
    assert {a + 1: n for a, n in enumerate(ngtdm[:, 0]) if n} == dict(Counter(here))
    assert {a: ngtdm[a - 1, 1] for a in apart} == dict(apart)
    assert Counter(zip(*map(np.ndarray.tolist, ours.zone_sizes(made)), strict=True)) == zones(level)
    if gray_levels <= 5:
        _directions(made, level, gray_levels, max(mask.shape))


def _directions(made: ours.Levels, level: dict[Voxel, int], gray_levels: int, longest: int) -> None:
    glcm = ours.glcm(made, gray_levels)[0]
    runs = np.empty((gray_levels, longest, len(ours.DIRECTIONS)))
    kernels.runs(made.flat, made.inside, made.steps, runs)
    for index, step in enumerate(ours.DIRECTIONS):
        pairs: Counter[tuple[int, int]] = Counter()
        lengths: Counter[tuple[int, int]] = Counter()
        for at, value in level.items():
            there = tuple(a + s for a, s in zip(at, step, strict=True))
            if there in level:
                pairs[value, level[there]] += 1
            if level.get(tuple(a - s for a, s in zip(at, step, strict=True))) != value:
                length = 1
                while level.get(there) == value:
                    length += 1
                    there = tuple(a + s for a, s in zip(there, step, strict=True))
                lengths[value, length] += 1
        assert {
            (a + 1, b + 1): glcm[a, b, index] for a, b in np.argwhere(glcm[..., index])
        } == pairs
        found = runs[..., index]
        assert {(a + 1, k + 1): found[a, k] for a, k in np.argwhere(found)} == lengths


@pytest.mark.parametrize("size", [1, 2, 3, 10, 101, 2000])
@pytest.mark.parametrize("percent", [10.0, 25.0, 50.0, 75.0, 90.0])
def test_percentiles_are_those_of_numpy(size: int, percent: float) -> None:
    values = np.random.default_rng(size).normal(0, 1e3, size)
    assert percentile(np.sort(values), percent) == np.percentile(values, percent)
    # As well where nothing but what is read lies in its place: all else is reversed between.
    at = places(size, PERCENTS)
    ordered = np.sort(values)
    for first, last in pairwise([-1, *at, size]):
        ordered[first + 1 : last] = ordered[first + 1 : last][::-1]
    assert percentile(ordered, percent) == np.percentile(values, percent)
    assert (parted(values, PERCENTS)[at] == np.sort(values)[at]).all()


@pytest.mark.parametrize(
    "values",
    [
        np.full(50, 3.5),
        np.repeat([1.0, 2.0, 1e300], [40, 9, 1]),
        np.array([-1.7e308, 0.0, 1.7e308]),
        np.arange(20) * 5e-324,
        np.random.default_rng(0).standard_cauchy(10_000).astype(np.float32).astype(float),
        np.random.default_rng(1).integers(-5, 5, 10_000).astype(float),
    ],
    ids=["constant", "far away", "beyond the range", "tiny", "heavy tails", "ties"],
)
def test_values_are_put_in_their_places_however_they_lie(values: np.ndarray) -> None:
    at = places(values.size, PERCENTS)
    assert (parted(values, PERCENTS)[at] == np.sort(values)[at]).all()


@pytest.mark.parametrize("name", ["manhattan", "infinity"])
def test_a_users_weights_and_distances_give_what_pyradiomics_gives(tmp_path, name: str) -> None:
    file = tmp_path / "mine.yaml"
    extra = {"manhattan": "gldm_a: 2, distances: [1, 2]", "infinity": "force2D: true"}[name]
    file.write_text(
        f"setting: {{binWidth: 100, weightingNorm: {name}, {extra}}}\n"
        "imageType: {Original: {}}\n"
        "featureClass: {firstorder: , glcm: , glrlm: , glszm: , gldm: , ngtdm: }\n"
    )
    volume, mask = (
        image(texture(3), spacing=(0.5, 0.7, 3.0)),
        image(ellipsoid(), spacing=(0.5, 0.7, 3.0)),
    )
    theirs = pyradiomics().featureextractor.RadiomicsFeatureExtractor(str(file))
    expected = {n: float(v) for n, v in theirs.execute(volume, mask).items() if "diag" not in n}
    assert roi_features(volume, mask, read_parameters(file)) == expected


def test_an_image_is_ordered_and_counted_once(monkeypatch) -> None:
    """Work of an extraction: a pass of each kernel an image, one search of the ROI's voxels."""
    calls: Counter[str] = Counter()

    def counted(owner, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (calls.update([name]), real(*a, **k))[1])

    loops = ("pairs", "runs", "zones", "distances", "alike", "digitise")
    loops = (*loops, "margins", "pair_sums", "level_sums")
    for name in loops:
        counted(kernels, name)
    counted(ours, "levels")
    counted(np, "partition")
    counted(np, "sort")
    roi_features(image(texture(1)), image(ellipsoid()), load_parameters()["adc"])
    assert dict(calls) == dict.fromkeys((*loops, "levels", "partition"), 9)
