"""The lens card: valid by its schema, the run's own numbers, and nothing of a patient."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator, ValidationError

import lens.cards
from lens.cards.card import CARD, FEATURE_COLUMNS, FEWEST, as_text, card, write_card
from lens.files import write_json, write_table
from lens.report import run_facts_section
from lens.report.page import write_report
from lens.report.results import read_results
from lens.study.fingerprints import fingerprints, rows_hash
from lens.study.load import load_study
from tests.planted import plant

SCHEMA = json.loads(
    (Path(str(lens.cards.__file__)).parent / "card-1.schema.json").read_text("utf-8")
)
VALID = Draft202012Validator(SCHEMA)

PICTURELESS = [run_facts_section.SECTION]
"""Sections of a page that is drawn at once; the card is written with any."""


def test_the_schema_is_one_and_forbids_what_it_does_not_name() -> None:
    Draft202012Validator.check_schema(SCHEMA)

    def closed(part: Any) -> bool:
        if isinstance(part, list):
            return all(map(closed, part))
        if not isinstance(part, dict):
            return True
        # A mapping of names to values is closed by the pattern of its values.
        here = part.get("type") != "object" or "additionalProperties" in part
        return here and all(map(closed, part.values()))

    assert closed(SCHEMA)


def test_a_run_writes_a_valid_card_of_its_own_numbers(finished: Path) -> None:
    content = json.loads((finished / CARD).read_text("ascii"))
    VALID.validate(content)
    for task in ("cls", "same"):
        table = pd.read_parquet(finished / task / "features.parquet")
        of_card = pd.DataFrame(content["tasks"][task]["features"])
        assert of_card["column"].tolist() == table["column"].tolist()
        for name in ("delta_r2", "delta_r2_low", "r2_ridge_pre", "p_maxt"):
            # Six significant digits are kept.
            np.testing.assert_allclose(of_card[name], table[name], rtol=1e-5)
        assert of_card["verdict"].tolist() == table["verdict"].tolist()
        assert set(of_card["n"]) == {120}
        levels = pd.read_csv(finished / task / "levels.csv")
        of_card = pd.DataFrame(content["tasks"][task]["levels"])
        np.testing.assert_allclose(of_card["delta_r2_cv"], levels["delta_r2_cv"], rtol=1e-5)
    assert "columns_left_out" in content["tasks"]["cls"]


@pytest.mark.parametrize("key", ["patient_id", "file", "r_min"])
def test_a_card_with_anything_else_is_invalid(content: dict[str, Any], key: str) -> None:
    VALID.validate(content)
    for change in (
        lambda made: made.update({key: "x"}),
        lambda made: made["settings"].update({key: "x"}),
        lambda made: made["tasks"]["cls"].update({key: ["x"]}),
        lambda made: made["tasks"]["cls"]["features"][0].update({key: "x"}),
        lambda made: made["tasks"]["cls"]["levels"][0].update({key: "x"}),
    ):
        made = copy.deepcopy(content)
        change(made)
        with pytest.raises(ValidationError):
            VALID.validate(made)


def test_a_card_holds_no_patient_no_path_and_no_place(folder: Path) -> None:
    """Every text of a run folder that is not meant for others is put in, and looked for."""
    run = json.loads((folder / "run.json").read_text("utf-8"))
    ids = pd.read_csv(folder / "split.csv")["patient_id"].tolist()
    secret = ["HOSTNAME", "/home/somebody/cohort", "Mueller", ids[0], ids[-1]]
    said = " ".join(secret)
    run |= {"machine": said, "device": said, "notes": [said], "inputs": {said: "0" * 64}}
    run["config"] |= {
        "out": said, "pre": [said], "adjust": [said, "age_of_wife"], "site": said,
        "id_column": said, "labels": said, "exposure": [said],
    }  # fmt: skip
    facts = run["scopes"].pop("all")
    facts |= {"notes": [said], "warnings": [said]}
    run["scopes"][said] = facts
    run["tasks"] = dict.fromkeys(run["tasks"], said)
    write_json(folder / "run.json", run)
    failed = dict.fromkeys(("patient_id", "file", "stage", "reason", "remedy"), said)
    write_table(pd.DataFrame([failed]), folder / "failures.csv")
    write_table(pd.DataFrame({"column": [said], "reason": [said]}), folder / "dropped.csv")
    doctor = json.loads((folder / "doctor" / "doctor.json").read_text("utf-8"))
    write_json(folder / "doctor" / "doctor.json", doctor | {"notes": [said], "sentence": said})
    with np.load(folder / "projection.npz") as saved:
        ranges = [f"{value:.3f}" for value in (*saved["r_min"], *saved["r_max"])]

    text = as_text(card(read_results(folder)))
    VALID.validate(json.loads(text))
    assert not [each for each in (*secret, "age_of_wife", *ids) if each in text]
    assert json.loads(text)["settings"]["adjusted_for"] == 2
    assert json.loads(text)["tasks"]["cls"]["set_aside"] == 1
    assert json.loads(text)["date"] == run["started"][:10]
    assert run["started"][11:16] not in text, "neither the hour nor the zone"
    # Extremes of a feature are the values of single patients.
    assert sum(each in text for each in ranges) < len(ranges) / 10


def test_fewer_than_twenty_patients_get_no_card_and_the_page_is_drawn(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = json.loads((folder / "run.json").read_text("utf-8"))
    run["scopes"]["all"]["scored"] = FEWEST - 1
    write_json(folder / "run.json", run)
    assert (folder / CARD).is_file()
    (folder / "report.html").unlink()
    write_report(folder, PICTURELESS)
    assert not (folder / CARD).exists(), "that of an earlier run is taken away"
    assert (folder / "report.html").is_file()
    assert "no lens card is written: its statistics would be of 19 patients" in caplog.text

    run["scopes"]["all"]["scored"] = FEWEST
    write_json(folder / "run.json", run)
    assert write_card(folder, read_results(folder)).path == folder / CARD


def test_the_same_run_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / CARD).read_bytes()
    write_report(folder, PICTURELESS)
    assert (folder / CARD).read_bytes() == before
    # A row of a table is a line: people can read a card before they pass it on.
    assert max(map(len, before.splitlines())) < 2000
    assert set(FEATURE_COLUMNS) >= {"delta_r2", "verdict"}


def test_hashes_tell_the_same_data_under_other_ids_and_in_another_order(tmp_path: Path) -> None:
    planted = plant(n=40, d=6)
    other = np.array([f"Q{i:04d}" for i in np.random.default_rng(1).permutation(40)])

    def study(ids: np.ndarray, pre: np.ndarray):
        radiomics = planted.radiomics.assign(patient_id=ids)
        return load_study((ids, pre), {"cls": (ids, planted.ft)}, radiomics)

    one, again = (fingerprints(study(ids, planted.pre)) for ids in (planted.ids, other))
    assert one == again
    assert set(one["features"]) == {"t2.gland", "adc.gland"}
    changed = planted.pre.copy()
    changed[7, 3] += 0.01
    moved = fingerprints(study(planted.ids, changed))
    assert moved["before"] != one["before"]
    assert moved["features"] == one["features"]
    values = np.array([[0.0, np.nan], [1.0, 2.0]], np.float32)
    assert rows_hash(values) == rows_hash(np.array([[1.0, 2.0], [-0.0, -np.nan]], np.float32))
    assert rows_hash(values) != rows_hash(values.reshape(1, 4))
