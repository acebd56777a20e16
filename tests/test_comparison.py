"""The public call: every form of input, the same numbers as the main job, results that print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lens
from experiments.main_job.config import Config, ContextFlags, TableFlags
from experiments.sweep import job
from lens import cache
from lens.context import Context
from lens.errors import InputError
from lens.report.answer_text import in_lines
from lens.report.results import read_results
from lens.settings import PAPER_L1_GRID, DoctorForm, Settings, changed, doctor_form
from lens.study.study import Study
from tests.planted import Planted, plant
from tests.undrawn import undraw

SMALL: dict[str, Any] = {
    "hidden": 6, "epochs": 5, "l1": (1e-6,), "l2": (1e-5,), "folds": 3, "repeats": 1,
    "bootstraps": 30, "flips": 200,
}  # fmt: skip


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(n=120, d=16)


@pytest.fixture(scope="module")
def tables(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return planted.write(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def labels(planted: Planted) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    site = np.array(["a", "b"])[np.arange(120) % 2]
    used = np.arange(120) % 3 > 0
    return pd.DataFrame(
        {"patient_id": planted.ids, "age": rng.normal(60, 9, 120), "site": site, "used": used}
    )


@pytest.fixture(scope="module")
def compared(tables: dict[str, Path], labels: pd.DataFrame) -> lens.Comparison:
    """From paths, with everything that can be looked at around the verdicts."""
    return lens.compare(
        tables["pre"], {"cls": tables["ft"]}, tables["radiomics"], labels=labels, adjust=["age"],
        site="site", exposure={"cls": labels}, progress=False, **SMALL,
    )  # fmt: skip


def test_the_answer_is_the_planted_truth(compared: lens.Comparison, planted: Planted) -> None:
    verdicts = compared.verdicts
    erased = verdicts["column"].map(
        dict(zip(planted.radiomics.columns[1:], planted.factor == 0, strict=True))
    )
    assert (verdicts.loc[erased, "verdict"] == "lost").all()
    assert not verdicts.loc[~erased, "verdict"].isin(["lost", "gained"]).any()
    assert (verdicts["task"] == "cls").all()
    assert len(verdicts) == planted.radiomics.shape[1] - 1


def frame(planted: Planted, x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"e{i}" for i in range(x.shape[1])]).assign(
        patient_id=planted.ids
    )


FORMS = {
    "paths as text": lambda p, t: (str(t["pre"]), {"cls": str(t["ft"])}, str(t["radiomics"])),
    "arrays with ids": lambda p, t: ((p.ids, p.pre), {"cls": (p.ids, p.ft)}, p.radiomics),
    "lists": lambda p, t: (
        (p.ids.tolist(), p.pre.tolist()), {"cls": (list(p.ids), p.ft.tolist())},
        {name: values.tolist() for name, values in p.radiomics.items()},
    ),
    "tensors": lambda p, t: (
        (p.ids, torch.tensor(p.pre, requires_grad=True)), {"cls": (p.ids, torch.tensor(p.ft))},
        p.radiomics,
    ),
    "tables": lambda p, t: (
        frame(p, p.pre), {"cls": frame(p, p.ft).set_index("patient_id")},
        p.radiomics.set_index("patient_id"),
    ),
    "mappings": lambda p, t: (
        {"patient_id": p.ids, "embeddings": p.pre},
        {"cls": {"patient_id": p.ids, "embeddings": p.ft}}, p.radiomics.iloc[::-1],
    ),
}  # fmt: skip


class Taken(Exception):
    """Holds what the stages of the analysis would get: their study, settings and doctor's form."""


def taken(*tables: Any, **options: Any) -> tuple[Study, Settings, DoctorForm]:
    """What `lens.compare` makes of its input; all numbers follow from it."""

    def take(study: Study, settings: Settings, _: Context, form: DoctorForm, **__: Any) -> None:
        raise Taken(study, settings, form)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lens.comparison._compare", take)
        with pytest.raises(Taken) as found:
            lens.compare(*tables, progress=False, **SMALL | options)
    return found.value.args


