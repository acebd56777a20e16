"""Hidden names: what a finished run holds and prints has no id, path, user or host in it."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

import encoders
import experiments.doctor
import experiments.embed
import experiments.finetune
import experiments.radiomics
import experiments.report
import experiments.sweep
import lens
from experiments.main_job.config import Config
from lens.anonymise import FILE, OUT, Anonymiser, ids_of
from lens.errors import CaseError, InputError
from lens.files import read_failures, read_table, write_failures, write_table
from lens.formulas import read_csv
from lens.places import replace_paths
from lens.salt import read_salt
from lens.settings import PlantedSettings, Rules, changed
from tests.command_line import started
from tests.planted import Planted, plant
from tests.radiomics.phantoms import write_cohort
from tests.undrawn import undraw

USER, HOST = "dr_mustermann", "ward-7-scanner"
SALT = b"a salt of the tests, for nothing else"
SMALL = {
    "hidden": 8, "l1": (0.0,), "l2": (1e-5,), "epochs": 5, "folds": 2, "repeats": 1,
    "flips": 50, "bootstraps": 20,
}  # fmt: skip
HIDDEN = Anonymiser(SALT)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, on a host with a name of its own."""
    folder = tmp_path / "home" / USER
    (folder / "study of prostates").mkdir(parents=True)
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, USER)
    for variable, name in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
        monkeypatch.setenv(variable, str(folder / name))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr("platform.platform", lambda *_, **__: f"Linux-6.1-{HOST}")
    return folder


@pytest.fixture
def salt(home: Path) -> Path:
    path = home / "salt"
    path.write_bytes(SALT)
    return path


@pytest.fixture(scope="module")
def planted() -> Planted:
    study = plant(n=60, d=8)
    ids = np.array([f"Doe{i:05d}, Jane" if i % 2 else f"HOSP-{i:05d}" for i in range(60)])
    few = study.radiomics.filter(regex="^(patient_id|t2.gland.original_.*F0)$")
    return replace(study, ids=ids, radiomics=few.assign(patient_id=ids))


