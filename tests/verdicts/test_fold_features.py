"""Features scored in blocks say what they say all at once, in bounded memory and no more fits."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.probes import ridge
from lens.scratch import Scratch
from lens.settings import Rules, SweepConfig
from lens.verdicts import fold_fits, held_out
from lens.verdicts.clusters import cluster_features
from lens.verdicts.confounds import Confounds
from lens.verdicts.evidence import task_estimates
from lens.verdicts.fold_features import FeatureBlocks
from lens.verdicts.fold_fits import LEAST_COLUMNS, FoldFits, column_blocks
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import ProbeErrors, feature_bytes, held_out_errors
from lens.verdicts.judge import judge_estimates
from tests.test_scratch import PAGES, resident

N, K = 160, 2 * LEAST_COLUMNS + 20
PATIENTS = np.arange(N) // 2
"""Two studies a patient."""

RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 10))
AFTER = X * (np.arange(10) > 3)
R = X @ RNG.normal(size=(10, K)) * (np.arange(10) % 3 == 0)[np.arange(K) % 10] + X[:, [0]]
R += 0.5 * RNG.normal(size=(N, K))
R[RNG.random(R.shape) < 0.01] = np.nan
CONFIG = SweepConfig(hidden=4, l1=(0.0,), l2=(0.0,), epochs=2)


def blocks(scratch: Scratch, config: SweepConfig | None = CONFIG) -> FeatureBlocks:
    again = [AFTER + 0.1 * np.random.default_rng(seed).normal(size=X.shape) for seed in (1, 2)]
    return FeatureBlocks(
        X, {"t": AFTER}, PATIENTS, make_folds(PATIENTS, 3, 2, 0), config,
        retrained={"t": again},
        confounds=Confounds(
            adjust=pd.DataFrame({"v": X[:, 0]}),
            exposed={"t": PATIENTS < N // 4},
            sites=np.where(PATIENTS % 2, "a", "b"),
        ),
        scratch=scratch,
    )  # fmt: skip


def test_blocks_say_what_all_features_at_once_say(tmp_path: Path) -> None:
    """To rounding: a product of fewer columns may add up in another order."""
    tables = []
    for scratch in (Scratch(), Scratch(0.0, tmp_path)):
        each = blocks(scratch)
        assert len(each.blocks(K)) == (1 if scratch.limit else 3)
        found = each.estimate(R)["t"]
        estimates = task_estimates(found.estimates, found.retrained)
        judged = judge_estimates(
            estimates, cluster_features(np.nan_to_num(R)), Rules(flips=199),
            rows={("g", "odd"): np.arange(K) % 2 > 0},
        )  # fmt: skip
        tables.append((pd.concat([judged.features, found.confounds], axis=1), judged.levels))
    assert isinstance(estimates.change.influence.base, np.memmap)
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-12)
    assert (tables[0][0]["delta_r2"] < -0.1).any(), "nothing changed, nothing is tested"


def test_no_block_decomposes_an_embedding_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    plain = ridge.decompose

    def counted(rows: np.ndarray):
        shapes.append(rows.shape)
        return plain(rows)

    monkeypatch.setattr(ridge, "decompose", counted)
    counts = []
    for scratch in (Scratch(), Scratch(0.0, tmp_path)):
        shapes.clear()
        blocks(scratch, None).estimate(R)
        counts.append(len(shapes))
    assert counts[0] == counts[1] > 0


def test_decompositions_keep_within_a_quarter_of_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fits together: those of the verdicts, of the confounds and of other seeds."""
    arrays, plain = [], FoldFits._put

    def put(self: FoldFits, array: np.ndarray) -> np.ndarray:
        arrays.append(plain(self, array))
        return arrays[-1]

    monkeypatch.setattr(FoldFits, "_put", put)
    limit = 2.0 * LEAST_COLUMNS * feature_bytes(N, 1, mlp=False)
    wide = np.random.default_rng(1).normal(size=(N, 60))
    each = blocks(Scratch(limit, tmp_path), None)
    each = replace(each, x_pre=wide, x_ft={"t": wide[:, ::-1]}, retrained={"t": [wide + X[:, :1]]})
    assert len(each.blocks(K)) > 1
    each.estimate(R)
    in_memory = sum(a.nbytes for a in arrays if not isinstance(a, np.memmap))
    assert 0.2 * limit < in_memory <= 0.25 * limit
    assert sum(array.nbytes for array in arrays) > 0.5 * limit


