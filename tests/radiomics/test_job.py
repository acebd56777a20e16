"""The command: exit codes, files beside the table, and messages without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import Security

from experiments.radiomics import Config, job
from lens.errors import InputError
from lens.files import read_table
from lens.radiomics.parameters import parameter_files
from tests.radiomics.phantoms import write_cohort
from tests.radiomics.ports import certificate, elsewhere, family, gets_in, listening

QUICK = "setting: {binWidth: 50}\nfeatureClass: {firstorder: }\n"


@pytest.fixture
def quick(tmp_path) -> Path:
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    return file


def command(*arguments) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "experiments.radiomics", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_table_failures_and_exit_code(tmp_path, quick):
    manifest = write_cohort(tmp_path, ["a", "b"])
    (tmp_path / "b_t2.nii.gz").unlink()
    out = tmp_path / "out" / "R.parquet"
    done = command("--cohort", manifest, "--out", out, "--parameters", quick, "--workers", 1)
    assert done.returncode == 3, done.stderr
    assert read_table(out)["patient_id"].tolist() == ["a"]
    failures = pd.read_csv(out.parent / "failures.csv")
    assert failures["patient_id"].tolist() == ["b"]
    assert len(list((out.parent / "radiomics-cache").glob("[!.]*.json"))) == 1
    assert "Traceback" not in done.stderr


def test_a_refused_parameter_file_ends_with_one_line(tmp_path, quick):
    manifest = write_cohort(tmp_path, ["a"])
    quick.write_text("setting: {binwidth: 50}\n")
    done = command("--cohort", manifest, "--out", tmp_path / "R.csv", "--parameters", f"t2={quick}")
    assert done.returncode == 1
    cohort, refused = done.stderr.splitlines()
    assert cohort == "cohort: images: t2 (mr); regions: gland"
    assert refused.startswith(f"refused: {quick}: not a valid PyRadiomics parameter file")


def test_all_is_well(tmp_path, quick, capsys):
    manifest = write_cohort(tmp_path, ["a"])
    config = Config(cohort=manifest, out=tmp_path / "R.csv", parameters=(str(quick),))
    assert job(config) == 0
    assert read_table(config.out).shape == (1, 19)
    assert not (tmp_path / "failures.csv").exists()
    assert "1 patients x 18 columns" in capsys.readouterr().out


def test_without_a_patient_nothing_is_written(tmp_path, quick):
    manifest = write_cohort(tmp_path, ["a"])
    (tmp_path / "a_t2.nii.gz").write_bytes(b"not an image")
    config = Config(cohort=manifest, out=tmp_path / "R.csv", parameters=(str(quick),))
    assert job(config) == 1
    assert not config.out.exists()
    assert (tmp_path / "failures.csv").exists()


def test_another_suffix_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"R\.xlsx"):
        job(Config(cohort=tmp_path / "none.csv", out=tmp_path / "R.xlsx"))


def test_parameter_files():
    assert parameter_files(()) == {}
    assert parameter_files(("mine.yaml",)) == {"all": Path("mine.yaml")}
    assert parameter_files(("t2=a=b.yaml", "c.yaml")) == {
        "t2": Path("a=b.yaml"), "all": Path("c.yaml")
    }  # fmt: skip
    with pytest.raises(InputError, match="two files for all"):
        parameter_files(("a.yaml", "b.yaml"))


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys, experiments.radiomics\n"
        "print({'pandas', 'SimpleITK', 'radiomics', 'distributed', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_slurm_script_runs_the_job_on_the_workers_that_srun_starts(tmp_path, quick):
    """With a stand-in for srun that starts one process here."""
    stranger = Security(require_encryption=True, **certificate(tmp_path / "stranger"))
    manifest = write_cohort(tmp_path, ["a", "b c"])
    out, script = tmp_path / "R.csv", tmp_path / "job.sh"
    flags = ["--cohort", manifest, "--out", out, "--parameters", quick, "--spacing", 1, 1, 2]
    flags += ["--label", "gland=1", "--cache", tmp_path / "the parts"]
    done = command(*flags, "--slurm-script", script)
    assert done.returncode == 0, done.stderr
    assert not out.exists()
    assert "#SBATCH --ntasks=" in script.read_text()
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text('#!/bin/bash\nshift\nexec "$@"\n')
    srun.chmod(0o755)
    path = f"{srun.parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    with (tmp_path / "log.txt").open("w") as log:
        ran = subprocess.Popen(["bash", str(script)], env=environment, stdout=log, stderr=log)
    ports, tried = set(), set()
    while ran.poll() is None:
        ports |= listening(family(ran.pid))
        for host, port in elsewhere(ports - tried):
            tried.add((host, port))
            host = "127.0.0.1" if host == "0.0.0.0" else host
            assert not gets_in(f"tcp://{host}:{port}")
            assert not gets_in(f"tls://{host}:{port}", stranger)
        time.sleep(0.2)
    said = (tmp_path / "log.txt").read_text()
    assert ran.returncode == 0, said
    assert tried, "no port was seen, so none was tried"
    assert "2 patients x 18 columns" in said
    assert "open port" not in said
    assert read_table(out)["patient_id"].tolist() == ["a", "b c"]
    assert len(list((tmp_path / "the parts").glob("[!.]*.json"))) == 2
    assert pd.read_csv(tmp_path / "R-geometry.csv")["taken"].dropna().tolist() == [1, 1]
    assert not list(Path.cwd().glob(".dask-*"))


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, quick, monkeypatch):
    manifest = write_cohort(tmp_path, ["a"])
    monkeypatch.setattr("lens.radiomics.cohort_features.parts_of", None)
    (tmp_path / "R.csv").mkdir()
    (tmp_path / "file").write_text("")
    for out, finding in [
        (tmp_path / "R.csv", r"R\.csv: is a folder; name a file in it"),
        (tmp_path / "file" / "R.csv", "file: is a file, not a folder"),
        (Path("/proc/nowhere/R.csv"), "/proc/nowhere: cannot be written to"),
    ]:
        with pytest.raises(InputError, match=finding):
            job(Config(manifest, out, parameters=(str(quick),), cache=tmp_path / "cache"))


def test_side_tables_lie_beside_the_table(tmp_path, quick):
    manifest = write_cohort(tmp_path, ["a"])
    assert job(Config(manifest, tmp_path / "R.parquet", parameters=(str(quick),), workers=1)) == 0
    names = {path.name for path in tmp_path.glob("R*")}
    assert names == {"R.parquet", "R-audit.csv", "R-gray-levels.csv", "R-geometry.csv"}


def test_labels_are_taken_and_refused(tmp_path, quick):
    manifest = write_cohort(tmp_path, ["a"])
    arguments = {"cohort": manifest, "out": tmp_path / "R.csv", "parameters": (str(quick),)}
    assert job(Config(**arguments, label=("gland=1",))) == 0
    report = pd.read_csv(tmp_path / "R-geometry.csv").set_index("name")
    assert report.loc["gland", "labels"] == "1 (671 voxels)"
    assert report.loc["gland", "taken"] == 1
    with pytest.raises(InputError, match="write region=value, such as gland=1,2"):
        job(Config(**arguments, label=("gland:1",)))
