"""Joining the tables of a study, and what is refused or set aside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.errors import InputError
from lens.radiomics.audit import Image, audit
from lens.study.load import load_study
from lens.study.tables import read_embeddings
from tests.planted import Planted, plant


@pytest.fixture
def planted() -> Planted:
    return plant(n=40, d=6)


@pytest.fixture
def paths(planted: Planted, tmp_path: Path) -> dict[str, Path]:
    return planted.write(tmp_path)


def load(paths: Mapping[str, Any], **options):
    return load_study(paths["pre"], {"cls": paths["ft"]}, paths["radiomics"], **options)


def rewrite(path: Path, change) -> None:
    """Applies `change` to a CSV file's table."""
    table = pd.read_csv(path, dtype={"patient_id": str})
    result = change(table)
    (table if result is None else result).to_csv(path, index=False)


def test_joins_by_id_whatever_the_order(planted: Planted, paths: dict[str, Path]) -> None:
    study = load(paths)
    position = {patient: i for i, patient in enumerate(planted.ids)}
    rows = [position[patient] for patient in study.ids["patient_id"]]
    np.testing.assert_array_equal(study.x_pre, planted.pre[rows])
    np.testing.assert_array_equal(study.x_ft["cls"], planted.ft[rows])
    expected = planted.radiomics[study.features["column"]].to_numpy()[rows]
    np.testing.assert_allclose(study.r, expected, rtol=1e-12)
    assert not study.set_aside
    shares = [study.rows(name).mean() for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.03)


