"""The benchmark of pre-training: its phantoms, and what it makes of made-up results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.few_labels_data import Sizes, Volumes, prepare, truth
from benchmarks.few_labels_summary import TARGETS, merged, part_name, plan, summarise, table
from lens.cohort.factor_phantom import draw_labels, draw_masks, draw_volumes

COUNTS = (60, 240)
GAINS = {"lesion_grade": 0.1, "texture_grade": -0.2, "volume_ml": 0.05, "lesion": -0.1}


def made_up(seeds: tuple[int, ...]) -> dict[str, Any]:
    """Runs in which pre-training adds `GAINS` at 60 labels and a tenth of them at 240."""
    runs: dict[str, Any] = {}
    for seed in seeds:
        runs[f"seed-{seed}/pretraining"] = {
            "masked_loss_start": 1.0,
            "masked_loss_end": 0.5 + 0.1 * seed,
            "epochs": 7,
        }
        for target, gain in GAINS.items():
            for count, share in zip(COUNTS, (1, 0.1), strict=True):
                for start, added in (("random", 0.0), ("pretrained", share * gain)):
                    name = part_name(seed, target, count, start, "full")
                    runs[name] = {"score": 0.6 + 0.01 * seed + added, "chance": 0.5}
    return runs


def test_differences_are_pretrained_minus_random_within_a_seed() -> None:
    summary = summarise(made_up((0, 1, 2)), COUNTS)
    for target, gain in GAINS.items():
        row = summary["targets"][target]["full"]["60"]
        assert row["difference"]["mean"] == pytest.approx(gain)
        assert row["difference"]["sd"] == pytest.approx(0, abs=1e-9)
        assert row["random"]["values"] == [0.6, 0.61, 0.62]
        assert row["helped"] == (3 if gain > 0 else 0)
        smaller = summary["targets"][target]["full"]["240"]["difference"]["mean"]
        assert smaller == pytest.approx(gain / 10)
        assert summary["targets"][target]["frozen"] == {}
    assert summary["pretraining"]["masked_loss_end"]["mean"] == pytest.approx(0.6)


def test_the_three_main_tasks_are_counted_by_seed() -> None:
    runs = made_up((0, 1, 2))
    runs[part_name(1, "volume_ml", 60, "pretrained", "full")]["score"] = 0.0
    found = summarise(runs, COUNTS)["main"]["full"]
    # The texture's grade is none of the three.
    assert found["60"]["helped_in_every_seed"] == ["lesion_grade"]
    assert found["60"]["helped_of_three"] == {"0": 2, "1": 1, "2": 2}
    assert found["240"]["helped_in_every_seed"] == ["lesion_grade", "volume_ml"]


def test_a_tie_does_not_help() -> None:
    runs = made_up((0,))
    runs[part_name(0, "lesion", 60, "pretrained", "full")]["score"] = 0.6
    assert summarise(runs, COUNTS)["targets"]["lesion"]["full"]["60"]["helped"] == 0


def test_a_run_that_was_cut_off_counts_whole_pairs_only() -> None:
    runs = made_up((0, 1))
    del runs[part_name(1, "lesion_grade", 60, "pretrained", "full")]
    for start in ("random", "pretrained"):
        for target in TARGETS:
            for seed in (0, 1):
                del runs[part_name(seed, target, 240, start, "full")]
    summary = summarise(runs, COUNTS)
    row = summary["targets"]["lesion_grade"]["full"]["60"]
    assert row["seeds"] == [0]
    assert row["random"]["sd"] is None
    # One of two seeds is missing: no word of every seed.
    assert summary["main"]["full"]["60"]["helped_in_every_seed"] == ["volume_ml"]
    assert list(summary["targets"]["lesion"]["full"]) == ["60"]
    shown = table(summary)
    assert (
        "| lesion_grade (auc; 0.50) | full | 60 | 0.600 | 0.700 | +0.100 | +0.100 | 1 of 1 |"
        in (shown.splitlines())
    )


def test_records_of_single_seeds_are_put_together() -> None:
    def record(seed: int, **changes: Any) -> dict[str, Any]:
        config = {"seeds": [seed], "counts": [60, 240], "epochs": 8} | changes
        return {"machine": "m", "config": config, "summary": {}, "runs": made_up((seed,))}

    facts, runs = merged([record(0), record(1), record(2)])
    assert runs == made_up((0, 1, 2))
    assert facts["config"]["seeds"] == [0, 1, 2]
    with pytest.raises(SystemExit, match="different settings"):
        merged([record(0), record(1, epochs=4)])
    with pytest.raises(SystemExit, match=r"two of the records have seed-1/"):
        merged([record(1), record(1)])


def test_the_most_telling_parts_come_first_and_pairs_stay_together() -> None:
    parts = plan((120, 60, 960, 240))
    assert len(parts) == len(set(parts)) == 64
    assert {part.count for part in parts[:8]} == {120}
    assert "texture_grade" not in {part.target for part in parts[8:26]}, "the main tasks first"
    assert [part.way for part in parts] == ["full"] * 32 + ["frozen"] * 32
    for random, pretrained in zip(parts[::2], parts[1::2], strict=True):
        assert (random.start, pretrained.start) == ("random", "pretrained")
        assert random._replace(start="pretrained") == pretrained


def test_the_sets_share_no_phantom_and_are_those_of_the_generator(tmp_path: Path) -> None:
    sizes = Sizes(3, 2, 2, 4, 1, (24, 32, 32), (2.0, 2.0, 2.0), seed=5)
    for name, indices in (("labelled", range(7)), ("pool", range(7, 12))):
        assert sizes.indices(name) == indices
        prepare(tmp_path / name, sizes, name, processes=1)
        volumes = Volumes(tmp_path / name)
        np.testing.assert_array_equal(volumes[np.arange(len(volumes))], draw_volumes(indices, 5))
    labels = draw_labels(range(7), 5)["lesion_grade"]
    np.testing.assert_array_equal(truth(tmp_path / "labelled", "lesion_grade"), labels)
    lesions = draw_masks(range(7), 5, roi="lesion")
    np.testing.assert_array_equal(truth(tmp_path / "labelled", "lesion"), lesions)
    assert [sizes.rows(part).tolist() for part in ("train", "val", "test", "pool", "pool_val")] == [
        [0, 1, 2], [3, 4], [5, 6], [0, 1, 2, 3], [4],
    ]  # fmt: skip


def test_finished_phantoms_are_drawn_again_only_for_other_settings(tmp_path: Path) -> None:
    sizes = Sizes(1, 1, 1, 1, 1, (24, 32, 32), (2.0, 2.0, 2.0), seed=5)
    prepare(tmp_path, sizes, "pool", processes=1)
    first = np.load(tmp_path / "volumes.npy")
    np.save(tmp_path / "volumes.npy", np.zeros_like(first))
    prepare(tmp_path, sizes, "pool", processes=1)
    assert not np.load(tmp_path / "volumes.npy").any()
    prepare(tmp_path, replace(sizes, seed=6), "pool", processes=1)
    other = np.load(tmp_path / "volumes.npy")
    assert other.any()
    assert not np.array_equal(other, first)
