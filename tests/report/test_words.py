"""Numbers and names as people read them."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from markupsafe import Markup

from lens.cohort.intensities import KINDS
from lens.report.encoding_section import named
from lens.report.words import interval, label, modality_name, number


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.125, 2, "0.12"), (-0.5, 2, "−0.50"), (-0.001, 2, "0.00"), (1e-9, 4, "0.0000"),
        (math.nan, 2, "–"), (None, 2, "–"), (-1234.5, 1, "−1234.5"),
    ],
)  # fmt: skip
def test_numbers_have_fixed_digits_and_a_true_minus(value, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_an_interval_follows_its_value() -> None:
    row = {"r2": -0.25, "r2_low": -0.5, "r2_high": math.nan}
    assert interval(row, "r2") == Markup("−0.25 <small>[−0.50, –]</small>")


def test_classes_are_written_as_radiologists_do() -> None:
    row = {"modality": "t2", "roi": "gland", "image": "wavelet-LLH", "feature": "Idmn"}
    assert label(row | {"feature_class": "glcm"}) == "T2 gland, wavelet-LLH GLCM Idmn"
    assert label(row | {"feature_class": "shape"}) == "T2 gland, wavelet-LLH shape Idmn"
    assert label(row | {"feature_class": "shape2D"}) == "T2 gland, wavelet-LLH shape2D Idmn"


def test_acronyms_of_modalities_are_in_capitals_and_words_are_not() -> None:
    words = {"ultrasound", "xray", "mammogram", "t1map", "t2map"}
    for name in KINDS:
        assert modality_name(name) == (name if name in words else name.upper())
    assert [modality_name(name) for name in ("image", "venous", "CT")] == ["image", "venous", "CT"]


def test_the_rows_of_all_and_of_no_features_are_no_modalities() -> None:
    table = pd.DataFrame({"grouping": "modality", "group": ["t2 gland", "ct", "all", "none"]})
    assert named(table)["group"].tolist() == ["T2 gland", "CT", "all", "none"]
