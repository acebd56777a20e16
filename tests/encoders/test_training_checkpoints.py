"""A training goes on from exactly what was written, or says that it cannot."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from encoders.training_checkpoints import TrainingRecord, restore_training, save_training
from lens.errors import InputError

STATE = {"kernel": jnp.arange(6.0).reshape(2, 3), "count": jnp.int32(4)}
BEST = {"kernel": np.ones((2, 3), np.float32)}
RECORD = TrainingRecord({"settings": {"seed": 1}}, 4, [1.0, 2.0, 3.0, 4.0], [], [], 1.5)
START = TrainingRecord({"settings": {"seed": 1}})


def write(folder, record, arrays, progress):
    """A checkpoint by the writer of the format, with what the caller wants in it."""
    with ocp.CheckpointManager(folder.absolute()) as manager:
        manager.save(
            record.step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress)
            ),
        )


def read(folder):
    """Arrays and progress of the checkpoint in a folder."""
    with ocp.CheckpointManager(folder.absolute()) as manager:
        found = manager.restore(
            manager.latest_step(),
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
            ),
        )
    return dict(found.arrays), dict(found.progress)


def test_what_was_written_comes_back(tmp_path, caplog):
    save_training(tmp_path / "a", STATE, BEST, RECORD)
    state, best, record = restore_training(tmp_path / "a", STATE, BEST, START)
    np.testing.assert_array_equal(state["kernel"], STATE["kernel"])
    assert state["count"] == 4
    np.testing.assert_array_equal(best["kernel"], BEST["kernel"])
    assert record == RECORD
    assert not [r for r in caplog.records if r.name.startswith("encoders")]


def test_changed_contents_are_refused_and_without_a_hash_noted(tmp_path, caplog):
    save_training(tmp_path / "a", STATE, BEST, RECORD)
    arrays, progress = read(tmp_path / "a")
    assert len(progress.pop("content_sha256")) == 64
    write(tmp_path / "old", RECORD, arrays, progress)
    restore_training(tmp_path / "old", STATE, BEST, START)
    assert "written before checkpoints held a hash" in caplog.text

    name = next(name for name in arrays if "kernel" in name)
    arrays[name] = np.nextafter(np.asarray(arrays[name]), 9, dtype=np.float32)
    _, progress = read(tmp_path / "a")
    write(tmp_path / "changed", RECORD, arrays, progress)
    with pytest.raises(InputError, match=r"changed: .*not those that were written\); delete"):
        restore_training(tmp_path / "changed", STATE, BEST, START)


def test_a_checkpoint_without_the_score_of_the_start_is_refused(tmp_path):
    save_training(tmp_path / "a", STATE, BEST, RECORD)
    arrays, progress = read(tmp_path / "a")
    assert progress.pop("start") == 1.5
    write(tmp_path / "old", RECORD, arrays, progress)
    with pytest.raises(InputError, match=r"old: .*earlier version.*delete the folder"):
        restore_training(tmp_path / "old", STATE, BEST, START)
