"""Defaults that follow the cohort, and what is said where a flag does not."""

from __future__ import annotations

import numpy as np
import pytest

from lens import stages
from lens.settings import DEFAULTS, Settings, changed, default_width
from lens.study.load import load_study
from lens.study.study import Study
from tests.planted import plant


@pytest.fixture(scope="module")
def study() -> Study:
    """120 patients, of whom 96 are fitted."""
    planted = plant(n=120, d=16)
    return load_study((planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)},
                      planted.radiomics)  # fmt: skip


@pytest.mark.parametrize(
    ("patients", "width"),
    [(3, 4), (26, 4), (63, 4), (64, 8), (83, 8), (96, 8), (127, 8), (128, 16), (680, 64),
     (1023, 64), (1024, 128), (10**6, 128)],
)  # fmt: skip
def test_the_width_is_a_power_of_two_up_to_an_eighth_of_the_patients(
    patients: int, width: int
) -> None:
    assert default_width(patients) == width


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({}, 8),
        ({"hidden": 128}, 128),
        ({"mode": "paper"}, 128),
        ({"mode": "paper", "hidden": 5}, 5),
    ],
)
def test_a_flag_wins_and_paper_mode_has_the_papers_width(
    study: Study, options: dict[str, object], width: int
) -> None:
    assert stages.begin(study, changed(DEFAULTS, **options)).mlp.hidden == width


@pytest.mark.parametrize("options", [{"mode": "paper"}, {"hidden": 49}])
def test_too_many_hidden_units_are_named_in_the_first_lines(
    study: Study, options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    settings = stages.begin(study, changed(DEFAULTS, **options))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{settings.mlp.hidden} hidden units for 96 fitted patients" in record.message
    assert "--hidden 8" in record.message
    assert stages.facts(study, settings)["notes"][0] == record.message


def test_the_default_needs_no_warning_and_rows_are_not_patients(
    study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    assert stages.begin(study, Settings()).mlp.hidden == 8
    assert stages.begin(study, changed(DEFAULTS, hidden=48)).mlp.hidden == 48
    assert not caplog.records
    ids = np.repeat([f"p{i}" for i in range(20)], 6)
    planted = plant(n=120, d=16)
    radiomics = planted.radiomics.assign(patient_id=ids, study_id=np.arange(120).astype(str))
    table = radiomics[["patient_id", "study_id"]].assign(
        **{f"x{i}": planted.pre[:, i] for i in range(16)}
    )
    few = load_study(table, {"cls": table.assign(x0=planted.ft[:, 0])}, radiomics)
    assert stages.begin(few, Settings()).mlp.hidden == 4
