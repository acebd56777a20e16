"""What the real studies keep of encoders and edited images, and how it is put together again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from benchmarks.edits_real import _moved, summary
from benchmarks.real.edited import STUDIES, chosen
from benchmarks.real.gathered import by_layer
from benchmarks.real.pack import Pack, read_weights, rounded, write_weights
from benchmarks.real.train import Limits
from encoders import ConvNeXtV2, ConvNeXtV2Config
from encoders.encoder import parameters
from lens.files import write_arrays


def encoder(seed: int) -> ConvNeXtV2:
    layout = ConvNeXtV2Config(dims=3, depths=(1, 1), widths=(4, 8), strides=(2,), in_channels=1)
    return ConvNeXtV2(layout, rngs=nnx.Rngs(seed))


def test_an_encoder_kept_by_its_difference_is_the_rounded_one_exactly(tmp_path: Path) -> None:
    start, tuned = encoder(0), encoder(1)
    write_weights(tmp_path / "kept.npz", tuned, start)
    back = nnx.clone(start)
    read_weights(tmp_path / "kept.npz", back, start)
    found, expected = parameters(back), parameters(rounded(tuned))
    for name, parameter in expected.items():
        np.testing.assert_array_equal(found[name][...], parameter[...], err_msg=name)
    assert any((p[...] != expected[n][...]).any() for n, p in parameters(tuned).items())


def test_where_training_changed_nothing_a_difference_is_zeros(tmp_path: Path) -> None:
    write_weights(tmp_path / "kept.npz", encoder(0), encoder(0))
    assert not any(array.any() for array in np.load(tmp_path / "kept.npz").values())


def test_an_encoder_is_rounded_where_any_is_kept_and_written_where_it_is_named(
    tmp_path: Path,
) -> None:
    given = encoder(0)
    assert Limits().kept("a-0", given, tmp_path) is given
    made = Limits(keep=("a-0",)).kept("b-0", given, tmp_path)
    assert not (tmp_path / "encoders").exists()
    name = next(n for n, p in parameters(given).items() if np.asarray(p[...]).std() > 0)
    assert (parameters(made)[name][...] != parameters(given)[name][...]).any()
    Limits(keep=("a-0",)).kept("a-0", given, tmp_path)
    assert (tmp_path / "encoders/a-0.npz").is_file()


def test_patients_of_the_test_part_are_edited_once_each() -> None:
    patients = np.array(["c", "a", "a", "b", "d", "d"])
    pack = Pack(
        patient_id=patients,
        study_id=np.array([*"123456"]),
        split=np.array(["test", "test", "test", "train", "test", "test"]),
        volumes=np.zeros((6, 1, 2, 2, 1), np.float32),
        masks={},
        label=np.zeros(6),
    )
    assert chosen(pack, 60).tolist() == [0, 1, 4]
    assert len(chosen(pack, 2)) == 2


def test_changes_are_put_at_their_edit_dose_and_arm() -> None:
    about = STUDIES["us"]
    # Of the last edit, grow, patient 7 has no control outside at the second dose.
    last = len(about.doses) - 1
    made = [(5, d, a) for d in (0, 1) for a in (0, 1, 2)]
    made += [(7, d, a) for d in (0, 1) for a in (0, 1, 2) if (d, a) != (1, 1)]
    row, dose, arm = np.array(made).T
    cells = {"row": row, "dose": dose, "arm": arm, "target": np.full(len(made), last)}
    values = (100 * row + 10 * dose + arm)[:, None].astype(float)
    moved = _moved(about, cells, np.array([3, 5, 7]), {"pre": values})[last]
    assert moved.rows.tolist() == [1, 2]
    assert moved.change["pre"]["edit"][..., 0].tolist() == [[500, 510], [700, 710]]
    assert moved.change["pre"]["noise"][1, 1, 0] == 712
    assert np.isnan(moved.change["pre"]["outside"][1, 1, 0])
    assert moved.change["pre"]["outside"][1, 0, 0] == 701


def test_before_fine_tuning_an_edit_counts_once_whatever_the_seeds() -> None:
    rows = [
        {"task": "t", "edit": "shift", "stage": stage, "moves": True, "slope": seed + 0.5}
        for seed in (0, 1, 2)
        for stage in ("pre", "ft")
    ]
    found = summary(pd.DataFrame(rows)).set_index("stage")
    assert found.loc["pre", ["moves", "of"]].tolist() == [1, 1]
    assert found.loc["ft", ["moves", "of"]].tolist() == [3, 3]
    assert found.loc["ft", "highest"] == 2.5


@pytest.mark.parametrize("below", [12, 7])
def test_layers_are_taken_apart_by_their_widths(tmp_path: Path, below: int) -> None:
    top = 4 if below == 12 else 8
    whole = np.arange(3 * (below + top), dtype=float).reshape(3, -1)
    write_arrays(tmp_path / "s-p-layers.npz", a=whole[:, :below].astype(np.float16))
    write_arrays(tmp_path / "s-p.npz", a=whole[:, below:])
    found = by_layer(tmp_path, "s", "p", "a", np.array([2, 0]))
    assert [x.shape[1] for x in found.values()] == ([4] * 4 if below == 12 else [1, 2, 4, 8])
    np.testing.assert_array_equal(np.concatenate([*found.values()], axis=1), whole[[2, 0]])