def written(folder: Path) -> Iterator[tuple[Path, str]]:
    """All that a folder holds as text: raw bytes, tables and arrays decoded, figures unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        raw = path.read_bytes()
        yield path, str(path.relative_to(folder))
        yield path, raw.decode("latin-1")
        yield path, raw.decode("utf-8", "replace")
        if path.suffix == ".parquet":
            yield path, pd.read_parquet(path).to_csv()
        if path.suffix == ".npz":
            with np.load(path) as content:
                yield path, " ".join(str(content[name].tolist()) for name in content.files)
        if path.suffix == ".json":
            yield path, str(json.loads(raw))
        for image in re.findall(r"base64,([\w+/=]+)", raw.decode("latin-1")):
            yield path, base64.b64decode(image).decode("utf-8", "replace")


def leaks(texts: Iterator[tuple[Path, str]], secrets: list[str]) -> list[tuple[str, str]]:
    return sorted(
        {(path.name, secret) for path, text in texts for secret in secrets if secret in text}
    )


def secrets_of(home: Path, ids: list[str]) -> list[str]:
    return [*ids, str(home), str(home.parent.parent), "study of prostates", USER, HOST, "/home/"]


def table_run(planted: Planted, folder: Path) -> dict[str, object]:
    """Flags of a run from tables, of which one patient is missing in one."""
    paths = planted.write(folder)
    table = read_table(paths["radiomics"])
    write_table(table[table["patient_id"] != planted.ids[0]], paths["radiomics"])
    labels = pd.DataFrame({"patient_id": planted.ids, "volume_ml": np.arange(60.0) % 7})
    split = np.resize(["train", "train", "train", "val", "test"], 60)
    write_table(labels.assign(split=split), folder / "labels.csv")
    audit = {"patient_id": [planted.ids[3]], "column": ["t2.gland.original_glcm_F0"]}
    write_table(
        pd.DataFrame(audit | {"kind": "undefined", "reason": "x"}), folder / "radiomics-audit.csv"
    )
    return {
        "pre": (str(paths["pre"]),),
        "ft": (f"cls={paths['ft']}",),
        "radiomics": ((str(paths["radiomics"]),),),
        "labels": folder / "labels.csv",
        "split": folder / "labels.csv",
        "adjust": ("volume_ml",),
        "out": folder / "run",
        **SMALL,
    }


def test_a_run_from_tables_leaks_nothing(
    planted: Planted,
    home: Path,
    capfd: pytest.CaptureFixture,
    salt: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = table_run(planted, home / "study of prostates")
    out = home / "study of prostates" / "run"
    words = flags | {"radiomics": flags["radiomics"][0]}
    assert started(experiments.sweep, monkeypatch, "--anonymise", salt=salt, **words) == 3
    assert not list(out.rglob("*.lock"))
    printed = capfd.readouterr()
    found = [*written(out), (Path("terminal"), printed.out + printed.err)]
    assert not leaks(iter(found), secrets_of(home, planted.ids.tolist()))

    assert f"report: {OUT}/report.html" in printed.out
    hashes = {HIDDEN.patient(patient) for patient in planted.ids}
    split = read_table(out / "split.csv")
    assert set(split["patient_id"]) == hashes - {HIDDEN.patient(planted.ids[0])}
    exposed = read_table(out / "cls" / "exposure.csv")
    assert exposed["patient_id"].tolist() == split["patient_id"].tolist(), "the same in all tables"
    (lost,) = read_failures(out / "failures.csv")
    assert lost.patient_id == HIDDEN.patient(planted.ids[0])
    assert lost.file == "radiomics"
    run = json.loads((out / "run.json").read_text())
    assert set(run["inputs"]) == {"--pre", "--ft cls", "--radiomics", "--labels"}
    assert run["config"]["ft"] == [f"cls={FILE}"]

    # What is open without the flag: the same search finds it.
    with monkeypatch.context() as patch:
        undraw(patch)
        opened = changed(Config(), **flags | {"out": out.with_name("open")})
        assert experiments.sweep.job(opened) == 3
    names = {
        name
        for name, _ in leaks(written(out.with_name("open")), secrets_of(home, planted.ids.tolist()))
    }
    assert {"split.csv", "failures.csv", "run.json", "report.html"} <= names

    page = (out.with_name("open") / "report.html").read_text(encoding="utf-8")
    # The left-out patient is shown; where the run was made is not.
    assert planted.ids[0] in page
    assert "radiomics.csv" in page
    assert not [s for s in secrets_of(home, []) if s in page]

    # An open run is not continued under hidden names, for its files would stay.
    with pytest.raises(InputError, match="made without it"):
        experiments.sweep.job(
            changed(Config(), anonymise=True, salt=salt, **flags | {"out": out.with_name("open")})
        )

    # The page of the open run under hidden names.
    report = experiments.report.Config(out.with_name("open"), anonymise=True, salt=salt)
    capfd.readouterr()
    assert experiments.report.job(report) == 0
    page = (out.with_name("open") / "report.html").read_text(encoding="utf-8")
    texts = iter([(Path("page"), page), (Path("terminal"), "".join(capfd.readouterr()))])
    assert not leaks(texts, [*secrets_of(home, planted.ids.tolist()), "radiomics.csv"])
    assert HIDDEN.patient(planted.ids[0]) in page


def test_hidden_names_change_names_alone(
    planted: Planted, tmp_path: Path, salt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as a run on tables whose ids were replaced by hand."""
    named = np.array([HIDDEN.patient(patient) for patient in planted.ids])
    by_hand = planted.radiomics.assign(patient_id=named)
    options = {"progress": False, **SMALL}
    hidden = lens.compare(
        (planted.ids, planted.pre), (planted.ids, planted.ft), planted.radiomics,
        anonymise=salt, **options,
    )  # fmt: skip
    plain = lens.compare((named, planted.pre), (named, planted.ft), by_hand, **options)
    pd.testing.assert_frame_equal(hidden.verdicts, plain.verdicts)
    assert hidden.study.ids["patient_id"].tolist() == sorted(named)
    undraw(monkeypatch, but=("ft-patients",))  # the others show no patient
    assert not leaks(written(hidden.save(tmp_path / "saved")), [*planted.ids, HOST])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Images of patients under their names, one of them unreadable and one missing."""
    folder = tmp_path_factory.mktemp("images of the ward")
    ids = [f"Mustermann{i:04d}" for i in range(16)]
    manifest = write_cohort(folder, ids)
    (folder / f"{ids[3]}_t2.nii.gz").write_bytes(b"no image")
    (folder / f"{ids[5]}_gland.nii.gz").unlink()
    (folder / "quick.yaml").write_text("setting: {binWidth: 50}\nfeatureClass: {firstorder: }\n")
    layout = encoders.ConvNeXtV2Config(dims=3, depths=(1, 1, 1, 1), widths=(4, 4, 8, 8))
    from flax import nnx

    for name, seed in (("pre", 0), ("ft", 1)):
        encoders.save(folder / name, encoders.ConvNeXtV2(layout, rngs=nnx.Rngs(seed)))
    return manifest, ids


def test_a_run_from_images_leaks_nothing(
    cohort: tuple[Path, list[str]],
    home: Path,
    salt: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undraw(monkeypatch, but=("cls-patients",))  # the others show no patient
    manifest, ids = cohort
    folder = manifest.parent
    flags = {
        "cohort": manifest, "encoder_pre": folder / "pre", "encoder_ft": (f"cls={folder / 'ft'}",),
        "parameters": (str(folder / "quick.yaml"),), "spacing": (2.0, 2.0, 2.0), "workers": 1,
        "shape": (32, 32, 32), "out": home / "run", **SMALL,
    }  # fmt: skip
    assert experiments.sweep.job(changed(Config(), anonymise=True, salt=salt, **flags)) == 3
    printed = capfd.readouterr()
    found = iter([*written(home / "run"), (Path("terminal"), printed.out + printed.err)])
    assert not leaks(found, [*secrets_of(home, ids), str(folder), "images of the ward"])
    failures = read_failures(home / "run" / "failures.csv")
    assert {each.patient_id for each in failures} == {HIDDEN.patient(ids[i]) for i in (3, 5)}
    assert read_table(home / "run" / "radiomics.parquet")["patient_id"].tolist() == [
        HIDDEN.patient(patient) for i, patient in enumerate(ids) if i not in (3, 5)
    ]


def test_tables_of_several_jobs_join(
    cohort: tuple[Path, list[str]],
    home: Path,
    salt: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Radiomics and embeddings of two jobs under one salt have the same names."""
    manifest, ids = cohort
    out = home / "tables"
    hidden = {"anonymise": True, "salt": salt}
    radiomics = experiments.radiomics.Config(
        manifest, out / "R.csv", (str(manifest.parent / "quick.yaml"),), workers=1, **hidden
    )
    assert experiments.radiomics.job(radiomics) == 3
    embed = {
        "cohort": manifest, "encoder": manifest.parent / "pre", "out": out / "E.npz",
        "shape": (32, 32, 32), "spacing": (2.0, 2.0, 2.0), "salt": salt,
    }  # fmt: skip
    assert started(experiments.embed, monkeypatch, "--anonymise", **embed) == 3
    printed = capfd.readouterr()
    found = iter([*written(out), (Path("terminal"), printed.out + printed.err)])
    assert not leaks(found, [*secrets_of(home, ids), str(manifest.parent)])
    names = [HIDDEN.patient(patient) for i, patient in enumerate(ids) if i not in (3, 5)]
    assert read_table(out / "R.csv")["patient_id"].tolist() == names
    assert ids_of(out / "E.npz")["patient_id"].tolist() == names
    assert not list(out.glob("**/*cache*")), "finished cases name files"