@pytest.mark.skipif(not PAGES.exists(), reason="what is in memory is told by Linux alone")
def test_one_decomposition_at_a_time_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, plain = [], held_out._Scorer._add

    def add(self: held_out._Scorer, *args: Any) -> None:
        plain(self, *args)
        left.append(resident(tmp_path))

    monkeypatch.setattr(held_out._Scorer, "_add", add)
    blocks(Scratch(0.0, tmp_path), None).estimate(R)
    assert len(left) > 100
    assert max(left) == 0


def test_what_a_fold_of_a_block_took_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where all features are one block: small studies would only lose time."""
    calls = []
    monkeypatch.setattr(fold_fits, "give_back_memory", lambda: calls.append(1))
    for scratch, rounds in ((Scratch(), 0), (Scratch(0.0, tmp_path), 4)):
        calls.clear()
        each = FeatureBlocks(
            X, {"t": AFTER}, PATIENTS, make_folds(PATIENTS, 2, 1, 0), CONFIG, scratch=scratch
        )
        each.estimate(R)
        # Two folds each of the MLPs and of three blocks.
        assert len(calls) == 2 * rounds


def test_a_block_of_errors_keeps_within_its_bytes() -> None:
    each = feature_bytes(N, 1, mlp=True)
    found = held_out_errors(
        X, {"t": AFTER}, R[:, :3], PATIENTS, make_folds(PATIENTS, 2, 1, 0), CONFIG
    )
    kinds = [*(e for sides in found.probes.values() for e in sides.values()), *found.mlp.values()]
    arrays = [found.baseline, *(array for errors in kinds for array in errors)]
    assert len(arrays) == 1 + len(ProbeErrors._fields) * len(kinds)
    assert sum(array.nbytes for array in arrays) == 3 * each
    widths = [c.stop - c.start for c in column_blocks(1000, each, 300.0 * each)]
    assert sum(widths) == 1000
    assert max(widths) * each <= 300 * each
    assert max(widths) - min(widths) <= 1
    assert len([*column_blocks(1000, each, 0.0)]) == -(-1000 // LEAST_COLUMNS)
    assert [*column_blocks(7, each, np.inf)] == [slice(0, 7)]


def test_memory_hardly_grows_with_the_features(tmp_path: Path) -> None:
    """Beyond the table itself: without blocks the errors of a feature are 25 columns and more."""
    peaks = []
    for copies in (1, 3):
        r = np.tile(R, copies)
        tracemalloc.start()
        FeatureBlocks(
            X, {"t": AFTER}, PATIENTS, make_folds(PATIENTS, 2, 1, 0), None,
            scratch=Scratch(0.0, tmp_path),
        ).estimate(r)  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    more = 2 * R.nbytes
    assert peaks[1] - peaks[0] < 3.0 * more, [peak / R.nbytes for peak in peaks]


def test_clusters_need_the_pairs_twice_and_no_more() -> None:
    """Once for the distances, once for the linkage's own copy; of 8 bytes a pair."""
    r = np.random.default_rng(0).normal(size=(30, 1500))
    tracemalloc.start()
    found = cluster_features(r)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pairs = 1500 * 1499 / 2
    # The blocks of correlations, and the rows, come on top.
    assert peak < 8 * (2 * pairs + 1.5 * 512 * 1500), peak / 8 / pairs
    assert len(found.ids) == 1500
