"""Column names split into what they measure, and nothing else passes."""

from __future__ import annotations

import pytest

from lens.errors import InputError
from lens.radiomics.names import column_name, parse_columns


@pytest.mark.parametrize(
    ("column", "parts"),
    [
        ("t2.gland.wavelet-LLH_glcm_Idmn", ("t2", "gland", "wavelet-LLH", "glcm", "Idmn")),
        (
            "adc.lesion.original_firstorder_90Percentile",
            ("adc", "lesion", "original", "firstorder", "90Percentile"),
        ),
        (
            "dwi_b1400.zone_1.log-sigma-2-0-mm-3D_glrlm_RunEntropy",
            ("dwi_b1400", "zone_1", "log-sigma-2-0-mm-3D", "glrlm", "RunEntropy"),
        ),
        ("t2.gland.original_shape_Sphericity", ("t2", "gland", "original", "shape", "Sphericity")),
        ("t2.gland.square_ngtdm_Busyness", ("t2", "gland", "square", "ngtdm", "Busyness")),
        (
            "t2.gland.wavelet2-HHL_gldm_GrayLevelVariance",
            ("t2", "gland", "wavelet2-HHL", "gldm", "GrayLevelVariance"),
        ),
        (
            "t2.gland.lbp-3D-m1_glszm_ZoneEntropy",
            ("t2", "gland", "lbp-3D-m1", "glszm", "ZoneEntropy"),
        ),
    ],
)
def test_parts(column, parts):
    table = parse_columns([column])
    assert list(table.columns) == [
        "column", "modality", "roi", "image", "feature_class", "feature",
    ]  # fmt: skip
    assert tuple(table.iloc[0]) == (column, *parts)
    assert column_name(parts[0], parts[1], "_".join(parts[2:])) == column


def test_order_is_kept_and_no_column_is_a_table_too():
    columns = ["t2.gland.original_glcm_Idn", "adc.gland.original_glcm_Idn"]
    assert list(parse_columns(columns)["column"]) == columns
    assert parse_columns([]).empty


@pytest.mark.parametrize(
    "column",
    [
        "volume_ml",
        "t2.original_glcm_Idn",
        "t2.gland.original_glcm",
        "t2.gland.original_texture_Idn",
        "t2.gland.original_glcm_Idn ",
        "T2_original_glcm_Idn",
    ],
)
def test_other_names_are_refused_by_name(column):
    with pytest.raises(InputError, match=r"Expected <modality>\.<roi>") as error:
        parse_columns(["t2.gland.original_glcm_Idn", column])
    assert repr(column) in str(error.value)
    assert "'t2.gland.original_glcm_Idn'" not in str(error.value)


def test_many_misfits_are_counted():
    with pytest.raises(InputError, match="and 3 more"):
        parse_columns([f"x{i}" for i in range(8)])