def test_a_training_leaks_nothing(
    cohort: tuple[Path, list[str]],
    home: Path,
    salt: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does the list of exchanged labels, the origin of an encoder, or TensorBoard's file."""
    manifest, ids = cohort
    labelled = manifest.with_name("labelled.csv")
    table = read_csv(manifest, dtype=str)
    write_table(table.assign(volume_ml=10.0 + np.arange(len(table)) % 5), labelled)
    flags = {
        "cohort": labelled, "out": home / "run", "init": manifest.parent / "pre", "salt": salt,
        "task": "regression", "label": "volume_ml", "channels": "t2", "epochs": 1, "batch": 4,
        "shape": (32, 32, 32), "spacing": (2.0, 2.0, 2.0), "control": "permuted-labels",
    }  # fmt: skip
    switches = ("--anonymise", "--freeze", "--no-augment")
    assert started(experiments.finetune, monkeypatch, *switches, **flags) == 3
    printed = capfd.readouterr()
    found = iter([*written(home / "run"), (Path("terminal"), printed.out + printed.err)])
    assert not leaks(found, [*secrets_of(home, ids), str(manifest.parent), "images of the ward"])
    patients = read_table(home / "run" / "patients.csv")
    assert set(patients["patient_id"]) == {HIDDEN.patient(patient) for patient in ids}
    exchanged = set(patients["label_of_seed_0"].dropna()) - {""}
    assert exchanged <= set(patients["patient_id"])
    assert len(exchanged) == 14
    facts = json.loads((home / "run" / "seed-0" / "encoder" / "encoder.json").read_text())
    assert facts["metadata"]["init"] in ("--init", FILE)
    assert len(list((home / "run" / "seed-0" / "tensorboard").glob("events*"))) == 1
    assert not (home / "run" / "volumes").exists(), "finished cases lie outside the results"


def test_phantoms_keep_nothing_of_the_headers_and_names_of_their_masks(tmp_path: Path) -> None:
    """Free text of a NIfTI header, the file's name, and where it lies."""
    from lens.cohort import read_manifest
    from lens.cohort.anatomy import write_phantoms_on

    mask = np.pad(np.ones((8, 20, 20), np.uint8), ((4, 4), (10, 10), (10, 10)))
    path = tmp_path / "Mustermann_gland.nii"
    sitk.WriteImage(sitk.GetImageFromArray(mask), str(path))
    header = bytearray(path.read_bytes())
    # db_name, descrip, aux_file and intent_name.
    for place, text in (
        (14, b"SECRET-DB"),
        (148, b"Doe^Jane"),
        (228, b"/secret"),
        (328, b"SECRET"),
    ):
        header[place : place + len(text)] = text
    path.write_bytes(header)
    write_table(pd.DataFrame({"patient_id": ["A"], "gland": [path.name]}), tmp_path / "cohort.csv")
    cohort = read_manifest(tmp_path / "cohort.csv", images=False)
    write_phantoms_on(cohort, tmp_path / "out", 0, progress=False)
    secrets = ["SECRET", "Doe", "/secret", "Mustermann", str(tmp_path)]
    assert set(secrets[:3]) <= {name for _, name in leaks(written(tmp_path), secrets)}
    assert not leaks(written(tmp_path / "out"), secrets)


def test_the_doctor_leaks_nothing(planted: Planted, home: Path, salt: Path, capfd) -> None:
    paths = planted.write(home)
    config = experiments.doctor.Config(
        pre=paths["pre"], radiomics=paths["radiomics"], folds=2, modality=("t2",), scores="raw",
        planted=PlantedSettings(Rules(flips=50), doses=(1.0,), clusters=1, draws=1, maps=1),
        out=home / "doctor", anonymise=True, salt=salt,
    )  # fmt: skip
    assert experiments.doctor.job(config) == 0
    printed = capfd.readouterr()
    found = iter([*written(home / "doctor"), (Path("terminal"), printed.out + printed.err)])
    assert not leaks(found, secrets_of(home, planted.ids.tolist()))
    assert "changes are planted in --pre" in printed.out


def test_a_refusal_names_no_patient_and_no_path(planted: Planted, home: Path, salt: Path) -> None:
    flags = table_run(planted, home / "study of prostates")
    path = home / "study of prostates" / "radiomics.csv"
    table = read_table(path)
    write_table(pd.concat([table, table.iloc[:2]]), path)
    with pytest.raises(InputError) as refused:
        experiments.sweep.job(changed(Config(), anonymise=True, salt=salt, **flags))
    message = str(refused.value)
    assert message.startswith("--radiomics: 2 duplicate id(s): ")
    assert HIDDEN.patient(table["patient_id"].iloc[0]) in message
    assert not [s for s in secrets_of(home, planted.ids.tolist()) if s in message]
    with pytest.raises(InputError, match="duplicate") as plain:
        experiments.sweep.job(changed(Config(), **flags))
    assert str(path) in str(plain.value)


def test_a_failure_nobody_foresaw_names_no_patient(home: Path, salt: Path) -> None:
    from experiments.common.anonymous import Hidden, anonymously

    write_table(pd.DataFrame({"patient_id": ["Doe-1"]}), home / "t.csv")

    def fail() -> None:
        with anonymously(Hidden(True, salt, home / "run", {"--pre": home / "t.csv"})):
            raise KeyError(f"Doe-1 in {home / 't.csv'}")

    with pytest.raises(RuntimeError, match=r"KeyError: .*--pre") as failed:
        fail()
    assert "Doe" not in str(failed.value)
    assert failed.value.__suppress_context__


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "the phantoms are nobody's images"),
        ({"salt": "run/salt"}, "folder of the results"),
        ({"salt": "short"}, "can be guessed"),
        ({"salt": "absent"}, "not readable"),
        ({"salt": "good", "anonymise": False}, "--salt needs --anonymise"),
    ],
)
def test_a_salt_that_protects_nothing_is_refused(home: Path, flags: dict, message: str) -> None:
    (home / "run").mkdir()
    for name, content in (("run/salt", SALT), ("short", b"2026"), ("good", SALT)):
        (home / name).write_bytes(content)
    asked = {"anonymise": True, "out": home / "run"} | flags
    if "salt" in flags:
        asked |= {"salt": home / flags["salt"], "pre": ("x.npz",), "ft": ("a=y.npz",)}
        asked |= {"radiomics": (("r.csv",),)}
    with pytest.raises(InputError, match=message):
        experiments.sweep.job(changed(Config(), **asked))


