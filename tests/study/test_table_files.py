"""Files that are read: what they are is found out first, and nothing is read as what it is not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens.context import read_ceiling, read_exposure, read_labels
from lens.errors import InputError
from lens.study.cells import as_label, as_numbers
from lens.study.split import read_split
from lens.study.table_files import read_table
from lens.study.tables import numeric, read_embeddings, read_radiomics

COLUMN = "t2.gland.original_glcm_Idm"


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


IDS = ["NA", "null", "None", "1e5", "007", "7.0", "nan"]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet"])
def test_ids_stay_text_whatever_they_look_like(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"patient_id": IDS, "e0": np.arange(7.0)})
    path = tmp_path / name
    if name.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
    read = read_embeddings(path)
    assert read["patient_id"].tolist() == IDS
    assert read["e0"].tolist() == list(range(7))


def test_blanks_around_ids_names_and_a_byte_order_mark_are_no_part_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffpatient_id, e0 , e1\n P1 ,1,2\nP2, n/a ,NA\n")
    read = read_embeddings(path)
    assert read.columns.tolist() == ["patient_id", "e0", "e1"]
    assert read["patient_id"].tolist() == ["P1", "P2"]
    assert read.iloc[1, 1:].isna().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient_id;a\nP1;1,500\nP2;2,500\n", "'1,500' .* every comma may part thousands"),
        ("patient_id;a;b\nP1;1,5;2.5\n", "'1,5' .*decimal comma, beside '2.5'"),
        ("patient_id;a\tb\nP1;1\t2\n", "has semicolons and tabs, so that it does not say"),
        ("patient_id,a\nP1,2\n".encode("utf-16-le"), "is binary, or UTF-16 without"),
        (b"\xff\xfea", "begins as UTF-16 and is none"),
        ("patient_id,a\nMüller,2\n".encode("latin-1"), "line 2 is not UTF-8 .byte 0xfc near 'M"),
        (b"patient_id,a\n" + b"P,1\n" * 30_000 + b"\xe9,2\n", "line 30002 is not UTF-8"),
        ("patient_id,a,a\nP1,1,2\n", "column 'a' appears twice"),
        ("patient_id,a\n0,P1,2\n1,P2,3\n", "first row has 3 cells, the header 2.*index=False"),
        ("patient_id,a\nP1,1\nP2,2,3\n", "row 3 has 3 cells, the header 2; .* double quotes"),
        ("patient_id,a\nP1,1\n,,\n", "row 3 has 3 cells, the header 2"),
        ('patient_id,a\nP1,"1\n', "not readable as a table"),
        ("patient_id,a\nP1,2\n".encode("utf-32"), "it is text in UTF-32; save it as UTF-8"),
        (b"\0\0\xfe\xff" + "patient_id,a\n".encode("utf-32-be"), "it is text in UTF-32"),
        ("patient_id,a,b\nP1,1,2\nP2,1\n", "row 3 has 2 cells, the header 3; .* cut short"),
        ("patient_id,a\n,\n", "the table has no rows"),
        ("", "the table has no rows"),
        (b"PK\x03\x04....", "it is a zip archive or a workbook"),
        (b"PAR1....", "it is Parquet"),
        (gzip.compress(b"patient_id,a\nP1,2\n", mtime=0), "compressed; name it .gz"),
    ],
)
def test_another_kind_of_text_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"t.csv: .*{message}"):
        read_table(write(tmp_path, content))


def test_other_files_are_refused_with_the_way_out(tmp_path: Path) -> None:
    for name, remedy in {"x.npy": "as embeddings come", "x.pkl": "never opened",
                         "x.rds": "write.csv", "x.xls": "save it as .xlsx", "x.xml": "none of",
                         "x": "this"}.items():  # fmt: skip
        with pytest.raises(InputError, match=rf"{name}: expected .parquet, .csv.*{remedy}"):
            read_table(write(tmp_path, b"x", name))
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is no regular file"):
        read_table(tmp_path / "folder.csv")


def test_blank_rows_are_passed_over_and_a_row_without_its_id_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, f"patient_id,{COLUMN},,\nP1,1,,\n,,,\nP2,2,,\n,,,\n\n")
    read = read_radiomics(path)
    assert read.to_numpy().tolist() == [["P1", 1.0], ["P2", 2.0]]
    with pytest.raises(InputError, match=r"an id is empty \(row 2 of 3, below the header\)"):
        read_radiomics(write(tmp_path, f"patient_id,{COLUMN}\nP1,1\n,5\nP2,2\n"))


def test_an_unnamed_column_with_values_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": list("abc"), "e0": rng.random(3), "e1": rng.random(3)})
    table.to_csv(tmp_path / "i.csv")
    with pytest.raises(InputError, match=r"i.csv: column 'Unnamed: 0' .*index=False"):
        read_embeddings(tmp_path / "i.csv")
    with pytest.raises(InputError, match="column 'index' has no name"):
        read_embeddings(table.reset_index())


def test_an_index_without_a_name_is_said_where_ids_are_missing(tmp_path: Path) -> None:
    table = pd.DataFrame({"e0": [0.5, 1], "e1": [2.0, 3]}, index=["a", "b"])
    table.to_parquet(tmp_path / "i.parquet")
    for source in (tmp_path / "i.parquet", table):
        with pytest.raises(InputError, match=r"index of text has no name; .*df.index.name = 'pat"):
            read_embeddings(source)
    assert not table.attrs
    assert read_embeddings(table.assign(patient_id=["c", "d"]))["patient_id"].tolist() == ["c", "d"]
    with pytest.raises(InputError, match="Name the column of ids so"):
        read_embeddings(table.reset_index(drop=True))


def test_decimals_and_text_numbers_are_read_and_other_cells_named() -> None:
    from decimal import Decimal

    frame = pd.DataFrame(
        {"patient_id": ["a", "b", "c"], "decimal": [Decimal("1.5"), None, Decimal(2)],
         "text": ["1.5", "n/a", " 2 "], "null": [None, None, None]}
    )  # fmt: skip
    read = numeric(frame, "t")
    for column in ("decimal", "text"):
        np.testing.assert_array_equal(read[column], [1.5, np.nan, 2.0])
    assert read["null"].isna().all()
    refused: list[tuple[list[object], str]] = [
        (["1", "2", "<0.1"], r"patient c: '<0.1'\); write a number"),
        (["1", "2,13", "3"], r"patient b: '2,13'\), a decimal comma"),
        ([True, False, True], "holds True and False .patient a: True"),
        ([1j, 1.0, 2.0], "but complex .patient a: 1j"),
        ([1, 1j, "x"], r"patient b: 1j\)"),
        ([[1, 2], [3], 4], r"patient a: \[1, 2\]\); give a column per number"),
    ]
    for cells, message in refused:
        bad = frame[["patient_id"]].assign(v=pd.Series(cells))
        with pytest.raises(InputError, match=f"^t: column 'v' is not numeric.*{message}"):
            as_numbers(bad, "v", "t")


def test_missing_words_are_no_class_and_mixed_numbers_are_refused() -> None:
    ids = [f"P{i}" for i in range(8)]

    def label(*cells: object) -> pd.Series:
        return as_label(pd.DataFrame({"patient_id": ids, "v": cells}), "v", "t")

    words = label("a", "nan", "n/a", "NA", "b", " null ", None, "a")
    assert words.dropna().tolist() == ["a", "b", "a"]
    numbers = label("1", "2", "n/a", "4", "5", "6", "7", "NaN")
    assert numbers.dropna().tolist() == [1, 2, 4, 5, 6, 7]
    assert label("1", "a", "b", "c", "d", "a", "b", "2").nunique() == 6, "mostly names"
    with pytest.raises(InputError, match="t: v: 7 of 8 values are numbers, patient P4 has '<3'"):
        label("1", "2", "3", "4", "<3", "6", "7", "8")


def test_labels_of_a_name_per_patient_are_no_confounder(tmp_path: Path) -> None:
    ids = pd.DataFrame({"patient_id": [f"P{i}" for i in range(20)]})
    table = ids.assign(site=[f"s{i}" for i in range(20)], ward=["a", "n/a"] * 10)
    assert read_labels(table, ids, ["ward"])["ward"].dropna().unique().tolist() == ["a"]
    for names in (False, True):
        with pytest.raises(InputError, match="labels: site has 20 different values in 20 patients"):
            read_labels(table, ids, ["site"], names=names)


def test_labels_split_and_exposure_say_why_ids_do_not_meet() -> None:
    ids = pd.DataFrame({"patient_id": [f"{i:03d}" for i in range(20)]})
    other = pd.DataFrame({"patient_id": [str(i) for i in range(20)], "age": 1, "used": True})
    with pytest.raises(InputError, match=r"the study has '000' where labels has '0' \(leading z"):
        read_labels(other, ids, ["age"])
    with pytest.raises(InputError, match=r"exposure: 20 patients .* would count as unseen: .*lead"):
        read_exposure(other, ids)
    elsewhere = other.assign(patient_id="X-" + other["patient_id"] + "-q")
    with pytest.raises(InputError, match="none of the study's patients is in it"):
        read_exposure(elsewhere, ids)


def test_a_repeatability_that_is_no_number_is_named() -> None:
    table = pd.DataFrame({"column": ["a", "b"], "icc": ["0.9", "high"]})
    with pytest.raises(InputError, match=r"repeatability: column 'icc' is not numeric .*'high'"):
        read_ceiling(table, pd.Series(["a", "b"]))


@pytest.mark.parametrize("name", ["R.CSV", "R.Tsv", "R.CSV.GZ", "R.PARQUET"])
def test_ends_of_names_may_be_capital(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"patient_id": ["a", "b"], "e0": [1.0, 2.0], "e1": [3.0, 4.0]})
    if name.endswith("PARQUET"):
        table.to_parquet(tmp_path / name)
    else:
        separator = "\t" if "Tsv" in name else ","
        packing = "gzip" if name.endswith("GZ") else None
        table.to_csv(tmp_path / name, index=False, sep=separator, compression=packing)
    pd.testing.assert_frame_equal(read_embeddings(tmp_path / name), table, check_dtype=False)
    np.savez(tmp_path / "x.npz", patient_id=["a", "b"], embeddings=table[["e0", "e1"]])
    (tmp_path / "x.npz").rename(tmp_path / "X.NPZ")
    np.testing.assert_array_equal(
        read_embeddings(tmp_path / "X.NPZ").iloc[:, 1:], table.iloc[:, 1:]
    )


@pytest.mark.parametrize("line", ["sep=|", "sep=", "# made by hand"])
def test_a_line_before_the_header_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"{line}\npatient_id,a\nP1,2\n")
    with pytest.raises(InputError, match=r"the first line is .* delete that line"):
        read_embeddings(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "sep=;\npatient_id;a;b\nNA;0,5;1\n07;2;,25\n",
        'SEP=;\r\npatient_id;a;b\r\nNA;"0,5";1\r\n07;2;0,25\r\n',
        '"sep=;";;\n\npatient_id;a;b\nNA;0.5;1\n07;2;.25\n',
        "sep=,\npatient_id,a,b\nNA,0.5,1\n07,2,.25\n",
        "sep=\t\npatient_id\ta\tb\nNA\t0,5\t1\n07\t2\t0,25\n",
    ],
)
def test_a_line_that_declares_the_separator_is_read(
    tmp_path: Path, text: str, encoding: str
) -> None:
    """As spreadsheets write it."""
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    read = read_embeddings(tmp_path / "x.csv")
    expected = pd.DataFrame({"patient_id": ["NA", "07"], "a": [0.5, 2.0], "b": [1, 0.25]})
    pd.testing.assert_frame_equal(read, expected, check_dtype=False)


def test_below_a_declared_separator_lines_are_still_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 4 has 2 cells, the header 3"):
        read_embeddings(write(tmp_path, "sep=;\npatient_id;a;b\nP1;2;3\nP2;2\n"))
    with pytest.raises(InputError, match="column 'a' appears twice"):
        read_embeddings(write(tmp_path, "sep=;\npatient_id;a;a\nP1;2;3\n"))


def test_an_accent_apart_is_the_same_letter(tmp_path: Path) -> None:
    """As file lists of a Mac have it."""
    read = read_embeddings(write(tmp_path, "patient_id,a\nMu\u0308ller,2\n"))
    assert read["patient_id"].tolist() == ["M\u00fcller"]


def test_a_blank_split_is_called_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no split \(patient b\)"):
        read_split(write(tmp_path, "patient_id,split\na,train\nb,\n"), ["a", "b"])