def test_file_order_does_not_move_the_split(planted: Planted, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    one, two = load(planted.write(first, seed=1)), load(planted.write(second, seed=2))
    np.testing.assert_array_equal(one.split, two.split)
    pd.testing.assert_frame_equal(one.ids, two.ids)


def test_numeric_ids_with_leading_zeros_stay_text(planted: Planted, tmp_path: Path) -> None:
    planted.radiomics["patient_id"] = [f"{i:05d}" for i in range(40)]
    planted.ids[:] = planted.radiomics["patient_id"]
    assert load(planted.write(tmp_path)).ids["patient_id"].iloc[1] == "00001"


def test_unmatched_ids_are_listed_with_the_file(paths: dict[str, Path]) -> None:
    rewrite(paths["radiomics"], lambda t: t[~t["patient_id"].isin(["P0003", "P0007"])])
    study = load(paths)
    assert len(study.ids) == 38
    assert [error.patient_id for error in study.set_aside] == ["P0003", "P0007"]
    assert "radiomics.csv" in str(study.set_aside[0])


def test_studies_of_a_patient_stay_together(planted: Planted, tmp_path: Path) -> None:
    ids = np.repeat(planted.ids[:20], 2)
    visits = np.tile(["1", "2"], 20)
    for name, x in (("pre", planted.pre), ("ft", planted.ft)):
        np.savez(tmp_path / f"{name}.npz", patient_id=ids, study_id=visits, embeddings=x)
    table = planted.radiomics.assign(patient_id=ids)
    table.insert(1, "study_id", visits)
    table.to_parquet(tmp_path / "r.parquet")
    paths = {
        "pre": tmp_path / "pre.npz",
        "ft": tmp_path / "ft.npz",
        "radiomics": tmp_path / "r.parquet",
    }
    study = load(paths)
    assert len(study.ids) == 40
    splits = pd.Series(study.split).groupby(study.ids["patient_id"].to_numpy()).nunique()
    assert splits.max() == 1


def test_own_split_is_used(planted: Planted, paths: dict[str, Path], tmp_path: Path) -> None:
    own = pd.DataFrame(
        {"patient_id": planted.ids, "split": ["train"] * 30 + ["val"] * 4 + ["test"] * 6}
    )
    own.sample(frac=1, random_state=0).to_csv(tmp_path / "split.csv", index=False)
    study = load(paths, split=tmp_path / "split.csv")
    assert study.ids["patient_id"][study.rows("test")].tolist() == planted.ids[34:].tolist()


def test_patients_without_the_roi_have_no_part_where_it_is_analysed_alone(
    planted: Planted, tmp_path: Path
) -> None:
    lesion = planted.radiomics.filter(like=".gland.").rename(
        columns=lambda c: c.replace(".gland.", ".lesion.")
    )
    lesion.iloc[:15] = np.nan
    planted = Planted(
        **{**vars(planted), "radiomics": pd.concat([planted.radiomics, lesion], axis=1)}
    )
    paths = planted.write(tmp_path)
    both = load(paths)
    assert len(both.ids) == 40
    assert set(both.features["roi"]) == {"gland"}
    assert both.dropped["reason"].str.contains("not finite in 38%").all()
    only = load(paths, rois=("lesion",))
    assert len(only.ids) == 25
    assert not only.set_aside
    assert only.notes[0] == "15 row(s) without lesion features have no part in it"
    planted.radiomics.iloc[20, 1:] = np.nan
    blank = load(planted.write(tmp_path), rois=("lesion",))
    assert len(blank.ids) == 24
    assert [(e.patient_id, e.reason) for e in blank.set_aside] == [
        ("P0020", "the region of interest is missing")
    ]


def test_modalities_can_be_chosen(planted: Planted, tmp_path: Path) -> None:
    paths = planted.write(tmp_path)
    chosen = load(paths).features["modality"].iloc[0]
    study = load(paths, modalities=(chosen,))
    assert set(study.features["modality"]) == {chosen}
    with pytest.raises(InputError, match="no column of modality 'pet'"):
        load(paths, modalities=("pet",))


def test_embeddings_as_a_table_equal_the_npz(planted: Planted, tmp_path: Path) -> None:
    paths = planted.write(tmp_path)
    frame = read_embeddings(paths["pre"])
    frame.to_csv(tmp_path / "pre.csv", index=False)
    pd.testing.assert_frame_equal(read_embeddings(tmp_path / "pre.csv"), frame, rtol=1e-6)


def test_patients_with_too_little_are_set_aside(planted: Planted, paths: dict[str, Path]) -> None:
    def spoil(table: pd.DataFrame) -> None:
        table.loc[table["patient_id"] == "P0004", table.columns[1:15]] = np.nan

    rewrite(paths["radiomics"], spoil)
    planted.ft[5, 2] = np.inf
    np.savez(paths["ft"], patient_id=planted.ids, embeddings=planted.ft)
    study = load(paths)
    assert len(study.ids) == 38
    messages = [str(error) for error in study.set_aside]
    assert "patient P0004" in messages[0]
    assert "14 of 48 features are not finite" in messages[0]
    assert "patient P0005" in messages[1]
    assert "ft.npz" in messages[1]


def test_a_patient_without_a_region_is_told_how_to_leave_it_out(paths: dict[str, Path]) -> None:
    def spoil(table: pd.DataFrame) -> None:
        tumour = table.filter(like=".gland.").rename(columns=lambda c: c.replace("gland", "tumour"))
        table[tumour.columns] = tumour
        table.loc[7, tumour.columns] = np.nan

    rewrite(paths["radiomics"], spoil)
    (error,) = load(paths).set_aside
    assert "no tumour, leave the region out for all (--roi gland)" in str(error)


def test_a_missing_feature_takes_the_median_of_the_train_patients(paths: dict[str, Path]) -> None:
    column = "t2.gland.original_glcm_F0"
    before = load(paths)
    at = before.features["column"].tolist().index(column)
    holes = [before.ids["patient_id"][before.rows(split)].iloc[0] for split in ("train", "test")]

    def spoil(table: pd.DataFrame) -> None:
        table.loc[table["patient_id"].isin(holes), column] = np.nan

    rewrite(paths["radiomics"], spoil)
    after = load(paths)
    assert not after.set_aside
    assert after.notes[0].startswith("2 missing value(s) of 2 patient(s) in 1 column(s)")
    hole = after.ids["patient_id"].isin(holes).to_numpy()
    seen = before.r[before.rows("train") & ~hole, at]
    np.testing.assert_allclose(after.r[hole, at], np.median(seen))
    np.testing.assert_array_equal(after.r[~hole], before.r[~hole])


def test_constant_columns_are_dropped_and_listed(paths: dict[str, Path]) -> None:
    rewrite(paths["radiomics"], lambda t: t.assign(**{"t2.gland.original_glcm_F0": 3.0}))
    study = load(paths)
    assert study.dropped["column"].tolist() == ["t2.gland.original_glcm_F0"]
    assert "t2.gland.original_glcm_F0" not in set(study.features["column"])


def test_the_audit_beside_the_table_says_why_columns_go(paths: dict[str, Path]) -> None:
    """From the audit's own side table of a spoilt one: NaN with a reason, then the rule."""
    table = pd.read_csv(paths["radiomics"], dtype={"patient_id": str})
    same, first, twice, often, once = table.columns[1:6]
    table[same] = 3.0
    table[twice] = -2.0 * table[first]
    table.loc[:11, often] = np.nan
    table.loc[0, once] = np.inf
    levels = pd.DataFrame(
        [(p, "", "t2", "gland", "original", 40, 30, 900) for p in table["patient_id"]],
        columns=list(Image._fields),
    )
    audited = audit(table, levels)
    audited.table.to_csv(paths["radiomics"], index=False)
    without = load(paths)
    assert set(without.dropped["column"]) == {same, often}
    side = paths["radiomics"].with_name("radiomics-audit.csv")
    audited.findings.to_csv(side, index=False)
    study = load(paths)
    assert study.dropped.set_index("column")["reason"].to_dict() == {
        same: "constant: 3 in all 40 patients",
        twice: f"proportional: -2 x {first} in all 40 patients",
        often: "not finite in 30% of the patients: undefined in 12 patient(s)",
    }
    assert study.notes[0].endswith("(by the audit: 1 infinite)")
    given = side.rename(side.with_name("elsewhere.csv"))
    pd.testing.assert_frame_equal(load(paths, audit=given).dropped, study.dropped)
    kept = [c for c in without.features["column"] if c != twice]
    assert study.features["column"].tolist() == kept


def test_a_column_stays_where_the_one_it_repeats_is_not_there(paths: dict[str, Path]) -> None:
    first, second = "t2.gland.original_glcm_F0", "t2.gland.original_glcm_F1"
    side = paths["radiomics"].with_name("radiomics-audit.csv")
    side.write_text(
        f"patient_id,column,kind,reason\n,{second},proportional,2 x {first} in all 40 patients\n"
    )
    assert second in set(load(paths).features["column"]), "by its values it is no multiple"
    rewrite(paths["radiomics"], lambda t: t.assign(**{second: 2 * t[first]}))
    assert second not in set(load(paths).features["column"])
    rewrite(paths["radiomics"], lambda t: t.drop(columns=first))
    assert second in set(load(paths).features["column"])


def test_refuses_what_is_no_audit(paths: dict[str, Path]) -> None:
    side = paths["radiomics"].with_name("radiomics-audit.csv")
    side.write_text("who,when\nme,today\n")
    with pytest.raises(InputError, match=r"radiomics-audit.csv: no column patient_id, so not the"):
        load(paths)
    side.write_bytes(b"")
    with pytest.raises(InputError, match=r"radiomics-audit.csv: not readable as the audit"):
        load(paths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t.iloc[:1]]), r"radiomics.csv: 1 duplicate id\(s\): P"),
        (lambda t: t.rename(columns={"patient_id": "id"}), "radiomics.csv: column patient_id"),
        (
            lambda t: t.assign(**{"t2.gland.original_glcm_F0": "n/k"}),
            r"radiomics.csv: column 't2.gland.original_glcm_F0' is not numeric \(patient P",
        ),
        (lambda t: t.assign(age=60), "radiomics.csv: .*age"),
        (lambda t: t.iloc[:0], "radiomics.csv: the table has no rows"),
        (lambda t: t[["patient_id"]], "radiomics.csv: no columns beside the ids"),
        (lambda t: t.iloc[:4], r"4 of 40 patients joined: .*radiomics.csv has only 4\. .*--allow"),
        (
            lambda t: t.assign(patient_id="X" + t["patient_id"]),
            r"0 of 40 patients joined: .*pre.npz has 'P0000' where .*radiomics.csv has 'XP0000' "
            r"\(a prefix",
        ),
        (
            lambda t: t.assign(**{c: 1.0 for c in t.columns if c != "patient_id"}),
            "every feature is constant",
        ),
    ],
)
def test_refuses_a_bad_radiomics_table(paths: dict[str, Path], change, message: str) -> None:
    rewrite(paths["radiomics"], change)
    with pytest.raises(InputError, match=message):
        load(paths)


