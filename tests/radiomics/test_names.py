"""Column names split into what they measure, and nothing else passes."""

from __future__ import annotations

import pytest

from experiments.main_job.plan import Scope
from lens.errors import InputError
from lens.names import name_problem
from lens.radiomics.names import column_name, parse_columns
from lens.radiomics.parameters import parameter_files


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


HOSTILE = {
    "/tmp/outside": "'/' may not",
    "a\\b": "may not",
    "a\0b": "may not",
    "$x^2$": "'$' may not",
    "a\u202eb": "may not",
    "a\x1b[31m": "may not",
    "r" * 300: r"\(300 letters\): 64 at most",
}


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_a_hostile_name_is_refused_in_tables_and_flags(name):
    finding = HOSTILE[name].replace("$", r"\$")
    for column in (f"{name}.gland.original_glcm_Idn", f"t2.{name}.original_glcm_Idn"):
        with pytest.raises(InputError, match=finding):
            parse_columns(["t2.gland.original_glcm_Idn", column])
    with pytest.raises(InputError, match=finding):
        parameter_files((f"{name}=mine.yaml",))
    for scope in ({"rois": (name,)}, {"modalities": (name,)}, {"channels": (name,)}):
        with pytest.raises(InputError, match=finding):
            Scope(**scope)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_leads_to_another_folder_is_no_name(name):
    assert "is no name" in name_problem(name)


@pytest.mark.parametrize(
    "name", ["t2", "dwi_b1400", "Prostata-Rand", "Läsion", "前立腺", "T2*", "x" * 64]
)
def test_names_in_any_language_pass(name):
    assert name_problem(name) == ""
    assert parse_columns([f"{name}.gland.original_glcm_Idn"])["modality"].item() == name


def test_a_scope_of_many_long_regions_is_refused_before_its_folder_is_made():
    with pytest.raises(InputError, match="too long for a folder"):
        Scope(tuple(f"{i}{'r' * 60}" for i in range(3)))


def test_a_dollar_in_a_figure_is_a_letter():
    """Two of them would make a formula, and a broken one would end the report."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from lens.report.figures import STYLE

    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        axes.set_yticks([0], [r"$\frac$"])
        axes.set_title(r"$x^2$ $\undefined$")
        figure.canvas.draw()
        drawn = axes.get_yticklabels()[0].get_window_extent().width
    assert drawn > 20
