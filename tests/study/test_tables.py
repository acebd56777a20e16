"""Tables in memory: every welcome form gives the study that the files give, others are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.study.load import load_study
from lens.study.study import Study
from lens.study.tables import is_table, read_embeddings, read_radiomics, to_table
from tests.planted import Planted, plant


@pytest.fixture
def planted() -> Planted:
    return plant(n=40, d=6)


class Tensor:
    """Stands in for a torch tensor with a gradient: NumPy is refused until it is taken off."""

    def __init__(self, values: Any, at: str = "graph") -> None:
        self.values, self.at = np.asarray(values), at

    def detach(self) -> Tensor:
        assert self.at == "graph"
        return Tensor(self.values, "gpu")

    def cpu(self) -> Tensor:
        assert self.at == "gpu"
        return Tensor(self.values, "bfloat16")

    def float(self) -> Tensor:
        assert self.at == "bfloat16"
        return Tensor(self.values.astype(np.float32), "numpy")

    def numpy(self) -> np.ndarray:
        if self.at != "numpy":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("can't convert a tensor that requires grad to numpy")


def frame(ids: np.ndarray, x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x).assign(patient_id=ids)


FORMS = {
    "table": frame,
    "table by index": lambda ids, x: frame(ids, x).set_index("patient_id"),
    "pair": lambda ids, x: (ids, x),
    "lists": lambda ids, x: (list(ids), x.tolist()),
    "series of ids": lambda ids, x: (pd.Series(ids, index=range(5, 5 + len(ids))), x),
    "tensor": lambda ids, x: (ids, Tensor(x)),
    "mapping": lambda ids, x: {"patient_id": ids, "embeddings": x},
    "mapping with a tensor": lambda ids, x: {"patient_id": list(ids), "embeddings": Tensor(x)},
    "columns": lambda ids, x: {"patient_id": ids} | {f"e{i}": x[:, i] for i in range(x.shape[1])},
    "half precision table": lambda ids, x: frame(ids, x.astype(np.float64)),
    "nullable table": lambda ids, x: frame(ids, x).convert_dtypes(),
}


def same(one: Study, other: Study) -> None:
    pd.testing.assert_frame_equal(one.ids, other.ids)
    pd.testing.assert_frame_equal(one.features, other.features)
    np.testing.assert_array_equal(one.x_pre, other.x_pre)
    np.testing.assert_array_equal(one.x_ft["cls"], other.x_ft["cls"])
    np.testing.assert_array_equal(one.split, other.split)
    np.testing.assert_allclose(one.r, other.r, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_memory_gives_the_study_of_the_files(
    planted: Planted, tmp_path: Path, form: str
) -> None:
    paths = planted.write(tmp_path)
    files = load_study(paths["pre"], {"cls": paths["ft"]}, str(paths["radiomics"]))
    pre, ft = (FORMS[form](planted.ids, x) for x in (planted.pre, planted.ft))
    study = load_study(pre, {"cls": ft}, planted.radiomics, retrained={"cls": [ft, pre]})
    same(study, files)
    assert study.ids.dtypes.equals(files.ids.dtypes)
    for values, x in zip(study.retrained["cls"], (study.x_ft["cls"], study.x_pre), strict=True):
        np.testing.assert_array_equal(values, x)


def test_a_torch_tensor_is_welcome(planted: Planted, tmp_path: Path) -> None:
    import torch

    paths = planted.write(tmp_path)
    pre = torch.nn.Parameter(torch.from_numpy(planted.pre))
    study = load_study((planted.ids, pre), {"cls": (planted.ids, pre)}, planted.radiomics)
    files = load_study(paths["pre"], {"cls": paths["pre"]}, paths["radiomics"])
    np.testing.assert_array_equal(study.x_pre, files.x_pre)
    half = read_embeddings((planted.ids, pre.to(torch.bfloat16)))
    np.testing.assert_allclose(half.drop(columns="patient_id"), planted.pre, rtol=1e-2)


def test_radiomics_and_split_in_every_form(planted: Planted, tmp_path: Path) -> None:
    paths = planted.write(tmp_path)
    parts = pd.DataFrame(
        {"patient_id": planted.ids, "split": ["train"] * 30 + ["val"] * 4 + ["test"] * 6}
    )
    parts.to_csv(tmp_path / "split.csv", index=False)
    files = load_study(
        paths["pre"], {"cls": paths["ft"]}, paths["radiomics"], split=tmp_path / "split.csv"
    )
    forms: list[Callable[[pd.DataFrame], Any]] = [
        lambda table: table,
        lambda table: table.set_index("patient_id"),
        lambda table: table.to_dict("list"),
    ]
    for form in forms:
        split, radiomics = form(parts), form(planted.radiomics)
        study = load_study(paths["pre"], {"cls": paths["ft"]}, radiomics, split=split)
        same(study, files)


def test_studies_of_a_patient_in_memory(planted: Planted) -> None:
    ids, visits = np.repeat(planted.ids[:20], 2), np.tile([1, 2], 20)
    table = planted.radiomics.assign(patient_id=ids, study_id=visits)
    x = {"patient_id": ids, "study_id": visits, "embeddings": planted.pre}
    study = load_study(x, {"cls": x}, table.set_index(["patient_id", "study_id"]))
    assert study.ids["study_id"].tolist() == ["1", "2"] * 20
    np.testing.assert_array_equal(study.x_pre, planted.pre)


def test_the_objects_given_stay_as_they_are(planted: Planted) -> None:
    planted.radiomics.iloc[2, 3] = np.nan
    ids, x = planted.ids.copy(), planted.pre.copy()
    by_index = planted.radiomics.set_index("patient_id")
    tables = [planted.radiomics, by_index, frame(np.arange(40), planted.pre)]
    before = [table.copy(deep=True) for table in tables]
    mapping = {"patient_id": planted.ids, "embeddings": planted.pre}
    for table in tables[:2]:
        study = load_study(mapping, {"cls": (planted.ids, planted.pre)}, table)
        study.r[:] = 0
        study.x_pre[:] = 0
    with pytest.raises(InputError):
        load_study(tables[2], {"cls": tables[2]}, planted.radiomics)
    for table, copy in zip(tables, before, strict=True):
        pd.testing.assert_frame_equal(table, copy)
    np.testing.assert_array_equal(planted.ids, ids)
    np.testing.assert_array_equal(planted.pre, x)
    assert list(mapping) == ["patient_id", "embeddings"]


def test_ids_become_text_in_one_way() -> None:
    for ids in ([1, 2], [1.0, 2.0], ["1", "2"], [b"1", b"2"], np.array([b"1", b"2"])):
        assert read_embeddings((ids, np.eye(2)))["patient_id"].tolist() == ["1", "2"]
    with pytest.raises(InputError, match="embeddings: an id is empty"):
        read_embeddings(pd.DataFrame({"patient_id": [1, None], "e0": [0.5, 1.0]}))
    with pytest.raises(InputError, match=r"duplicate id\(s\): 1"):
        read_embeddings(([1, 1.0], np.eye(2)))


X = np.ones((40, 6))


@pytest.mark.parametrize(
    ("pre", "message"),
    [
        (X, r"^pre: an array without ids cannot be joined; give \(ids, array\)"),
        (X.tolist(), r"^pre: an array without ids cannot be joined; give \(ids, array\)"),
        ({"embeddings": X}, "^pre: embeddings without patient_id cannot be joined"),
        (5, r"^pre: int is no table; welcome are a path, a pandas.DataFrame with patient_id, "),
        (None, "^pre: None is no table; welcome are"),
        ((X,), "^pre: tuple is no table; welcome are"),
        (pd.DataFrame(X), r"^pre: column patient_id is missing; found \['0', '1'"),
        (pd.DataFrame({"patient_id": []}), "^pre: the table has no rows"),
        ((["a"], X), r"^pre: expected patient_id \(n,\) and embeddings \(n, d\), found \(1,\) and"),
        ((range(2), [[1, 2], [3]]), "^pre: not an array"),
        ((range(2), [["a"], ["b"]]), "^pre: embeddings have type .*, not numbers"),
        ({"patient_id": [1, 2], "e0": [1.0]}, "^pre: the columns do not make a table"),
        (([1, 1], np.eye(2)), r"^pre: 1 duplicate id\(s\): 1"),
    ],
)
def test_refuses_other_embeddings_in_a_sentence(planted: Planted, pre: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_study(pre, {"cls": (planted.ids, planted.ft)}, planted.radiomics)


def test_messages_name_the_table_in_memory(planted: Planted) -> None:
    pre, table = (planted.ids, planted.pre), planted.radiomics
    narrow = (planted.ids, planted.ft[:, :4])
    refused = [
        ({"ft": {"cls": planted.ft}}, r"^ft\['cls'\]: an array without ids"),
        ({"ft": {"cls": narrow}}, r"^ft\['cls'\]: embeddings have 4 dimensions, pre has 6"),
        (
            {"ft": dict(zip(("patient_id", "embeddings"), pre, strict=True))},
            "^ft: one table where tasks are expected",
        ),
        ({"ft": {}}, "^no fine-tuned embeddings given"),
        ({"retrained": {"cls": [pre, 3]}}, r"^retrained\['cls'\]\[1\]: int is no table"),
        ({"radiomics": planted.pre}, "^radiomics: an array has neither ids nor names"),
        ({"radiomics": table.assign(age=6)}, "^radiomics: not the name of a radiomic feature"),
        ({"radiomics": table["patient_id"]}, "^radiomics: .*Series is no table"),
        ({"split": ["train"] * 40}, "^split: list is no table; welcome are"),
        ({"split": table}, "^split: columns patient_id and split are needed"),
        ({"rois": ("lesion",)}, "^radiomics: no column of roi 'lesion'"),
    ]
    for change, message in refused:
        given: Any = {"pre": pre, "ft": {"cls": pre}, "radiomics": table} | change
        with pytest.raises(InputError, match=message):
            load_study(**given)
    planted.ft[5, 2] = np.nan
    study = load_study(pre, {"cls": (planted.ids, planted.ft)}, table.iloc[1:])
    assert [error.file for error in study.set_aside] == ["radiomics", "ft['cls']"]


def test_one_table_or_a_table_per_task(planted: Planted) -> None:
    for form in FORMS.values():
        assert is_table(form(planted.ids, planted.pre))
    assert not is_table({"cls": "after.npz"})


def test_a_table_without_patients_is_read_as_it_is() -> None:
    table = to_table({"column": ["t2.gland.original_glcm_F0"], "icc": [0.9]}, "repeatability")
    assert table["icc"].tolist() == [0.9]
    with pytest.raises(InputError, match=r"^radiomics: column patient_id is missing"):
        read_radiomics(table)
