"""The job that turns an archive into a manifest: exit codes, files and what is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.common.cli import run
from experiments.prepare import Config, job
from tests.cohort.archives import picai, touch
from tests.cohort.builders import ball, image, noise, write
from tests.command_line import leave_the_process_alone


def prepare(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_the_process_alone(monkeypatch)
        with pytest.raises(SystemExit) as ended:
            run(Config, job, args=[str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_an_archive_becomes_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = picai(tmp_path)
    out = tmp_path / "cohort.csv"
    assert prepare("picai", "--images", images, "--labels", labels, "--out", out) == 0
    assert capsys.readouterr().out == f"3 studies: {out}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cohort.csv", "images", "picai_labels"]


def test_what_is_set_aside_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = picai(tmp_path)
    (images / "10000" / "10000_1000000_adc.mha").write_bytes(b"")
    out = tmp_path / "cohort.csv"
    arguments = ("picai", "--images", images, "--labels", labels, "--out", out)
    assert prepare(*arguments) == 3
    failures = pd.read_csv(tmp_path / "failures.csv", dtype=str)
    assert failures["reason"].to_list() == ["the adc file is empty (0 bytes)"]
    said = capsys.readouterr()
    assert "1 study set aside, listed in" in said.err
    assert said.out == f"2 studies: {out}\n"
    (images / "10000" / "10000_1000000_adc.mha").write_bytes(b"x")
    assert prepare(*arguments) == 0
    assert not (tmp_path / "failures.csv").exists()


def test_nothing_usable_is_refused_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = picai(tmp_path)
    for file in images.rglob("*_adc.mha"):
        file.unlink()
    out = tmp_path / "cohort.csv"
    assert prepare("picai", "--images", images, "--labels", labels, "--out", out) == 1
    assert not out.exists()
    said = capsys.readouterr().err
    assert re.search("refused: .* is not written, since no study can be used; the first:", said)


def test_long_lists_are_shortened_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(14):
        touch(tmp_path / f"{number:02d}/t2.mha")
        touch(tmp_path / f"{number:02d}/gland.mha")
    out = tmp_path / "cohort.csv"
    touch(tmp_path / "00/lesion.mha")
    patterns = ("--t2", "{patient}/t2.mha", "--gland", "{patient}/gland.mha")
    arguments = ("glob", "--root", tmp_path, *patterns, "--lesion", "{patient}/lesion.mha")
    assert prepare(*arguments, "--out", out) == 0
    said = capsys.readouterr().err
    assert f"13 note(s), listed in {tmp_path / 'cohort-notes.csv'}:" in said
    assert "and 3 more" in said
    assert len(pd.read_csv(tmp_path / "cohort-notes.csv")) == 13


def test_usage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cohort.csv"
    assert prepare("glob", "--gland", "{patient}.mha", "--out", out) == 1
    assert "no image is asked for" in capsys.readouterr().err
    images, labels = picai(tmp_path)
    assert (
        prepare("picai", "--images", images, "--labels", labels, "--out", tmp_path / "c.xlsx") == 1
    )
    assert "a manifest is written as .csv" in capsys.readouterr().err
    assert prepare("picai", "--out", out) == 2


def test_a_manifest_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels = ball().astype("uint8")
    voxels[:5] *= 2
    for name in ("a", "b"):
        write(image(noise()), tmp_path / f"{name}-t2.mha")
        write(image(voxels if name == "a" else voxels * 0), tmp_path / f"{name}-gland.mha")
    text = "patient_id,t2,gland\n" + "".join(f"{n},{n}-t2.mha,{n}-gland.mha\n" for n in "ab")
    (tmp_path / "cohort.csv").write_text(text)
    out = tmp_path / "geometry.csv"
    arguments = ("check", "--cohort", tmp_path / "cohort.csv", "--spacing", 1, 1, 2, "--out", out)
    assert prepare(*arguments, "--label", "gland=1") == 3
    report = pd.read_csv(out)
    assert report["verdict"].to_list() == ["identical", "identical", "refused"]
    assert report["taken"].to_list()[1] == 1
    said = capsys.readouterr()
    assert said.out == f"2 studies, images and masks: 2 identical, 1 refused: {out}\n"
    assert pd.read_csv(tmp_path / "failures.csv")["reason"].to_list() == ["the gland mask is empty"]
    assert prepare(*arguments, "--label", "gland:1") == 1
    assert "write region=value, such as gland=1,2" in capsys.readouterr().err


def test_phantoms_from_a_manifest_of_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gland = ball((12, 30, 30), 10)
    write(image(gland), tmp_path / "gland.mha")
    write(image(gland * 0), tmp_path / "empty.mha")
    (tmp_path / "masks.csv").write_text("patient_id,gland,isup\na,gland.mha,2\nb,empty.mha,0\n")
    out = tmp_path / "phantoms"
    arguments = ("phantoms", "--cohort", tmp_path / "masks.csv", "--out", out)
    assert prepare(*arguments, "--seed", 1, "--spacing", 1) == 3
    assert capsys.readouterr().out == f"phantoms: {out / 'cohort.csv'}\n"
    assert pd.read_csv(out / "cohort.csv")["isup"].to_list() == [2]
    assert pd.read_csv(out / "failures.csv")["reason"].to_list() == ["the gland mask is empty"]
    check = ("check", "--cohort", out / "cohort.csv", "--spacing", 1, 1, 2)
    assert prepare(*check, "--out", out / "geometry.csv") == 0


def test_help_needs_no_heavy_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lens.cohort", None)
    assert prepare("picai", "--help") == 0


def test_the_cohort_room_does_without_jax() -> None:
    # Workers that read cases must start fast and leave the accelerator alone.
    code = "import sys, lens.cohort, experiments.prepare; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
