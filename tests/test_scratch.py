"""Arrays beyond the bound live in files, and nothing else changes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lens.scratch import Scratch
from lens.settings import SweepConfig
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from tests.planted import plant


def test_keeps_up_to_the_bound_and_maps_what_is_beyond(tmp_path: Path) -> None:
    scratch, array = Scratch(100.0, tmp_path), np.arange(10.0)
    assert scratch.keep(array) is array
    mapped = scratch.keep(array)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, array)
    mapped[3] = 7
    assert mapped.sum() == array.sum() + 4
    assert not list(tmp_path.iterdir()), "the file has a name"


def test_scores_in_files_equal_those_in_memory(tmp_path: Path) -> None:
    planted = plant(n=60, d=12)
    r = planted.radiomics.iloc[:, 1:9].to_numpy()
    folds = make_folds(np.arange(60), 3, 1, 0)
    config = SweepConfig(hidden=4, l1=(0.0,), l2=(0.0,), epochs=3)
    memory, files = (
        held_out_errors(
            planted.pre, {"t": planted.ft}, r, np.arange(60), folds, config, scratch=scratch
        )
        for scratch in (Scratch(), Scratch(0.0, tmp_path))
    )
    assert isinstance(files.probes["per_channel"]["t"].error, np.memmap)
    for view, sides in memory.probes.items():
        for side, scores in sides.items():
            for own_rows, other in zip(scores, files.probes[view][side], strict=True):
                np.testing.assert_array_equal(own_rows, other)
    for key, scores in memory.mlp.items():
        for own_rows, other in zip(scores, files.mlp[key], strict=True):
            np.testing.assert_array_equal(own_rows, other)


def test_a_disk_without_room_is_said_and_not_met_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing to a mapped file on a full disk would kill the process."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as failed:
        Scratch(0.0, tmp_path).keep(np.zeros(9))
    assert failed.value.filename == str(tmp_path)