def test_the_users_own_salt_is_drawn_once_and_is_the_users_alone(home: Path) -> None:
    first = read_salt()
    path = home / ".config" / "radiomic-lens" / "salt"
    assert read_salt() == first == path.read_bytes().strip()
    assert path.stat().st_mode & 0o077 == 0
    assert len(first) == 64


def test_of_many_runs_that_need_a_first_salt_at_once_all_have_one(home: Path) -> None:
    path, before = home / ".config" / "radiomic-lens" / "salt", sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads change places between any two steps
    try:
        for _ in range(40):
            start = threading.Barrier(8)

            def read(_: int, start: threading.Barrier = start) -> bytes:
                start.wait()
                return read_salt()

            with ThreadPoolExecutor(8) as pool:
                (salt,) = set(pool.map(read, range(8)))
            assert salt == path.read_bytes().strip()
            path.unlink()
    finally:
        sys.setswitchinterval(before)


def test_a_salt_that_nobody_fills_is_too_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lens.salt.BEING_DRAWN", 0.05)
    path = home / ".config" / "radiomic-lens" / "salt"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(InputError, match="fewer than 16 characters"):
        read_salt()


def test_names_tell_patients_apart_and_are_kept() -> None:
    ids = [str(i) for i in range(2000)]
    names = [HIDDEN.patient(patient) for patient in ids]
    assert len(set(names)) == 2000
    assert [HIDDEN.patient(name) for name in names] == names
    other = Anonymiser(SALT + b"!")
    assert not set(map(other.patient, ids)) & set(names)
    assert other.patient(names[0]) != names[0], "names of another salt are no names"
    assert HIDDEN.patient("7") != HIDDEN.visit("7")[1:]
    assert HIDDEN.patient(" 7") == HIDDEN.patient("7")
    assert HIDDEN.label("7/1") == f"{HIDDEN.patient('7')}/{HIDDEN.visit('1')}"


