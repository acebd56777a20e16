"""Under ``--anonymise`` a job that fails names no patient, place, user or host, however it does."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

import experiments.pretrain
import experiments.sweep
from experiments.common.anonymous import Hidden
from experiments.common.cli import alone
from lens import lock as locks
from lens.anonymise import Anonymiser, Names
from lens.errors import InputError
from lens.lock import of_folder
from tests.command_line import started

USER, HOST, PATIENT = "dr_mustermann", "ward-7-scanner", "Doe00001, Jane"
OTHERS = ("dr_anders", "ward-9")
FOLDER = "study of prostates"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user, with a manifest and a salt in it."""
    folder = tmp_path / "home" / USER
    (folder / FOLDER).mkdir(parents=True)
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, USER)
    for variable, name in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
        monkeypatch.setenv(variable, str(folder / name))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr("platform.platform", lambda *_, **__: f"Linux-6.1-{HOST}")
    (folder / "salt").write_bytes(b"a salt of the tests, for nothing else")
    image = folder / "big disk" / "scan of May.nii"
    (folder / FOLDER / "cohort.csv").write_text(f'patient_id,t2\n"{PATIENT}",{image}\n')
    return folder


def named(home: Path, text: str) -> list[str]:
    secrets = [PATIENT, "Doe", str(home), FOLDER, "big disk", "scan of May", USER, HOST, *OTHERS]
    return [each for each in (*secrets, "/home/", "mustermann") if each in text]


@dataclass(frozen=True)
class Config:
    """A job that fails as it is told to."""

    cohort: Path
    out: Path
    how: str
    salt: Path
    anonymise: bool = False


def hidden(config: Config) -> Hidden:
    return Hidden(config.anonymise, config.salt, config.out, {"--cohort": config.cohort})


@alone(lambda config: of_folder(config.out), hidden)
def job(config: Config, names: Names) -> int:
    image = config.cohort.parents[1] / "big disk" / "scan of May.nii"
    raise {
        "fault": KeyError(f"{PATIENT} in {image} of {config.cohort} " + "x" * 300),
        "fault at the cut": KeyError("x" * 270 + f" {config.cohort} {PATIENT}"),
        "refused": InputError(f"{config.cohort}: patient {PATIENT}, {image}: broken"),
        "system": PermissionError(errno.EACCES, "no", str(image)),
        "long": OSError(errno.ENAMETOOLONG, "no", str(config.cohort.parent / ("x y" * 90))),
        "ours": OSError(errno.ENOSPC, "no", str(config.out / "table.csv")),
    }[config.how]


THIS = ModuleType("this")
THIS.Config, THIS.job, THIS.__file__ = Config, job, "/opt/job.py"  # pyright: ignore[reportAttributeAccessIssue]

WORDS = {
    "fault": "unexpected failure (KeyError: ",
    "fault at the cut": "unexpected failure (KeyError: ",
    "refused": "refused: --cohort: patient P",
    "system": "failed: [file]: no permission; ask its owner",
    "long": "failed: ",
    "ours": "failed: OUT/table.csv: the disk is full; ",
}


@pytest.mark.parametrize("how", WORDS)
def test_the_line_of_a_failure_and_its_log_name_nobody_and_no_place(
    how: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    flags = {"cohort": home / FOLDER / "cohort.csv", "out": home / FOLDER / "run", "how": how}
    salt = home / "salt"
    assert started(THIS, monkeypatch, "--anonymise", salt=salt, **flags) == 1
    printed = "".join(capfd.readouterr())
    assert printed.startswith(WORDS[how])
    assert not named(home, printed)
    logs = list((home / ".cache").rglob("*.log"))
    assert len(logs) == how.startswith("fault")
    for log in logs:
        assert f"LOGS/{log.name}" in printed, "the log cannot be found"
        content = log.read_text()
        assert not named(home, content)
        assert not named(home, log.name)
        assert "command: '[file]' --anonymise --salt '[file]'" in content
        assert "--how" in content
        assert "KeyError" in content
        assert 'File "tests/experiments/test_hidden_failures.py", line' in content


def test_without_the_flag_the_line_and_the_log_say_where(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """The search above can find what it looks for."""
    clean = alone(lambda config: of_folder(config.out))(
        lambda config: job.__wrapped__(config, None)
    )
    module = ModuleType("open")
    module.Config, module.job, module.__file__ = Config, clean, "/opt/job.py"  # pyright: ignore[reportAttributeAccessIssue]
    flags = {"cohort": home / FOLDER / "cohort.csv", "out": home / "run", "how": "fault"}
    assert started(module, monkeypatch, salt=home / "salt", **flags) == 1
    (log,) = (home / ".cache").rglob("*.log")
    for text in ("".join(capfd.readouterr()), log.read_text()):
        assert {PATIENT, str(home), "big disk"} <= set(named(home, text))


@pytest.mark.parametrize("kind", ["elsewhere", "here", "gone"])
def test_the_lock_of_another_run_names_nobody(
    kind: str, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    out = home / FOLDER / "run"
    out.mkdir()
    owner = replace(locks._this_process(), user=OTHERS[0])
    if kind == "elsewhere":
        owner = replace(owner, host=OTHERS[1])
    if kind == "gone":
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        owner = replace(owner, process=process.pid)
    (out / "run.lock").write_text(json.dumps(asdict(owner)))
    flags = {"pre": "absent of mine.npz", "ft": f"cls={home}/y.npz", "radiomics": home / "r.csv"}
    flags |= {"out": out, "salt": home / "salt"}
    assert started(experiments.sweep, monkeypatch, "--anonymise", **flags) == 1
    printed = "".join(capfd.readouterr())
    assert f"process {owner.process}, since {owner.since}" in printed
    assert not named(home, printed)
    assert "absent of mine" not in printed
    assert ("taken over" in printed) == (kind == "gone")
    assert ("refused: OUT: another run is at work there" in printed) == (kind != "gone")
    assert ("or delete OUT/run.lock if" in printed) == (kind == "elsewhere")


def test_a_salt_that_cannot_be_read_is_not_called_by_its_path(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    own = home / ".config" / "radiomic-lens"
    own.mkdir(parents=True)
    (own / "salt").mkdir()
    flags = {"pre": "x.npz", "ft": "cls=y.npz", "radiomics": home / "r.csv", "out": home / "run"}
    for given in ({}, {"salt": home / FOLDER / "absent"}):
        assert started(experiments.sweep, monkeypatch, "--anonymise", **given, **flags) == 1
        printed = "".join(capfd.readouterr())
        assert printed.startswith("refused: --salt")
        assert "not readable" in printed
        assert not named(home, printed)


def test_a_pretraining_that_is_refused_names_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    flags = {"cohort": home / FOLDER / "cohort.csv", "out": home / FOLDER, "salt": home / "salt"}
    assert started(experiments.pretrain, monkeypatch, "--anonymise", **flags) == 1
    printed = "".join(capfd.readouterr())
    assert printed.startswith("refused: ")
    assert not named(home, printed)


def test_what_lies_beside_the_results_is_not_called_theirs() -> None:
    images = {Path("/a/run/images"): "[file]"}
    names = Anonymiser(b"a salt of the tests").knowing(images | {Path("/a/run"): "OUT"})
    text = "/a/run/t.csv, /a/run, /a/run-images/Doe.nii, /a/run/images/Doe/1.dcm"
    assert names.text(text) == "OUT/t.csv, OUT, [file], [file]"
