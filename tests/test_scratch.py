"""Arrays beyond the bound live in files, and nothing else changes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lens.scratch import Scratch, release
from lens.settings import SweepConfig
from lens.verdicts.estimates import delta_r2, r2_score
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from tests.planted import plant

MAPS, PAGES = Path("/proc/self/maps"), Path("/proc/self/pagemap")
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(folder: Path) -> int:
    """Bytes in memory of the files in a folder that this process has mapped.

    What ``Rss`` of ``/proc/self/smaps`` says, which takes a tenth of a second in a process with
    many mappings: Linux walks through the pages of all of them.
    """
    pages = 0
    with PAGES.open("rb", buffering=0) as table:
        for line in MAPS.read_text("utf-8").splitlines():
            if str(folder) in line:
                first, end = (int(each, 16) // PAGE for each in line.split(" ", 1)[0].split("-"))
                table.seek(8 * first)
                entries = np.frombuffer(table.read(8 * (end - first)), np.uint64)
                pages += int(np.count_nonzero(entries >> 63))  # the highest bit: is in memory
    return pages * PAGE


def test_keeps_up_to_the_bound_and_maps_what_is_beyond(tmp_path: Path) -> None:
    scratch, array = Scratch(100.0, tmp_path), np.arange(10.0)
    assert scratch.keep(array) is array
    mapped = scratch.keep(array)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, array)
    mapped[3] = 7
    assert mapped.sum() == array.sum() + 4
    assert not list(tmp_path.iterdir()), "the file has a name"


@pytest.mark.skipif(not PAGES.exists(), reason="what is in memory is told by Linux alone")
def test_released_arrays_take_no_memory_and_keep_their_values(tmp_path: Path) -> None:
    values = np.arange(1e5)
    mapped = Scratch(0.0, tmp_path).keep(np.zeros(len(values)))
    mapped[:] = values
    assert resident(tmp_path) >= values.nbytes
    view = mapped[1:]
    release(view, values)
    assert resident(tmp_path) == 0
    np.testing.assert_array_equal(mapped, values)
    kept = Scratch(0.0, tmp_path).keep(values)
    release(mapped)
    assert resident(tmp_path) == 0
    np.testing.assert_array_equal(kept, values)


@pytest.mark.skipif(not PAGES.exists(), reason="what is in memory is told by Linux alone")
def test_scores_in_files_stay_out_of_memory(tmp_path: Path) -> None:
    planted = plant(n=60, d=12)
    folds = make_folds(np.arange(60), 3, 1, 0)
    found = held_out_errors(
        planted.pre, {"t": planted.ft}, planted.radiomics.iloc[:, 1:9].to_numpy(), np.arange(60),
        folds, None, scratch=Scratch(0.0, tmp_path),
    )  # fmt: skip
    assert resident(tmp_path) == 0
    before, after = found.probes["one_scale"]["pre"], found.probes["one_scale"]["t"]
    delta_r2(before, after, found.baseline, np.arange(60))
    r2_score(before, found.baseline, np.arange(60))
    assert resident(tmp_path) == 0
    assert before.error.any()
    assert resident(tmp_path) > 0


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