def test_sentences_are_cleaned_and_no_more_than_that() -> None:
    ids = pd.DataFrame({"patient_id": ["7", "Smith, J", "P001"], "study_id": ["1", "", ""]})
    seen = HIDDEN.knowing({Path("/a b/pre.npz"): "--pre", Path("pre.csv"): "--ft"}, ids=ids)
    seven, smith = HIDDEN.patient("7"), HIDDEN.patient("Smith, J")
    cases = {
        "/a b/pre.npz: no column": "--pre: no column",
        "pre.csv is not xpre.csv": "--ft is not xpre.csv",
        "Correct /a b/c.csv.": f"Correct {FILE}.",
        "patient 7: 7 of P001_t2": f"patient {seven}: 7 of {HIDDEN.patient('P001')}_t2",
        "Smith, J in ~/x/y.nii, 7 of 9": f"{smith} in {FILE}, 7 of 9",
        "study 1 of patients 7 and 8": f"study {HIDDEN.visit('1')} of patients {seven} and 8",
        "C:\\Users\\x\\y.csv and \\\\server\\share\\y": f"{FILE} and {FILE}",
        "tcp://node:8786 is not there": "[address] is not there",
    }  # fmt: skip
    harmless = "t2/gland, and/or 1/2 [00:03<00:05, 5.1it/s]"
    assert seen.text(harmless) == harmless
    for text, expected in cases.items():
        assert seen.text(text) == expected


