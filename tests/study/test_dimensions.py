"""Dimensions by name, ids that do not meet, and embeddings that say nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from lens import stages
from lens.errors import InputError
from lens.settings import Settings
from lens.study.dimensions import check_run, matched
from lens.study.embedding_checks import check_finite, check_usable, repeated_rows
from lens.study.id_causes import probable_cause, same_but_for_writing
from lens.study.load import load_study
from tests.planted import Planted, plant


@pytest.fixture
def planted() -> Planted:
    return plant(n=120, d=6)


def table(ids: np.ndarray, x: np.ndarray, names: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(x, columns=names)
    frame.insert(0, "patient_id", ids)
    return frame


RUN = [f"f{i:02d}" for i in range(6)]


@pytest.mark.parametrize(
    ("pre", "ft"),
    [
        (RUN, [f"e{i}" for i in range(6)]),
        (RUN, [str(i) for i in range(6)]),
        ([f"pre_{i}" for i in range(6)], [f"ft_{i}" for i in range(6)]),
        (list("abcdef"), list("abcdef")),
        (RUN, None),
        (list("abcdef"), None),
    ],
)
def test_the_order_of_named_columns_changes_nothing(
    planted: Planted, pre: list[str], ft: list[str] | None
) -> None:
    before = table(planted.ids, planted.pre, pre)
    order = np.random.default_rng(0).permutation(6)
    after = (planted.ids, planted.ft)
    if ft is not None:
        after = table(planted.ids, planted.ft[:, order], [ft[i] for i in order])
    elif pre == RUN:
        before = before[["patient_id", *(pre[i] for i in order)]]
    study = load_study(before, {"cls": after}, planted.radiomics)
    plain = load_study(
        (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics
    )
    back = np.argsort([pre[i] for i in order]) if ft is None and pre == RUN else np.arange(6)
    np.testing.assert_array_equal(study.x_pre[:, back], plain.x_pre)
    np.testing.assert_array_equal(study.x_ft["cls"][:, back], plain.x_ft["cls"])


def test_other_columns_are_named() -> None:
    for other, message in {
        (*RUN[:5], "f06"): "b: .*columns differ: a alone has 'f05'; b alone has 'f06'",
        (
            *RUN,
            "volume_ml",
        ): "b: embeddings have 7 dimensions, a has 6, .*: b alone has 'volume_ml'",
        ("x", *RUN[1:]): "a alone has 'f00'; b alone has 'x'",
    }.items():
        with pytest.raises(InputError, match=message):
            matched(RUN, list(other), ("a", "b"), named=True)


@pytest.mark.parametrize(
    ("columns", "broken"),
    [
        ([*RUN, "label"], "'label'"),
        (["psa1", *RUN, "volume_ml"], "'psa1', 'volume_ml'"),
        ([f"l{i}_f{j}" for i in (1, 2) for j in range(3)], ""),
        (["cls_0", "cls_1", "mean_0", "mean_1"], ""),
        (["mean", "sd", "skew"], ""),
        (["e0"], ""),
        ([f"{stem}_{i}" for stem in ("cls", "mean") for i in range(4)], ""),
        (["pirads_reader1", "pirads_reader2", *RUN], "'pirads_reader1', 'pirads_reader2'"),
    ],
)
def test_a_name_that_breaks_the_run_is_refused(columns: list[str], broken: str) -> None:
    if not broken:
        check_run(columns, "t")
        return
    with pytest.raises(InputError, match=rf"^t: column\(s\) {broken} break the run of names"):
        check_run(columns, "t")


WRITINGS: dict[str, tuple[Callable[[int], str], Callable[[int], str], str]] = {
    "zeros": (lambda i: f"{i:03d}", str, "leading zeros"),
    "decimals": (str, lambda i: f"{i}.0", "decimals"),
    "prefix": (lambda i: f"sub-{i:03d}", lambda i: f"{i:03d}", "a prefix"),
    "case": (lambda i: f"p{i}x", lambda i: f"P{i}X", "upper and lower case"),
    "files": (lambda i: f"P{i}", lambda i: f"P{i}.nii.gz", "file names"),
    "several": (lambda i: f"sub-{i:03d}", lambda i: f"{i}.0", "several"),
    "invisible": (lambda i: f"P{i}", lambda i: f"P{i}\u200b", "do not show"),
    "blanks": (lambda i: f"P {i}", lambda i: f"P{i}", "blanks"),
    "powers": (lambda i: f"{i + 1}00000", lambda i: f"{i + 1}e5", "powers of ten"),
}


@pytest.mark.parametrize("kind", WRITINGS)
def test_the_cause_is_named(kind: str) -> None:
    one, other, cause = WRITINGS[kind]
    sides = [one(i) for i in range(20)], [other(i) for i in range(20)]
    assert cause in probable_cause(*sides, ("a", "b"))
    assert f"a has {sides[0][0]!r} where b has" in probable_cause(*sides, ("a", "b"))
    assert same_but_for_writing(*sides)


def test_ids_that_share_nothing_show_three_of_each() -> None:
    said = probable_cause(list("pqrs"), [f"{i}z" for i in range(9)], ("a", "b"))
    assert said == "a has 'p', 'q', 'r', ..., b has '0z', '1z', '2z', ..."
    assert not same_but_for_writing(list("pqrs"), [f"{i}z" for i in range(9)])
    assert probable_cause([], ["a"], ("a", "b")) == ""


def test_a_cohort_never_shrinks_in_silence(
    planted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    """``7`` against ``007``: of 120 patients, 20 have three digits on both sides."""
    short, long = np.arange(120).astype(str), np.array([f"{i:03d}" for i in range(120)])
    pre, ft = (short, planted.pre), {"cls": (short, planted.ft)}
    radiomics = planted.radiomics.assign(patient_id=long)
    with pytest.raises(
        InputError,
        match=r"^20 of 120 patients joined: pre has '0' where radiomics has '000' \(leading zeros\)"
        r".*--allow-partial",
    ):
        load_study(pre, ft, radiomics)
    study = load_study(pre, ft, radiomics, allow_partial=True)
    assert len(study.ids) == 20
    assert study.notes[0].startswith("20 of 120 patients joined")
    assert study.notes[0] in caplog.text
    radiomics = planted.radiomics.assign(patient_id=np.where(np.arange(120) < 100, short, long))
    caplog.clear()
    whole = load_study(pre, ft, radiomics)
    assert len(whole.ids) == 120
    assert not caplog.records
    few = load_study(pre, ft, planted.radiomics.assign(patient_id=short).iloc[:90])
    assert few.notes == ("90 of 120 patients joined: radiomics has only 90",)
    assert len(few.set_aside) == 30


def test_a_region_that_looks_misspelt_is_asked_about(planted: Planted) -> None:
    pre, ft = (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}
    for options, meant in ({"modalities": ("T2",)}, "t2"), ({"rois": ("glnad",)}, "gland"):
        with pytest.raises(InputError, match=f"did you mean {meant}"):
            load_study(pre, ft, planted.radiomics, **options)
    columns = planted.radiomics.columns[1:6]
    names = {c: c.replace(".gland.", ".Gland.") for c in columns}
    study = load_study(pre, ft, planted.radiomics.rename(columns=names))
    assert study.notes == (
        "radiomics: roi 'Gland' and 'gland' are taken as different ones; are they meant to be one?",
    )
    names = {c: c.replace("t2.", "T2.") for c in columns}
    with pytest.raises(InputError, match="modalities 'T2' and 't2' differ in upper and lower"):
        load_study(pre, ft, planted.radiomics.rename(columns=names))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.zeros_like, "every embedding is zero"),
        (np.ones_like, "all 120 rows are one and the same embedding"),
        (lambda x: x * np.float32(1e-42), "the largest magnitude is .*e-42"),
        (lambda x: x * np.float32(1e30), r"the largest magnitude is .*e\+30"),
        (lambda x: x.astype(np.float64) * 1e308, "not finite in 120 of 120 patients"),
        (lambda x: np.where(np.arange(6) == 2, np.inf, x), r"dimension 2 .* in 120 of 120"),
        (lambda x: np.where(np.arange(6) > 2, np.nan, x), r"dimension 3 .*\(and 2 more\)"),
    ],
)
def test_an_embedding_that_says_nothing_is_refused(planted: Planted, change, message: str) -> None:
    with np.errstate(over="ignore"):
        x = change(planted.ft)
    with pytest.raises(InputError, match=rf"^ft\['cls'\]: .*{message}"):
        load_study((planted.ids, planted.pre), {"cls": (planted.ids, x)}, planted.radiomics)


def test_patients_without_any_embedding_are_set_aside_instead(planted: Planted) -> None:
    planted.ft[:40] = np.nan
    study = load_study(
        (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics
    )
    assert len(study.ids) == 80
    check_finite(planted.ft, "x")
    check_usable(planted.pre, "x")


def test_features_beyond_double_precision_are_dropped_or_refused(planted: Planted) -> None:
    pre, ft = (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}
    radiomics = planted.radiomics.copy()
    radiomics[radiomics.columns[1]] = 1e308 * np.random.default_rng(0).random(120)
    study = load_study(pre, ft, radiomics)
    assert not study.set_aside
    assert study.dropped["column"].tolist() == [radiomics.columns[1]]
    assert "which no feature has" in study.dropped["reason"][0]
    radiomics.iloc[:, 1:] = 1e308 * np.random.default_rng(0).random((120, 48))
    with pytest.raises(InputError, match=r"radiomics: no feature is left: .*overflow"):
        load_study(pre, ft, radiomics)


def test_rows_given_twice_are_said_in_terminal_and_report(
    planted: Planted, caplog: pytest.LogCaptureFixture
) -> None:
    planted.pre[10:30] = planted.pre[10]
    planted.ft[5:8] = 0
    planted.radiomics.iloc[40:42, 1:] = planted.radiomics.iloc[40, 1:].to_numpy(float)
    study = load_study(
        (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics
    )
    with caplog.at_level(logging.WARNING):
        settings = stages.begin(study, Settings())
    said = [record.message for record in caplog.records]
    assert said[0].startswith("20 rows have one and the same embedding before fine-tuning (P0010, ")
    assert said[1].startswith("3 rows have nothing but zeros as embedding after fine-tuning on cls")
    assert said[2].startswith("2 rows have one and the same radiomics (P0040, P0041), as after")
    assert stages.facts(study, settings)["notes"][:3] == said
    two = pd.DataFrame({"patient_id": list("abcd")})
    again = np.array([[1.0, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]])
    assert "and 2 more are shared by two or more" in repeated_rows(again, two, "row")
    assert repeated_rows(again[1:3], two, "row") == ""
