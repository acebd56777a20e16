"""The job of radiomic edits: from a manifest to tables, one bad patient at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tyro

from experiments import edit
from lens.errors import InputError
from tests.cohort.builders import ball, image, noise, write

SHAPE, SPACING = (8, 16, 16), (2.0, 2.0, 3.0)
CODE = """
import numpy as np

def before(volumes):
    return np.stack([volumes.mean((1, 2, 3, 4)), volumes.std((1, 2, 3, 4))], axis=1)

def after(volumes):
    return np.stack([volumes[..., 0].mean((1, 2, 3)), volumes.std((1, 2, 3, 4)) ** 2], axis=1)

before.cache_key = ["before"]
after.cache_key = ["after"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort whose label is the brightness of the whole image; one patient has a tiny lesion."""
    folder = tmp_path_factory.mktemp("edit")
    rows = []
    for number in range(24):
        level = 20 + 5 * number
        lesion = np.zeros(SHAPE, np.uint8)
        small = number == 3
        lesion[4, 8, 8] = 1
        if not small:
            lesion = ball(SHAPE, 7.0, SPACING)
        values = np.clip(noise(SHAPE, number) / 10 + level, 1, 255)
        row: dict[str, Any] = {"patient_id": f"P{number:02d}", "level": level}
        row["us"] = write(image(values.astype(np.float32), SPACING), folder / f"{number}-us.mha")
        row["lesion"] = write(image(lesion, SPACING), folder / f"{number}-lesion.mha")
        rows.append(row | {"name": "ab"[number % 2], "same": 1})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    (folder / "mine.py").write_text(CODE)
    return folder


def call(folder: Path, out: Path, *more: str) -> int:
    words = [
        "--cohort", str(folder / "cohort.csv"), "--encoder-pre", f"{folder / 'mine.py'}:before",
        "--encoder-ft", f"level={folder / 'mine.py'}:after", "--shape", *map(str, SHAPE),
        "--spacing", *map(str, SPACING), "--edits", "shift", "--doses", "shift=-0.5,0.5",
        "--patients", "20", "--flips", "199", "--no-features", "--out", str(out), *more,
    ]  # fmt: skip
    return edit.job(tyro.cli(edit.Config, args=words))


def test_from_images_to_tables(folder: Path, tmp_path: Path, capsys) -> None:
    assert call(folder, tmp_path / "one", "--patients", "24") == 3
    table = pd.read_csv(tmp_path / "one/edits.csv")
    assert table["stage"].tolist() == ["pre", "ft", "change"]
    assert table["n"].tolist() == [23, 23, 23]
    after = table.set_index("stage").loc["ft"]
    # A brighter region makes a brighter image, which is what the label says.
    assert after["slope"] > 0
    assert after["head_r2"] > 0.8
    failures = pd.read_csv(tmp_path / "one/failures.csv")
    assert failures["patient_id"].tolist() == ["P03"]
    assert "voxel" in failures["reason"][0]
    facts = json.loads((tmp_path / "one/edits.json").read_text())
    assert facts["edited"] == 23
    assert facts["family"] == {"level": 3}
    assert json.loads((tmp_path / "one/edits-sheet.json").read_text())["rows"]
    assert "edits move the score" in capsys.readouterr().out
    # A second run takes what is there, and gives the same.
    before = (tmp_path / "one/edits.csv").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "one/parts").glob("*.npz")}
    assert len(kept) == 23 * 2 + 23
    assert call(folder, tmp_path / "one", "--patients", "24") == 3
    assert (tmp_path / "one/edits.csv").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "one/parts").glob("*.npz")} == kept


def test_a_label_of_two_names_is_a_task(folder: Path, tmp_path: Path) -> None:
    assert call(folder, tmp_path / "two", "--labels", "level=name", "--anonymise") in (0, 3)
    assert set(pd.read_csv(tmp_path / "two/edits.csv")["task"]) == {"level"}
    patients = pd.read_csv(tmp_path / "two/edits-patients.csv")["patient_id"].astype(str)
    assert not patients.str.match(r"P\d\d$").any()
    assert not (tmp_path / "two/edits-sheet.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--edits", "shfit"], "did you mean shift"),
        (["--doses", "shift=0"], "other than 0"),
        (["--region", "gland"], "--region"),
        (["--images", "t2"], "--images"),
        (["--labels", "level=nothing"], "label column 'nothing'"),
        (["--labels", "other=level"], "task of --encoder-ft 'other'"),
        (["--labels", "level=same"], "same for all"),
        (["--part", "test"], "no column split"),
        (["--patients", "3"], "--patients"),
        (["--encoder-pre", "nowhere"], "--encoder-pre"),
        (["--pool", "gland"], "gland"),
    ],
)
def test_bad_input_is_refused_with_the_flag(
    folder: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        call(folder, tmp_path / "bad", *more)
    assert not (tmp_path / "bad/edits.csv").exists()


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path, capsys) -> None:
    assert call(folder, tmp_path / "dry", "--dry-run") == 0
    assert not (tmp_path / "dry").exists()
    assert "20 of them edited" in capsys.readouterr().out