def test_without_a_flag_paths_become_names() -> None:
    known = {"/a b/c": "c", "/a b": "a b"}
    assert replace_paths("in /a b/c and /a b/x.nii, ../y/z.csv.", known) == "in c and x.nii, z.csv."


HOSTILE = [
    "=1+1", "=cmd|' /C calc'!A0", "+A1", "-2+3", "@SUM(A1)", "\tx", "\rx", "\n=1", "＝1", "'=x",
    "''@y", "a\rb", "a\nb", 'q"=,"', "'plain", "x=1", "",
]  # fmt: skip
NUMBERS = ["-0.5", "+1e5", "-inf", "-7", "+.5"]


def test_formulas_are_neutralised_and_read_back(tmp_path: Path) -> None:
    texts = [*HOSTILE, *NUMBERS]
    table = pd.DataFrame({"patient_id": texts, "=name": texts, "x": -1.5 - np.arange(len(texts))})
    write_table(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    for cells in (header, *rows):
        for cell in cells[:2]:
            assert cell in NUMBERS or not cell.startswith(tuple("=+-@\t\r\n＝＋－＠"))
    assert [row[2] for row in rows] == [str(value) for value in table["x"]], "numbers stay numbers"
    back = read_csv(
        tmp_path / "t.csv", dtype={"patient_id": str, "=name": str}, keep_default_na=False
    )
    pd.testing.assert_frame_equal(back, table, check_dtype=False)


def test_every_writer_of_a_run_neutralises(tmp_path: Path) -> None:
    error = CaseError("=1+1", "@file", stage="read", reason="+reason", remedy="-remedy!")
    write_failures([error], tmp_path / "failures.csv")
    raw = (tmp_path / "failures.csv").read_text(encoding="utf-8")
    assert raw.splitlines()[1] == "'=1+1,'@file,read,'+reason,'-remedy!"
    (back,) = read_failures(tmp_path / "failures.csv")
    assert back.row() == error.row()


def test_no_csv_is_written_past_the_one_place() -> None:
    root = Path(lens.__file__).parents[1]
    for file in (
        *root.glob("lens/**/*.py"),
        *root.glob("encoders/**/*.py"),
        *root.glob("experiments/**/*.py"),
    ):
        text = file.read_text(encoding="utf-8")
        found = re.findall(
            r"^(?!.*``).*(?:\.to_csv\(|csv\.writer\(|csv\.DictWriter\().*$", text, re.MULTILINE
        )
        found = [line for line in found if 'comparison.verdicts.to_csv("verdicts.csv")' not in line]
        assert not found or file.name == "formulas.py", (file, found)


def test_a_manifest_with_a_guarded_id_is_read_as_it_was_meant(tmp_path: Path) -> None:
    from lens.cohort import read_manifest

    manifest = write_cohort(tmp_path, ["A"])
    table = read_csv(manifest, dtype=str).assign(patient_id="=A", site="@ward")
    write_table(table, manifest)
    (case,) = read_manifest(manifest).cases
    assert (case.patient_id, case.labels["site"]) == ("=A", "@ward")


def test_a_salt_that_never_ends_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (1 << 20) + b"x")
    for path in (tmp_path / "pipe", tmp_path / "large", Path("/dev/zero")):
        with pytest.raises(InputError, match="--salt is no file of 16 to 1048576 characters"):
            read_salt(path)