def contents(study: Study) -> list[str]:
    """A hash of each part that a stage reads, to the last bit."""
    parts = (study.ids, study.features, study.split, study.x_pre, study.x_ft, study.r)
    return [cache.fingerprint(part) for part in (*parts, study.observed())]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input_gives_the_same_study(
    planted: Planted, tables: dict[str, Path], compared: lens.Comparison, form: str
) -> None:
    before = planted.radiomics.copy()
    study, settings, _ = taken(*FORMS[form](planted, tables))
    assert contents(study) == contents(compared.study)
    assert settings == compared.settings
    pd.testing.assert_frame_equal(planted.radiomics, before)


def test_the_same_study_gives_the_same_numbers(planted: Planted, compared: lens.Comparison) -> None:
    pre, ft, radiomics = FORMS["lists"](planted, {})
    found = lens.compare(pre, ft, radiomics, doctor="off", progress=False, **SMALL)
    shared = [name for name in found.verdicts if name in compared.verdicts]
    assert len(shared) > 40
    pd.testing.assert_frame_equal(
        found.verdicts[shared], compared.verdicts[shared], check_exact=True, check_dtype=False
    )
    assert found.doctor is None


def test_a_single_table_after_fine_tuning_is_a_task(planted: Planted) -> None:
    study, *_ = taken((planted.ids, planted.pre), (planted.ids, planted.ft), planted.radiomics)
    assert list(study.x_ft) == ["ft"]


def test_a_study_is_welcome(tables: dict[str, Path], compared: lens.Comparison) -> None:
    study = lens.load_study(tables["pre"], {"cls": tables["ft"]}, tables["radiomics"])
    found, settings, _ = taken(study)
    assert contents(found) == contents(compared.study)
    assert settings == compared.settings
    with pytest.raises(InputError, match="a Study holds all tables"):
        lens.compare(study, {"cls": tables["ft"]}, progress=False)


def test_the_main_job_writes_the_same_numbers(
    tables: dict[str, Path], labels: pd.DataFrame, compared: lens.Comparison, tmp_path: Path
) -> None:
    labels.to_csv(tmp_path / "labels.csv", index=False)
    config = Config(
        tables=TableFlags(
            pre=(str(tables["pre"]),), ft=(f"cls={tables['ft']}",),
            radiomics=((str(tables["radiomics"]),),),
        ),
        context=ContextFlags(
            labels=tmp_path / "labels.csv", adjust=("age",), site="site",
            exposure=(f"cls={tmp_path / 'labels.csv'}",),
        ),
        out=tmp_path / "job",
    )  # fmt: skip
    assert job(changed(config, **SMALL)) == 0
    saved = compared.save(tmp_path / "call")
    files = cache.recorded([saved], saved)
    theirs = cache.recorded([tmp_path / "job"], tmp_path / "job")
    # The job also keeps what its stages hand on; the record and the page tell how long it took.
    own = {"run.json", "report.html"}
    handed_on = {"cls/verdicts.parquet", "cls/exposure.csv"}
    assert set(theirs) - set(files) == handed_on
    different = {name for name in files if files[name] != theirs[name]}
    # The fonts of a PDF come in any order, and its record tells its hash.
    figures = {name for name in different if name.endswith((".pdf", ".done.json"))}
    assert different - figures <= own, different
    assert all(files[name]["size"] == theirs[name]["size"] for name in figures)