def test_few_patients_may_be_meant(paths: dict[str, Path]) -> None:
    rewrite(paths["radiomics"], lambda t: t.sort_values("patient_id").iloc[:15])
    with pytest.raises(InputError, match="15 of 40 patients joined"):
        load(paths)
    study = load(paths, allow_partial=True)
    assert len(study.ids) == 15
    assert study.notes[0].startswith("15 of 40 patients joined: ")
    rewrite(paths["radiomics"], lambda t: t.iloc[:4])
    with pytest.raises(
        InputError, match=r"4 patient\(s\) are complete .*at least 10 are needed; first finding"
    ):
        load(paths, allow_partial=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": np.ones((3, 2))}, "pre.npz: array 'patient_id' is missing"),
        ({"patient_id": ["a"], "embeddings": np.ones((3, 2))}, r"found \(1,\) and \(3, 2\)"),
        ({"patient_id": ["a", "b"], "embeddings": np.ones((2, 2, 2))}, "--pool-tokens mean"),
        ({"patient_id": ["a", "b"], "embeddings": np.ones((2, 2, 2, 2))}, r"\(n, d\)"),
        ({"patient_id": ["a", "b"], "embeddings": [["x"], ["y"]]}, "not numbers"),
        ({"patient_id": ["a", "a"], "embeddings": np.ones((2, 2))}, "1 duplicate"),
        ({"patient_id": np.array(["a", 1], object), "embeddings": np.ones((2, 2))}, "not readable"),
    ],
)
def test_refuses_bad_embeddings(tmp_path: Path, arrays, message: str) -> None:
    np.savez(tmp_path / "pre.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_embeddings(tmp_path / "pre.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 truncated"])
def test_refuses_what_is_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pre.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"pre.npz: not readable as .npz"):
        read_embeddings(tmp_path / "pre.npz")


