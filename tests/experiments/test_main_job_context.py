"""Confounds and the encoding direction as a user gets them, from the command to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.experiments.test_main_job import run
from tests.planted import plant
from tests.undrawn import undraw

TINY = ("--hidden", "4", "--epochs", "2", "--l1", "0", "--l2", "0", "--bootstraps", "20")
TINY += ("--flips", "99", "--folds", "3", "--repeats", "1")


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[object]:
    folder = tmp_path_factory.mktemp("tables")
    planted = plant(n=120, d=24)
    paths = planted.write(folder)
    # A feature that is volume and nothing else, which the embedding tells through a factor.
    first = planted.radiomics.columns[1]
    labels = pd.DataFrame(
        {"patient_id": planted.ids, "volume_ml": planted.radiomics[first], "site": "a"}
    )
    labels.loc[::2, "site"] = "b"
    labels.assign(hospital="h").to_csv(folder / "cohort.csv", index=False)
    used = np.arange(120) % 3 > 0
    pd.DataFrame({"patient_id": planted.ids, "used": used}).to_csv(
        folder / "patients.csv", index=False
    )
    return ["--pre", paths["pre"], "--ft", f"cls={paths['ft']}", "--radiomics", paths["radiomics"],
            "--labels", folder / "cohort.csv", "--exposure", f"cls={folder / 'patients.csv'}",
            *TINY]  # fmt: skip


@pytest.fixture(scope="module")
def finished(flags: list[object], tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        done = run(*flags, "--adjust", "volume_ml", "--site", "site", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_confounds_are_columns_of_the_features(finished: Path) -> None:
    table = pd.read_parquet(finished / "cls" / "features.parquet")
    for name in ("adjusted", "site", "unexposed", "exposed"):
        for column in (f"r2_{name}_pre", f"r2_{name}_ft", f"delta_r2_{name}",
                       f"delta_r2_{name}_low", f"delta_r2_{name}_high"):  # fmt: skip
            assert table[column].notna().all(), column
        np.testing.assert_allclose(
            table[f"delta_r2_{name}"], table[f"r2_{name}_ft"] - table[f"r2_{name}_pre"], atol=1e-9
        )
    # The volume itself, and whatever else is that factor, is explained by volume.
    factor = np.arange(len(table)) % 6 == 0
    assert (table["r2_ridge_pre"][factor] > 0.7).all()
    assert (table["r2_adjusted_pre"][factor] < 0.5).all()
    assert (table["r2_adjusted_pre"][~factor] > 0.7).all()
    # The erased factor is told by the embedding before fine-tuning alone.
    assert (table["unique_r2_pre"][factor] > 0.7).all()
    assert (table["unique_r2_pre"][~factor].abs() < 0.1).all()


def test_who_was_exposed_is_written_down(finished: Path) -> None:
    table = pd.read_csv(finished / "cls" / "exposure.csv")
    assert list(table.columns) == ["patient_id", "split", "exposure"]
    number = table["patient_id"].str[1:].astype(int)
    np.testing.assert_array_equal(table["exposure"], number % 3 > 0)


def test_the_encoding_is_a_table_and_a_section(finished: Path) -> None:
    table = pd.read_csv(finished / "cls" / "encoding.csv")
    assert set(table["grouping"]) == {"modality", "class", "filter"}
    whole = table[(table["group"] == "all") & (table["stage"] == "pre")]["shapley"]
    # The embedding is a map of factors that the features tell, and little noise.
    assert (whole > 0.6).all()
    assert np.ptp(whole) < 0.05
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<h3>How much of the embedding is radiomics</h3>" in page
    assert "Adjusted for volume_ml" in page
    assert "Sites: column site" in page


@pytest.mark.usefixtures("undrawn")
def test_another_site_or_adjustment_makes_the_columns_anew(
    flags: list[object], finished: Path
) -> None:
    done = run(*flags, "--adjust", "volume_ml", "--out", finished)
    assert done.returncode == 0, done.stderr
    assert "sweep: done before" in done.stderr
    assert "cross-validation: done before" not in done.stderr
    table = pd.read_parquet(finished / "cls" / "features.parquet")
    assert "r2_adjusted_pre" in table
    assert "r2_site_pre" not in table


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--adjust", "psa"], "cohort.csv: no column psa"),
        (["--site", "hospital"], "site hospital: all patients are at one site"),
        (["--exposure", "reg=x.csv"], "--exposure of task 'reg'"),
    ],
)
def test_refuses(flags: list[object], extra: list[str], message: str, tmp_path: Path) -> None:
    done = run(*flags, *extra, "--out", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
