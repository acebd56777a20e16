"""Tables and embeddings as other programs write them, each by the library that people use."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.study.table_files import read_table
from lens.study.tables import read_embeddings, read_radiomics

IDS = ["007", "P1", "P2"]
X = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
COLUMN = "t2.gland.original_glcm_Idm"


def library(name: str) -> Any:
    return import_module(name)


def same(read: pd.DataFrame, x: np.ndarray = X) -> None:
    assert read["patient_id"].tolist() == IDS
    np.testing.assert_allclose(read.drop(columns="patient_id"), x)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("patient_id;a;b\nP1;0,125;3\nP2;2,5;4\n", "semicolons.*decimal commas"),
        ("patient_id;a;b\nP1;0.125;3\nP2;2.5;4\n", "semicolons"),
        ("patient_id|a|b\nP1|0,125|3\nP2|2,5|4\n", "bars.*decimal commas"),
        ("patient_id\ta\tb\nP1\t0,125\t3\nP2\t2,5\t4\n", "tabs.*decimal commas"),
        ("\ufeffpatient_id;a;b\nP1;1,25E-1;3\nP2;2,5;4\n", "decimal commas"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_text_of_european_spreadsheets_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, word: str, encoding: str
) -> None:
    import re

    path = tmp_path / "t.csv"
    path.write_bytes(content.removeprefix("\ufeff" * (encoding == "utf-16")).encode(encoding))
    read = read_embeddings(path)
    assert read.to_numpy().tolist() == [["P1", 0.125, 3.0], ["P2", 2.5, 4.0]]
    assert re.search(word, caplog.text, re.DOTALL)


def test_a_bar_beside_another_separator_is_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("patient_id;a|b;c\nP1;1;0.5\n")
    assert read_embeddings(tmp_path / "t.csv").columns.tolist() == ["patient_id", "a|b", "c"]


def test_a_comma_between_thousands_is_never_a_decimal_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("patient_id;a;b\nP1;1,234,567;0,5\n")
    with pytest.raises(InputError, match=r"'0,5' .*beside '1,234,567'"):
        read_embeddings(tmp_path / "t.csv")


def test_a_workbook_is_read_by_its_sheet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    openpyxl = library("openpyxl")
    table = pd.DataFrame({"patient_id": ["007", 8], "e0": [0.5, None], "e1": [1, 2]})
    with pd.ExcelWriter(tmp_path / "t.xlsx") as writer:
        table.to_excel(writer, sheet_name="first", index=False)
        table.assign(e0=[3.0, 4.0]).to_excel(writer, sheet_name="v 2", index=False)
    first = read_embeddings(tmp_path / "t.xlsx")
    assert caplog.text.count("the first sheet, first, is read; the others are v 2") == 1
    caplog.clear()
    assert first["patient_id"].tolist() == ["007", "8"]
    np.testing.assert_array_equal(first[["e0", "e1"]], [[0.5, 1], [np.nan, 2]])
    assert read_embeddings(f"{tmp_path}/t.xlsx:v 2")["e0"].tolist() == [3.0, 4.0]
    assert not caplog.text, "the sheet was named"
    with pytest.raises(InputError, match="no sheet 'third'; there are first, v 2"):
        read_embeddings(f"{tmp_path}/t.xlsx:third")
    book = openpyxl.Workbook()
    for row in (["patient_id", "e0"], ["a", 1], ["b", "=A1+1"]):
        book.active.append(row)
    book.save(tmp_path / "formula.xlsx")
    with pytest.raises(InputError, match=r"row 3, column 2 holds the formula '=A1\+1' without"):
        read_embeddings(tmp_path / "formula.xlsx")
    table.assign(x=1).to_excel(tmp_path / "index.xlsx")
    with pytest.raises(InputError, match="'Unnamed: 0' has no name"):
        read_embeddings(tmp_path / "index.xlsx")


def test_merged_cells_are_refused(tmp_path: Path) -> None:
    openpyxl = library("openpyxl")
    table = pd.DataFrame({"patient_id": ["a", "b", "c"], "e0": [1.0, 2, 3], "e1": [4.0, 5, 6]})
    path = tmp_path / "t.xlsx"
    table.to_excel(path, index=False, startrow=1)
    book = openpyxl.load_workbook(path)
    book.active["A1"] = "Cohort A, taken in 2020"
    book.active.merge_cells("A1:C1")
    book.active.delete_rows(1)
    book.active.merged_cells.ranges.clear()
    book.active.merge_cells("B2:B4")
    book.save(path)
    with pytest.raises(InputError, match=r"1 block\(s\) of merged cells, such as B2:B4, .*unmerge"):
        read_embeddings(path)
    book.active.unmerge_cells("B2:B4")
    book.active.insert_rows(1, 2)
    book.active.merge_cells("A1:C1")
    book.active["B4"], book.active["B5"], book.active["B6"] = 1, None, 3
    book.save(path)
    read = read_embeddings(path)
    np.testing.assert_array_equal(read["e0"], [1, np.nan, 3])


def test_an_array_has_its_ids_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(np.float16))
    with pytest.raises(InputError, match=r"x_ids.csv .*x_ids.txt .*there is neither"):
        read_embeddings(tmp_path / "x.npy")
    (tmp_path / "x_ids.txt").write_text("\n".join(IDS))
    same(read_embeddings(tmp_path / "x.npy"))
    (tmp_path / "x_ids.txt").write_bytes("\n".join(IDS).encode("utf-16"))
    with pytest.raises(InputError, match=r"x_ids.txt, line 1: not readable as UTF-8 .*Save"):
        read_embeddings(tmp_path / "x.npy")
    (tmp_path / "x_ids.txt").write_text("007\nP1\n")
    with pytest.raises(InputError, match=r"x_ids.txt: 2 ids for an array of shape \(3, 4\)"):
        read_embeddings(tmp_path / "x.npy")
    pd.DataFrame({"patient_id": IDS}).to_csv(tmp_path / "x_ids.csv", index=False)
    with pytest.raises(InputError, match="both are there"):
        read_embeddings(tmp_path / "x.npy")
    (tmp_path / "x_ids.txt").unlink()
    same(read_embeddings(tmp_path / "x.npy"))
    np.save(tmp_path / "x.npy", X.astype(object))
    with pytest.raises(InputError, match=r"x.npy: .*Python objects, which are never unpickled"):
        read_embeddings(tmp_path / "x.npy")


def test_tensors_are_read_and_nothing_is_unpickled(tmp_path: Path) -> None:
    torch = library("torch")
    path, x = tmp_path / "x.pt", torch.tensor(X)
    for content in (
        {"patient_id": IDS, "embeddings": x},
        {"patient_id": IDS, "embeddings": x.bfloat16()},
        dict(zip(IDS, x.half(), strict=True)),
        dict(zip(IDS, x[:, None], strict=True)),
    ):
        torch.save(content, path)
        same(read_embeddings(path))
    torch.save(x, path)
    (tmp_path / "x_ids.txt").write_text("\n".join(IDS))
    same(read_embeddings(path))
    refused: list[tuple[Any, str]] = [
        (
            {"patient_id": IDS, "embeddings": X},
            r"never unpickled \(Unsupported global: GLOBAL numpy[\w.]+ was not [a-z ]+\); save",
        ),
        ({"007": {"feature": x[0], "label": 1}}, r"key 007 holds a dict \(feature, label\) where"),
        (
            {"patient_id": IDS, "embeddings": x[0, :1].clone().expand(3, 4)},
            "more than what is stored of it",
        ),
        ({"a": x[0], "b": x[0, :2]}, "case a has 4 numbers, case b 2"),
        ({"conv.weight": torch.zeros(2, 3, 3, 3)}, "weights of an encoder"),
        ({"embeddings": x}, "needs both patient_id and embeddings"),
        ({"ids": IDS, "features": x}, "holds the keys ids, features; expected patient_id and emb"),
        ({"ids": [1, 2, 3], "features": x}, "holds the keys ids, features; expected patient_id"),
        ({"names": IDS, "z": x}, "holds the keys names, z; expected patient_id and embeddings"),
    ]
    for content, message in refused:
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            read_embeddings(path)


def test_tokens_are_pooled_as_the_user_says(tmp_path: Path) -> None:
    tokens = np.stack([X, X + 2], axis=1)
    np.savez(tmp_path / "x.npz", patient_id=IDS, embeddings=tokens)
    with pytest.raises(InputError, match=r"\(3, 2, 4\) are \(patients, tokens.*--pool-tokens mean"):
        read_embeddings(tmp_path / "x.npz")
    same(read_embeddings(tmp_path / "x.npz", pool_tokens="first"))
    same(read_embeddings(tmp_path / "x.npz", pool_tokens="mean"), X + 1)
    large = np.full((3, 2, 4), 60_000, np.float16)
    assert np.isfinite(read_embeddings((IDS, large), pool_tokens="mean").iloc[:, 1:]).all().all()


def test_hdf5_is_read_from_one_file_or_one_per_case(tmp_path: Path) -> None:
    h5py = library("h5py")
    folder = tmp_path / "cases"
    folder.mkdir()
    for case, row in zip(IDS, X, strict=True):
        with h5py.File(folder / f"{case}.h5", "w") as file:
            file.create_dataset("y_hat", data=row[None], compression="gzip")
            file["label"] = 1
    same(read_embeddings(folder))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("patient_id", data=IDS)
        file["embeddings"], file["late"] = X.astype(np.float16), X + 1
        for case, row in zip(IDS, X, strict=True):
            file[f"by id/{case}"] = row
    same(read_embeddings(tmp_path / "x.h5"))
    same(read_embeddings(f"{tmp_path}/x.h5:late"), X + 1)
    same(read_embeddings(f"{tmp_path}/x.h5:by id"))
    with pytest.raises(InputError, match="nothing is called 'none'; there are"):
        read_embeddings(f"{tmp_path}/x.h5:none")


def test_a_dataset_of_every_file_of_a_folder_is_named(tmp_path: Path) -> None:
    h5py = library("h5py")
    folder = tmp_path / "slides"
    folder.mkdir()
    for case, row in zip(IDS, X, strict=True):
        with h5py.File(folder / f"{case}.h5", "w") as file:
            file["features"], file["coords"] = np.stack([row, row + 2]), np.zeros((2, 2))
    with pytest.raises(InputError, match=r"name the one to take, as in .*slides:features"):
        read_embeddings(folder, pool_tokens="mean")
    same(read_embeddings(f"{folder}:features", pool_tokens="mean"), X + 1)
    with pytest.raises(InputError, match="nothing is called 'feats'; there are"):
        read_embeddings(f"{folder}:feats")
    other = tmp_path / "arrays"
    other.mkdir()
    np.save(other / "a.npy", X[0])
    with pytest.raises(InputError, match=r"its files are .npy, which have no named parts"):
        read_embeddings(f"{other}:features")


def test_hdf5_that_reaches_out_or_declares_more_is_refused(tmp_path: Path) -> None:
    h5py = library("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = X
    (tmp_path / "secret").write_bytes(X.tobytes())
    for name, message in {
        "link": "a link to another file",
        "external": "lies in other files",
        "huge": "declares 4 TiB, of which the file holds",
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["patient_id"] = IDS
            if name == "link":
                file["embeddings"] = h5py.ExternalLink("other.h5", "x")
            elif name == "external":
                outside = [(str(tmp_path / "secret"), 0, X.nbytes)]
                file.create_dataset("embeddings", X.shape, "f4", external=outside)
            else:
                file.create_dataset("embeddings", (3, 366503875925), "f4", chunks=(1, 1000))
        with pytest.raises(InputError, match=message):
            read_embeddings(tmp_path / f"{name}.h5")


def test_anndata_is_read_by_its_names(tmp_path: Path) -> None:
    anndata = library("anndata")
    from scipy.sparse import csr_matrix

    names = (pd.DataFrame(index=pd.Index(list(each), dtype=object)) for each in (IDS, "dcba"))
    data = anndata.AnnData(csr_matrix(X), *names)
    data.obsm["X_uni"] = X + 1
    data.write_h5ad(tmp_path / "x.h5ad")
    read = read_embeddings(tmp_path / "x.h5ad")
    same(read)
    assert read.columns[1:].tolist() == list("dcba")
    same(read_embeddings(f"{tmp_path}/x.h5ad:X_uni"), X + 1)
    with pytest.raises(InputError, match="no obsm 'X_pca'; there are X_uni"):
        read_embeddings(f"{tmp_path}/x.h5ad:X_pca")


def test_a_library_that_is_not_there_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name, module in {"x.xlsx": "openpyxl", "x.h5": "h5py", "x.pt": "torch"}.items():
        (tmp_path / name).write_bytes(b"x")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError, match=rf"{module} reads such .* pip install 'radiomic-lens"):
            read_embeddings(tmp_path / name)


def test_json_and_lines_are_those_of_pyradiomics_alone(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps([{"patient_id": "a", COLUMN: 1.5}]))
    assert read_radiomics(tmp_path / "r.json")[COLUMN].tolist() == [1.5]
    (tmp_path / "r.json").write_text("{}")
    (tmp_path / "r.txt").write_text("patient_id,a\n")
    for name, message in {"r.json": "no list of cases", "r.txt": "line 1 is not Case-"}.items():
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["r.json", "r.txt"])
def test_lists_of_pyradiomics_in_another_encoding_are_told_so(
    tmp_path: Path, name: str, encoding: str
) -> None:
    text = '[{"patient_id": "Jos\u00e9"}]' if name == "r.json" else "Case-1_Image: Jos\u00e9\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=rf"{name}, line 1: not readable as UTF-8 .*Save it as"):
        read_table(tmp_path / name)