def test_results_print_and_are_saved(
    compared: lens.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undraw(monkeypatch)
    text = repr(compared)
    assert text.startswith("Comparison of 120 patients and 48 features\n  cls: ")
    assert len(text) < 300
    summary = compared.summary()
    assert summary.startswith("cls: did anything change? Yes: ")
    assert re.search(r"Each feature by itself: 8 lost", summary)
    assert re.search(r"Largest losses: .* −0\.", summary), "the size of the change"
    assert "is not known" not in summary, "whom fine-tuning saw was given"
    saved = read_results(compared.save(tmp_path / "saved"))
    assert in_lines(saved) == summary, "the lines that end a run of the main job"
    assert "<table" in compared._repr_html_()
    page = compared.report(tmp_path / "page")
    assert page == tmp_path / "page" / "report.html"
    assert "report.html" in {path.name for path in compared.report().parent.iterdir()}
    assert set(compared.groups["stage"]) == {"pre", "ft", "delta"}
    assert {"modality", "roi", "group"} <= set(compared.modalities)


WRONG = {
    "p.pre, {'cls': (p.ids, p.ft)}, p.radiomics": "pre: an array without ids",
    "(p.ids, p.pre), {'cls': p.ft}, p.radiomics": "ft['cls']: an array without ids",
    "3, {'cls': (p.ids, p.ft)}, p.radiomics": "pre: int is no table; welcome are a path",
    "(p.ids, p.pre), {}, p.radiomics": "at least one task",
    "(p.ids, p.pre), None, p.radiomics": "ft and radiomics are needed too",
    "(p.ids, p.pre), 5, p.radiomics": "ft['ft']: int is no table; welcome are a path",
    "(p.ids, p.pre), {'cls': (p.ids, p.ft)}, p.pre": "radiomics: an array has neither ids",
    "(p.ids[:-1], p.pre), {'cls': (p.ids, p.ft)}, p.radiomics": "pre: ",
    "'absent.npz', {'cls': (p.ids, p.ft)}, p.radiomics": "absent.npz: no such file",
}


def test_a_wrong_input_is_one_sentence() -> None:
    """In a process of its own, where no shape or type is checked but by our own code."""
    script = """
import sys
import lens
import lens.errors
from tests.planted import plant

p = plant(n=30, d=4)
for arguments in sys.argv[1:]:
    try:
        lens.compare(*eval(f"({arguments})"), progress=False)
    except lens.errors.InputError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *WRONG], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(WRONG)
    for line, message in zip(lines, WRONG.values(), strict=True):
        assert message in line


def test_the_doctor_is_short_by_default_full_or_off_as_asked(
    planted: Planted, compared: lens.Comparison
) -> None:
    assert compared.doctor is not None
    assert compared.doctor.findings is None
    assert compared.seconds["doctor"] < 0.5
    assert "What these patients cannot tell: " in compared.summary()
    tables = ((planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics)
    for nothing in ("off", False):
        assert taken(*tables, doctor=nothing)[2] == "off"
    assert [*map(doctor_form, (True, False, "short"))] == ["full", "off", "short"]
    # In a process of its own, where no type is checked but by our own code.
    script = "from lens.settings import doctor_form; doctor_form('long')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "doctor is 'long'; it is one of short, full, off" in done.stderr


def test_more_folds_than_patients_are_refused_before_anything_is_trained(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lens.stages.train", lambda *_, **__: pytest.fail("trained first"))
    tables = ((planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics)
    with pytest.raises(InputError, match="folds 5000: "):
        lens.compare(*tables, folds=5000)


def test_settings_go_by_their_names(planted: Planted) -> None:
    tables = ((planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics)
    with pytest.raises(TypeError, match="no setting 'fold'"):
        lens.compare(*tables, fold=3)
    with pytest.raises(InputError, match="folds 1: 2 or more"):
        lens.compare(*tables, folds=1)
    with pytest.raises(InputError, match="adjust and site are columns"):
        lens.compare(*tables, adjust=["age"])


def test_the_papers_mode_has_the_papers_grid(planted: Planted) -> None:
    options = SMALL | {"folds": 0, "epochs": 1}
    del options["l1"]
    tables = ((planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics)
    found = lens.compare(*tables, mode="paper", progress=False, **options)
    assert found.trained.sweep.table["l1"].tolist() == list(PAPER_L1_GRID)
    assert not found.tasks["cls"].shift.decoders["pre"].b.any()


def test_ids_in_a_tensor_keep_every_digit(planted: Planted) -> None:
    """Above 16,777,216 float32 has no odd numbers."""
    ids = 20_000_001 + np.arange(len(planted.ids))
    every = torch.tensor(ids)
    radiomics = planted.radiomics.assign(patient_id=ids)
    study = lens.load_study((every, planted.pre), {"cls": (every, planted.ft)}, radiomics)
    assert sorted(study.ids["patient_id"]) == [str(each) for each in ids]


OUT_OF_RANGE = [
    ({"mode": "Paper"}, "mode is 'Paper'"), ({"seed": -1}, "seed is -1"),
    ({"stack": -3}, "stack is -3"), ({"folds": 2.5}, "folds is 2.5"),
    ({"hidden": 8.5}, "hidden is 8.5"), ({"epochs": "5"}, "epochs is '5'"),
    ({"l1": 0.1}, "l1 is 0.1"), ({"l2": (np.nan,)}, "l2 is nan"), ({"rate": np.nan}, "rate is"),
    ({"margin": np.nan}, "margin"), ({"level": 1.0}, "level"), ({"memory": -1.0}, "memory"),
    ({"flips": 0}, "flips is 0"),
]  # fmt: skip


def test_every_setting_out_of_range_is_named() -> None:
    """In a process of its own, where no type is checked but by our own code."""
    script = """
import sys
from numpy import nan
from lens.settings import DEFAULTS, changed
for options in sys.argv[1:]:
    print(changed(DEFAULTS, **eval(options)).problem())
"""
    arguments = [repr(options) for options, _ in OUT_OF_RANGE]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    for line, (_, message) in zip(lines, OUT_OF_RANGE, strict=True):
        assert message in line


def test_what_belongs_to_no_task_is_refused(
    planted: Planted, tables: dict[str, Path], labels: pd.DataFrame, tmp_path: Path
) -> None:
    pre, radiomics = (planted.ids, planted.pre), planted.radiomics
    ft = {"cls": (planted.ids, planted.ft)}
    with pytest.raises(InputError, match="retrained names task 'Cls'"):
        lens.compare(pre, ft, radiomics, retrained={"Cls": [ft["cls"]]})
    with pytest.raises(InputError, match="exposure names task 'Cls'"):
        lens.compare(pre, ft, radiomics, exposure={"Cls": labels})
    for name in ("../evil", "", "run.json", "figures", "pre"):
        with pytest.raises(InputError, match="task "):
            lens.compare(pre, {name: ft["cls"]}, radiomics)
    study = lens.load_study(tables["pre"], {"cls": tables["ft"]}, tables["radiomics"])
    with pytest.raises(InputError, match="a Study holds all tables and its split; rois"):
        lens.compare(study, rois="gland")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        lens.compare(study, progress=False, **SMALL).save(tmp_path / "file")


def test_a_single_name_or_table_needs_no_list(planted: Planted, labels: pd.DataFrame) -> None:
    other = planted.ft + 0.1 * np.random.default_rng(1).normal(size=planted.ft.shape)
    found = lens.compare(
        (planted.ids, planted.pre), {"cls": (planted.ids, planted.ft)}, planted.radiomics,
        rois="gland", labels=labels, adjust="age", exposure=labels,
        retrained={"cls": (planted.ids, other)}, progress=False, **SMALL,
    )  # fmt: skip
    assert {"r2_adjusted_pre", "r2_exposed_ft"} <= set(found.verdicts)
    assert (found.verdicts["retrained"] == 2).all()


def test_free_memory_goes_back_after_every_stage(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the tables were read, after what the verdicts need in turn, and after each stage."""
    calls: list[str] = []
    for module in ("stages", "comparison"):
        monkeypatch.setattr(
            f"lens.{module}.give_back_memory", lambda module=module: calls.append(module)
        )
    found = lens.compare(
        (planted.ids, planted.pre), {"t": (planted.ids, planted.ft)}, planted.radiomics,
        progress=False, **SMALL,
    )  # fmt: skip
    assert calls.count("stages") == 4
    assert calls.count("comparison") == len(found.seconds)
