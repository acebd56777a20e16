"""A cohort embedded by shares: the table of one run, whichever machine made which part."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flax import nnx

import encoders
from encoders import cohort_embeddings
from experiments.common.run_record import RunRecord
from experiments.embed import Config, job
from experiments.main_job.config import Config as MainConfig
from experiments.main_job.config import ImageFlags, TableFlags
from experiments.main_job.images import from_cohort
from experiments.main_job.plan import settle
from lens.cohort import factor_phantom, read_manifest
from lens.cohort.contents import image_hash
from lens.errors import InputError
from lens.files import read_failures
from lens.unfinished import _host_mark
from tests.shared_folders import made_once

CASES = 7
SHAPE, SPACING = (16, 24, 24), (2.0, 2.0, 3.0)

WAITS = """
import os, time
from pathlib import Path

HERE = Path(__file__).parent

def encoder():
    def encode(volumes):
        (HERE / f"at-work-{os.getpid()}").touch()
        while not (HERE / "go").exists():
            time.sleep(0.05)
        return volumes.mean((1, 2, 3))
    return encode
"""
"""An encoder that says in which process it is, and waits for a word."""


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a cohort and beside it an encoder, to be left as they are."""

    def make(folder: Path) -> None:
        config = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
        encoders.save(folder / "encoder", encoders.ConvNeXtV2(config, rngs=nnx.Rngs(0)))
        factor_phantom.write_cohort(folder, CASES, 0, progress=False)

    return made_once(tmp_path_factory, "embed-share-phantoms", make) / "cohort.csv"


def config(manifest: Path, out: Path, share: str | None = None, **flags: Any) -> Config:
    return Config(
        manifest,
        manifest.parent / "encoder",
        out,
        shape=SHAPE,
        spacing=SPACING,
        share=share,
        **flags,
    )