def test_refuses_other_widths_and_missing_files(planted: Planted, paths: dict[str, Path]) -> None:
    np.savez(paths["ft"], patient_id=planted.ids, embeddings=planted.ft[:, :4])
    with pytest.raises(InputError, match=r"ft.npz: embeddings have 4 dimensions, .*pre.npz has 6"):
        load(paths)
    paths["ft"].unlink()
    with pytest.raises(InputError, match=r"ft.npz: no such file"):
        load(paths)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("P0000", "train"), ("P0000", "test")], "P0000 is in two splits"),
        ([("P0000", "dev")], "split 'dev'"),
        ([("P0000", "train")], "no split for patient P0001"),
    ],
)
def test_refuses_a_bad_split(paths: dict[str, Path], tmp_path: Path, rows, message: str) -> None:
    pd.DataFrame(rows, columns=["patient_id", "split"]).to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(InputError, match=message):
        load(paths, split=tmp_path / "split.csv")


@pytest.mark.parametrize(("holes", "kept"), [(8, True), (9, False)])
def test_a_column_may_miss_a_fifth_of_the_patients(
    planted: Planted, paths: dict[str, Path], holes: int, kept: bool
) -> None:
    """The bound itself: 8 of 40 patients are a fifth, 9 are less than a quarter."""
    column = "t2.gland.original_glcm_F0"
    planted.radiomics.loc[: holes - 1, column] = np.nan
    study = load(paths | {"radiomics": planted.radiomics})
    assert (column in set(study.features["column"])) == kept
    assert len(study.ids) == 40


@pytest.mark.parametrize(("holes", "kept"), [(9, True), (10, False)])
def test_a_patient_may_lack_a_fifth_of_the_features(
    planted: Planted, paths: dict[str, Path], holes: int, kept: bool
) -> None:
    """9 of 48 features are less than a fifth, 10 are less than a quarter."""
    planted.radiomics.iloc[4, 1 : 1 + holes] = np.nan
    study = load(paths | {"radiomics": planted.radiomics})
    assert ("P0004" in set(study.ids["patient_id"])) == kept
    assert len(study.features) == 48


@pytest.mark.parametrize("place", ["radiomics", "pre", "ft"])
def test_one_absurd_value_sets_its_patient_aside(place: str) -> None:
    planted = plant(n=60, d=12)
    radiomics = planted.radiomics.copy()
    sides = {"pre": planted.pre.copy(), "ft": planted.ft.copy()}
    if place == "radiomics":
        radiomics.iloc[7, 4] = 1e20
    else:
        sides[place][7, 4] = -1e20
    study = load_study((planted.ids, sides["pre"]), {"cls": (planted.ids, sides["ft"])}, radiomics)
    (error,) = study.set_aside
    assert error.patient_id == planted.ids[7]
    assert "1e+20" in error.reason
    assert (radiomics.columns[4] if place == "radiomics" else "dimension 4") in error.reason
    assert len(study.ids) == 59


def test_heavy_tails_and_sparse_columns_are_no_absurd_values() -> None:
    rng = np.random.default_rng(0)
    planted = plant(n=200, d=12)
    radiomics = planted.radiomics.copy()
    n = len(radiomics)
    radiomics.iloc[:, 1] = np.exp(2.5 * rng.normal(size=n))
    radiomics.iloc[:, 2] = rng.standard_t(2, n)
    radiomics.iloc[:, 3] = np.exp(3 * rng.normal(size=n))
    radiomics.iloc[:, 4] = np.geomspace(1e2, 1e9, n)
    radiomics.iloc[:, 5] = np.where(np.arange(n) % 40 == 0, 5e7, 0.0)
    radiomics.iloc[:, 6] = np.where(np.arange(n) % 7 == 0, 3e12, rng.normal(size=n))
    study = load_study((planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, radiomics)
    assert not study.set_aside
