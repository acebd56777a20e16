"""Files of all layers: joined to the study by id, refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.study.layers import layer_order, read_layers

IDS = ["b", "a", "c"]
LAYER = ["deep", "deep", "shallow"]


def write(folder: Path, **changes: Any) -> Path:
    """A file of two layers, the rows in an order of its own; a change of None leaves out."""
    arrays: dict[str, Any] = {
        "patient_id": IDS, "embeddings": np.arange(9.0).reshape(3, 3), "layer": LAYER,
    }  # fmt: skip
    arrays = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def study(*patients: str) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": patients})


def test_rows_follow_the_study_and_layers_their_order_in_the_file(tmp_path) -> None:
    path = write(tmp_path)
    assert layer_order(path) == ["deep", "shallow"]
    found = read_layers(path, study("a", "b"))
    assert list(found) == ["deep", "shallow"]
    np.testing.assert_array_equal(found["deep"], [[3, 4], [0, 1]])
    np.testing.assert_array_equal(found["shallow"], [[5], [2]])


def test_studies_of_a_patient_are_told_apart(tmp_path) -> None:
    path = write(tmp_path, patient_id=["a", "a", "b"], study_id=["2", "1", "1"])
    ids = pd.DataFrame({"patient_id": ["a", "a"], "study_id": ["1", "2"]})
    np.testing.assert_array_equal(read_layers(path, ids)["shallow"], [[5], [2]])
    with pytest.raises(InputError, match="no study_id, and patients"):
        read_layers(write(tmp_path, patient_id=["a", "x", "b"]), ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": None}, "no array 'layer' with a name per column.*experiments.embed --stage all"),
        ({"layer": [1, 1, 2]}, "no array 'layer'"),
        ({"layer": ["one"] * 3}, "one layer, one; a profile needs at least two"),
        ({"layer": ["x", "y", "x"]}, "columns of layer x do not lie side by side"),
        ({"layer": ["x", "y"]}, "2 names of layers for 3 columns"),
        ({"patient_id": ["a", "a", "c"]}, "a is there twice"),
        ({"patient_id": ["a", "x", "c"]}, "1 of the study's 2 rows are missing, such as b"),
        ({"embeddings": np.full((3, 3), np.nan)}, "an embedding of a is not finite"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(tmp_path, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        read_layers(write(tmp_path, **changes), study("a", "b"))


def test_another_file_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        layer_order(tmp_path / "absent.npz")
    (tmp_path / "x.csv").write_text("patient_id\n1\n")
    with pytest.raises(InputError, match=r"layers are read from \.npz"):
        layer_order(tmp_path / "x.csv")