class Work:
    """What was read, hashed and embedded since it was last asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.hashed: set[Path] = set()
        self.embedded = 0
        read, embed = cohort_embeddings.read_case, cohort_embeddings.embed

        def read_case(files: Any, **options: Any) -> Any:
            self.read.append(files.patient_id)
            return read(files, **options)

        def hashed(path: Path) -> str:
            self.hashed.add(path)
            return image_hash(path)

        def embedded(encoder: Any, volumes: Any, **options: Any) -> Any:
            listed = list(volumes)
            self.embedded += len(listed)
            return embed(encoder, iter(listed), **options)

        monkeypatch.setattr(cohort_embeddings, "read_case", read_case)
        monkeypatch.setattr(cohort_embeddings, "embed", embedded)
        monkeypatch.setattr("encoders.case_cache.image_hash", hashed)

    def since(self) -> tuple[list[str], set[Path], int]:
        found = sorted(self.read), self.hashed, self.embedded
        self.read, self.hashed, self.embedded = [], set(), 0
        return found


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def of_turn(manifest: Path, number: int, count: int) -> tuple[list[str], set[Path]]:
    """Patients whose turn it is, counted by hand, and their files."""
    cases = [c for i, c in enumerate(read_manifest(manifest).cases) if i % count == number - 1]
    files = {path for case in cases for path in (*case.images.values(), *case.masks.values())}
    return [case.patient_id for case in cases], files


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (3, 1, 2)])
def test_shares_in_any_order_then_the_table_of_one_run(
    phantoms: Path, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture, order: Any
) -> None:
    caplog.set_level(logging.INFO)
    assert job(config(phantoms, tmp_path / "one" / "E.npz")) == 0
    work.since()
    out, count = tmp_path / "E.npz", len(order)
    for number in order:
        caplog.clear()
        assert job(config(phantoms, out, f"{number}/{count}")) == 0
        patients, files = of_turn(phantoms, number, count)
        assert work.since() == (patients, files, len(patients)), "of its own cases alone"
        n = len(patients)
        told = f"share {number}/{count}: {n} of its {n} cases embedded in {out}.parts; no table"
        assert told in caplog.text
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
    assert job(config(phantoms, out)) == 0
    assert work.since()[::2] == ([], 0), "the table is made of what the shares left"
    assert out.read_bytes() == (tmp_path / "one" / "E.npz").read_bytes()


def test_what_no_share_did_the_table_s_run_does(phantoms: Path, tmp_path: Path, work: Work) -> None:
    assert job(config(phantoms, tmp_path / "E.npz", "2/3")) == 0
    patients, _ = of_turn(phantoms, 2, 3)
    work.since()
    assert job(config(phantoms, tmp_path / "E.npz", "2/3")) == 0
    assert work.since()[::2] == ([], 0), "a share that is done has nothing to do"
    assert job(config(phantoms, tmp_path / "E.npz")) == 0
    read, _, embedded = work.since()
    assert embedded == CASES - len(patients)
    assert not set(read) & set(patients)


def test_a_share_that_was_interrupted_goes_on(
    phantoms: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = config(phantoms, tmp_path / "E.npz", "1/2", batch_size=1)
    embed = cohort_embeddings.embed

    def stopped(*arguments: Any, **options: Any) -> Any:
        if work.embedded == 3:
            raise KeyboardInterrupt
        return embed(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(cohort_embeddings, "embed", stopped)
        with pytest.raises(KeyboardInterrupt):
            job(share)
    assert not list(tmp_path.glob("*.lock"))
    work.since()
    assert job(share) == 0
    assert work.since()[2] == 1


def test_more_shares_than_cases(
    phantoms: Path, tmp_path: Path, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for share in (f"{CASES + 1}/{CASES + 1}", "1000/1000"):
        caplog.clear()
        assert job(config(phantoms, tmp_path / "new" / "E.npz", share)) == 0
        assert f"share {share}: nothing to do, there are {CASES} cases in all; no" in caplog.text
    assert work.since() == ([], set(), 0)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def faulty(phantoms: Path, tmp_path: Path) -> Path:
    """The third case cannot be read, the fifth row names a file that is not there."""
    table = pd.read_csv(phantoms, dtype=str)
    for name in ("t2", "dwi", "adc", "gland", "lesion"):
        table[name] = [str(phantoms.parent / cell) for cell in table[name]]
    (tmp_path / "broken.nii").write_bytes(b"not an image")
    table.loc[2, "adc"], table.loc[4, "t2"] = str(tmp_path / "broken.nii"), "absent.nii"
    path = tmp_path / "faulty.csv"
    table.to_csv(path, index=False)
    return path


def test_a_broken_case_is_set_aside_in_its_share_and_in_the_table_s_run(
    phantoms: Path, faulty: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it is all that the share has; no share undoes the list of another."""
    caplog.set_level(logging.INFO)
    ids, out = pd.read_csv(faulty, dtype=str)["patient_id"], tmp_path / "E.npz"
    common = {"encoder": phantoms.parent / "encoder"}
    codes = [
        job(replace(config(faulty, out, f"{number}/6"), **common)) for number in (3, 1, 2, 4, 5, 6)
    ]
    assert codes == [3, 0, 0, 0, 0, 0]
    assert f"share 3/6: 0 of its 1 case embedded in {out}.parts" in caplog.text
    assert caplog.text.count("does that, and lists 1 row of the manifest that cannot be used") == 6
    (listed,) = tmp_path.glob("*.failures.csv")
    assert listed.name == "E.share-3-of-6.failures.csv"
    assert [error.patient_id for error in read_failures(listed)] == [ids[2]]
    assert job(replace(config(faulty, out), **common)) == 3
    assert sorted(path.name for path in tmp_path.glob("*.failures.csv")) == [
        "E.failures.csv", listed.name,
    ]  # fmt: skip
    found = read_failures(tmp_path / "E.failures.csv")
    assert {error.patient_id for error in found} == {ids[2], ids[4]}


