"""Inputs behind public bug reports about tables: each is read as it is meant, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens import stages
from lens.context import read_labels
from lens.errors import InputError
from lens.settings import Settings
from lens.study.load import load_study
from lens.study.table_files import read_table
from lens.study.tables import read_embeddings, read_radiomics

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture(scope="module")
def cases() -> Path:
    """The folder of cases; tests that need it skip where it is absent."""
    if not CASES.is_dir():
        pytest.skip("the cases are not part of the repository and are not on this machine")
    return CASES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pre_index.csv", r"pre_index.csv: column 'Unnamed: 0' has no name.*index=False"),
        ("ft_index.csv", r"ft_index.csv: column 'Unnamed: 0' has no name.*index=False"),
        ("e_label.csv", r"e_label.csv: column\(s\) 'label' break the run of names from 0 to 11"),
        ("e_complex.npz", "e_complex.npz: embeddings are complex numbers"),
        ("e.h5ad", "HDF5|pip install"),
        ("e.pt", r"not readable as torch tensors, and Python objects are never unpickled"),
        ("e.h5", "not readable as HDF5|pip install"),
        ("e.xlsx", "not readable as a workbook .*save the sheet as 'CSV UTF-8|pip install"),
    ],
)
def test_what_is_no_embedding_is_refused_with_the_way_out(
    cases: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_embeddings(cases / "tables" / name)


def test_ids_in_bytes_are_read_as_utf8(cases: Path) -> None:
    assert read_embeddings(cases / "tables" / "e_bytes_utf8.npz")["patient_id"][0] == "ÉP000"


def test_a_label_among_dimensions_can_be_allowed(cases: Path) -> None:
    assert "label" in read_embeddings(cases / "tables" / "e_label.csv", any_columns=True)


def test_tabs_are_read_from_tsv(cases: Path) -> None:
    folder = cases / "tables"
    table = read_radiomics(folder / "R.tsv")
    pd.testing.assert_frame_equal(table, read_radiomics(pd.read_csv(folder / "R.tsv", sep="\t")))


def test_embedding_columns_go_by_name(cases: Path) -> None:
    folder = cases / "embedding_columns"
    before, radiomics = folder / "before.csv", folder / "R.csv"
    study = load_study(before, {"cls": folder / "after_same_but_columns_reordered.csv"}, radiomics)
    np.testing.assert_array_equal(study.x_ft["cls"], study.x_pre)
    wider = folder / "after_with_label.csv"
    with pytest.raises(InputError, match="'Unnamed: 0' has no name"):
        load_study(folder / "before_with_index.csv", {"cls": wider}, folder / "R_leak.csv")
    with pytest.raises(InputError, match="'volume_ml' break the run of names from f00 to f15"):
        load_study(before, {"cls": wider}, folder / "R_leak.csv")
    with pytest.raises(InputError, match=r"after_with_label\.csv alone has 'volume_ml'"):
        load_study(before, {"cls": wider}, folder / "R_leak.csv", any_columns=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labels_below_limit.csv", "psa: 139 of 140 values are numbers, patient P004 has '<0.1'"),
        ("labels_decimal_comma.csv", "psa: 0 of 140 .* patient P000 has '2,13', a decimal comma"),
    ],
)
def test_a_number_that_is_none_is_named(cases: Path, name: str, message: str) -> None:
    folder = cases / "adjust_text_numbers"
    ids = read_table(folder / "labels.csv")[["patient_id"]]
    assert read_labels(folder / "labels.csv", ids, ["psa"])["psa"].dtype == np.float64
    with pytest.raises(InputError, match=message):
        read_labels(folder / name, ids, ["psa"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s.npz", r"32 rows have one and the same embedding before .*\(P\d+, P\d+, P\d+, P\d+, P"),
        ("z.npz", r"12 rows have nothing but zeros as embedding before .*\(P000, P001, P002, "),
    ],
)
def test_rows_given_twice_are_counted_and_named(cases: Path, name: str, message: str) -> None:
    folder = cases / "embedding_columns"
    after = {"cls": folder / "before.csv"}
    study = load_study(cases / "identical_rows" / name, after, folder / "R.csv")
    (warning,) = stages.warnings_of(study, Settings())
    assert pd.Series(warning).str.match(message).all(), warning
    assert warning in stages.facts(study, Settings())["notes"], "the report lists these"


@pytest.mark.parametrize("name", ["Rtrail.csv", "Rtrail2.csv"])
def test_blank_rows_and_columns_at_the_end_are_passed_over(cases: Path, name: str) -> None:
    folder = cases / "excel_blank_rows"
    pd.testing.assert_frame_equal(
        read_radiomics(folder / name), read_radiomics(folder / "plain.csv")
    )


def test_parquet_as_pandas_and_databases_write_it(cases: Path) -> None:
    folder = cases / "parquet_kinds"
    plain = read_radiomics(folder / "R_idx.parquet")
    assert plain.columns[0] == "patient_id"
    decimals = read_radiomics(folder / "Rdec.parquet")
    pd.testing.assert_frame_equal(decimals, plain, atol=1e-4, rtol=0)
    pre = folder / "pre_idx.parquet"
    study = load_study(pre, {"cls": pre}, folder / "Rnull.parquet")
    assert study.dropped.to_numpy().tolist() == [
        [plain.columns[1], "not finite in 100% of the patients"]
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bf.npz", r"bf.npz: embeddings have type \|V2, not numbers: bfloat16.*x\.float\(\)"),
        ("h2.npz", r"h2.npz: dimension 3 .* not finite in 60 of 60 patients.*float16"),
    ],
)
def test_half_precision_is_named(cases: Path, name: str, message: str) -> None:
    folder = cases / "half_precision"
    radiomics = cases / "parquet_kinds" / "R_idx.parquet"
    with pytest.raises(InputError, match=message):
        load_study(folder / name, {"cls": folder / name}, radiomics)


def test_bids_tables_are_read_and_the_writing_of_ids_is_named(cases: Path) -> None:
    from lens.cohort.prepared import Prepared, join_labels

    folder = cases / "bids"
    assert read_table(folder / "participants.tsv")["patient_id"][0] == "sub-001"
    rows = tuple({"patient_id": f"00{i}", "study_id": f"0{j}"} for i in (1, 2) for j in (1, 2))
    archive = Prepared(rows, (), ())
    with pytest.raises(InputError, match=r"it has '001/ses-01' where the archive has '001/01' \(a"):
        join_labels(archive, folder / "ses.csv")
    patients = tuple({"patient_id": f"00{i}"} for i in (1, 2, 3))
    with pytest.raises(InputError, match=r"it has 'sub-001' where the archive has '001' \(a pre"):
        join_labels(Prepared(patients, (), ()), folder / "participants.tsv")