def test_the_region_may_lack_in_a_whole_share(phantoms: Path, faulty: Path, tmp_path: Path) -> None:
    """Its cases are set aside, as in the run of all; a region that nobody has is refused."""
    table = pd.read_csv(faulty, dtype=str).drop(index=[2, 4])
    table.loc[table.index[::2], "lesion"] = ""
    table.to_csv(faulty, index=False)
    flags = {"encoder": phantoms.parent / "encoder", "pool": "lesion"}
    blank = table["patient_id"][::2].tolist()
    assert job(replace(config(faulty, tmp_path / "E.npz", "1/2"), **flags)) == 3
    assert job(replace(config(faulty, tmp_path / "E.npz", "2/2"), **flags)) == 0
    failures = read_failures(tmp_path / "E.share-1-of-2.failures.csv")
    assert [error.patient_id for error in failures] == blank
    with pytest.raises(InputError, match="pool"):
        job(replace(config(faulty, tmp_path / "E.npz", "2/2"), **flags | {"pool": "bladder"}))


@pytest.mark.parametrize("share", ["0/8", "9/8", "3", "3/8/2", "-1/8", "a/b", "0x1/2"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_no_share_is_refused_before_anything_is_read(
    tmp_path: Path, share: str, dry_run: bool
) -> None:
    absent = config(tmp_path / "absent.csv", tmp_path / "new" / "E.npz", share, dry_run=dry_run)
    with pytest.raises(InputError, match=f"^--share {share}: expected K/N, .* --share 3/8 for"):
        job(absent)
    assert not list(tmp_path.iterdir())


def test_the_dry_run_counts_the_finished_cases_of_the_share(
    phantoms: Path, tmp_path: Path, work: Work, capsys: pytest.CaptureFixture
) -> None:
    share = config(phantoms, tmp_path / "E.npz", "2/3")
    assert job(config(phantoms, tmp_path / "E.npz", "1/3")) == 0

    def told(of: Config) -> str:
        capsys.readouterr()
        assert job(replace(of, dry_run=True)) == 0
        return capsys.readouterr().out

    work.since()
    assert "to do; 0 of 2 cases of share 2/3 done before" in told(share)
    assert work.since() == ([], of_turn(phantoms, 2, 3)[1], 0)
    assert job(share) == 0
    assert "done before, reused; 2 of 2 cases of share 2/3 done before" in told(share)
    assert "sizes: 2 cases, 8 dimensions" in told(share)
    assert "disk: about 64 bytes (embeddings" in told(share), "a copy of 8 numbers a case"
    assert "to do; 5 of 7 cases done before" in told(replace(share, share=None))
    assert "0 of 0 cases of share 9/9" in told(replace(share, share="9/9"))


def test_a_share_needs_the_disk_of_its_own_cases(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1e6, 1e6, 100.0))
    with pytest.raises(InputError, match=r"are needed on this disk .*\(--cache or --out\)"):
        job(config(phantoms, tmp_path / "E.npz"))
    with pytest.raises(InputError, match=r"about 128 bytes .* another disk \(--cache\)"):
        job(config(phantoms, tmp_path / "E.npz", "1/2"))
    assert job(config(phantoms, tmp_path / "E.npz", "2/2")) == 0  # 96 bytes


def test_names_are_hidden_in_shares_as_in_the_table(
    phantoms: Path,
    faulty: Path,
    tmp_path: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    salt, out = tmp_path / "salt", tmp_path / "results" / "E.npz"
    salt.write_text("sixteen characters, or more")
    flags = {"encoder": phantoms.parent / "encoder", "anonymise": True, "salt": salt}
    codes = [job(replace(config(faulty, out, f"{k}/2"), **flags)) for k in (1, 2)]
    assert codes == [3, 0]
    work.since()
    assert job(replace(config(faulty, out), **flags)) == 3
    assert work.since()[2] == 0, "the shares' cases are found in the private folder"
    names = {path.name for path in out.parent.iterdir()}
    assert names == {"E.npz", "E.failures.csv", "E.share-1-of-2.failures.csv"}
    written = capfd.readouterr().err + (out.parent / "E.share-1-of-2.failures.csv").read_text()
    assert not [each for each in pd.read_csv(faulty, dtype=str)["patient_id"] if each in written]
    assert str(tmp_path) not in written


def test_the_main_job_finds_what_shares_left_in_its_folder(
    phantoms: Path, tmp_path: Path, work: Work
) -> None:
    out, pre = tmp_path / "run", phantoms.parent / "encoder"
    for share in ("1/2", "2/2"):
        assert job(config(phantoms, out / "pre.npz", share, cache=out / "embeddings-cache")) == 0
    table = pd.DataFrame({"patient_id": pd.read_csv(phantoms, dtype=str)["patient_id"]})
    table.assign(**{"t2.gland.original_glcm_Idm": 1.0}).to_csv(tmp_path / "R.csv", index=False)
    tuned = encoders.ConvNeXtV2Config(depths=(1,), widths=(8,), strides=())
    encoders.save(tmp_path / "ft", encoders.ConvNeXtV2(tuned, rngs=nnx.Rngs(1)))
    images = ImageFlags(
        cohort=phantoms, encoder_pre=pre, encoder_ft=(f"cls={tmp_path / 'ft'}",), shape=SHAPE,
        spacing=SPACING,
    )  # fmt: skip
    tables = TableFlags(radiomics=((str(tmp_path / "R.csv"),),))
    plan = settle(MainConfig(images=images, tables=tables, out=out))
    work.since()
    made = from_cohort(plan, RunRecord(plan.out, plan.flags())).tasks["cls"]
    assert work.since()[2] == CASES, "those after fine-tuning alone"
    assert job(config(phantoms, tmp_path / "one" / "pre.npz")) == 0
    assert made.pre.read_bytes() == (tmp_path / "one" / "pre.npz").read_bytes()


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """A folder with an encoder of `WAITS`."""
    (tmp_path / "waits.py").write_text(WAITS)
    return tmp_path


def wait_for(condition: Any, *processes: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_shares_work_at_the_same_time_and_leave_each_other_alone(
    phantoms: Path, waiting: Path, work: Work
) -> None:
    """Nor is what a share of another host is writing cleared away; a share runs once at a time."""
    out, encoder = waiting / "E.npz", Path(f"{waiting}/waits.py:encoder")
    command = [sys.executable, "-m", "experiments.embed", "--cohort", phantoms, "--out", out]
    command += ["--encoder", encoder, "--shape", *SHAPE, "--spacing", *SPACING, "--share"]
    started = [
        subprocess.Popen(
            [*map(str, command), f"{number}/2"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in (1, 2)
    ]
    try:
        wait_for(lambda: len(list(waiting.glob("at-work-*"))) == 2, *started)
        locks = [waiting / f"E.share-{number}-of-2.npz.lock" for number in (1, 2)]
        holders = [json.loads(lock.read_text())["process"] for lock in locks]
        assert holders == [process.pid for process in started]
        for share in ("1/2", "2/2", "01/02"):
            with pytest.raises(InputError, match=r"another run is at work there .*process \d+"):
                job(replace(config(phantoms, out, share), encoder=encoder))
        left = subprocess.Popen([sys.executable, "-c", ""])
        left.wait()
        writers = {"here": (_host_mark(), started[0].pid), "elsewhere": ("0" * 8, left.pid)}
        writers["gone"] = (_host_mark(), left.pid)
        parts = waiting / "E.npz.parts"
        parts.mkdir(exist_ok=True)
        half = {
            name: parts / f".unfinished-{host}-{process}-{'0' * 12}.npz"
            for name, (host, process) in writers.items()
        }
        for file in half.values():
            file.touch()
        assert job(config(phantoms, out, "3/3")) == 0
        assert [name for name, file in half.items() if file.exists()] == ["here", "elsewhere"]
        assert all(lock.exists() for lock in locks)
    finally:
        (waiting / "go").touch()
        said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "share 1/2: 4 of its 4 cases embedded" in said[0]
    assert not list(waiting.glob("*.lock"))
    work.since()
    assert job(replace(config(phantoms, out), encoder=encoder)) == 0
    assert work.since()[0] == []
    alone = replace(config(phantoms, waiting / "one" / "E.npz"), encoder=encoder)
    assert job(alone) == 0
    assert out.read_bytes() == alone.out.read_bytes()
