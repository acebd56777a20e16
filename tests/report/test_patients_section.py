"""The section of single patients: who is shown, with which numbers and pictures, and without."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import experiments.report
from experiments.common.album import album_of
from lens.anonymise import Anonymiser
from lens.errors import InputError
from lens.report import patients_section
from lens.report.page import write_report
from lens.report.patients_section import EACH, MOVED, high_and_low
from tests.cohort.builders import image, write

HOSTILE = "</svg><script>alert(6*7)</script>\u202eP"
SECTIONS = [patients_section.SECTION]


@pytest.fixture(scope="module")
def pictured(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that came from single slices: one patient's mask is none, one's file gone."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("pictured") / "run"))
    images = folder.parent / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 15:45] = 255
    Image.fromarray(mask).save(images / "mask.png")
    for number in range(4):
        pixels = rng.integers(0, 256, mask.shape, np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    (images / "bad.png").write_bytes(b"no picture")
    moved = pd.read_parquet(folder / "cls" / "moved.parquet")["patient_id"].tolist()
    others = sorted(set(pd.read_csv(folder / "split.csv")["patient_id"]))
    rows = [f"{name},{at % 4}.png,mask.png" for at, name in enumerate(others)]
    rows = [row for row in rows if row.partition(",")[0] not in moved[:3]]
    rows += [f"{moved[0]},0.png,mask.png", f"{moved[1]},bad.png,mask.png"]
    rows += [f"{moved[2]},gone.png,mask.png"]
    (images / "cohort.csv").write_text("\n".join(["patient_id,us,gland", *rows]) + "\n")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["config"] |= {"cohort": str(images / "cohort.csv"), "pre": [], "spacing": [1, 1, 1]}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


@pytest.fixture
def run(pictured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictured, tmp_path / "run"))


def page(folder: Path, **options) -> str:
    write_report(folder, SECTIONS, **options)
    html = (folder / "report.html").read_text(encoding="utf-8")
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)  # the page's own


def test_the_page_shows_patients_with_pictures_and_says_why_one_has_none(run: Path) -> None:
    html = page(run, album=album_of(run))
    moved = pd.read_parquet(run / "cls" / "moved.parquet")["patient_id"].tolist()
    assert html.count("data:image/webp;base64,") >= 4
    assert html.count("no picture: ") >= 2
    cards = html.split('<div class="patient">')[1:]
    for name, card in zip(moved[:MOVED], cards, strict=False):
        assert f"<b>{name}</b>" in card, "those whose predictions moved most come first"
    assert "<use href=" in cards[0]
    assert "no picture: the us file does not exist" in cards[2]
    assert "no picture: " in cards[1]
    assert "<script" not in html
    assert str(run.parent) not in html
    assert "img-src data:" in html
    assert (run / "figures" / "cls-patients.svg").is_file()
    assert (run / "figures" / "cls-patients.png").is_file()
    uses = set(re.findall(r'href="#(pic[\w-]+)"', html))
    assert uses <= set(re.findall(r'id="(pic[\w-]+)"', html))
    assert 'type="radio"' not in html, "a single slice has nothing to scroll"


def test_the_numbers_of_a_card_are_those_of_the_table(run: Path) -> None:
    html = page(run)
    table = pd.read_parquet(run / "cls" / "patients.parquet")
    column = table["column"].iloc[0]
    high, low = high_and_low(table[table["column"] == column])
    assert len(high) == len(low) == EACH
    assert high["observed"].min() > low["observed"].max()
    first = high.iloc[0]
    card = next(
        part
        for part in html.split('<div class="patient">')
        if f"<b>{first['patient_id']}</b> <small>high" in part
    )
    for name in ("value", "value_pre", "value_ft"):
        assert patients_section.figures(first[name]) in card
    tenth = table[table["column"] == column].nlargest(12, "observed")
    assert set(high["patient_id"]) <= set(tenth["patient_id"])
    change = (tenth["predicted_ft"] - tenth["predicted_pre"]).abs()
    assert tenth.loc[change.idxmax(), "patient_id"] == first["patient_id"]


@pytest.mark.parametrize(
    "reason", ["--no-images", "given tables", "not where it was", "cannot be read"]
)
def test_without_pictures_the_patients_stay_and_the_page_says_why(
    run: Path, undrawn: list[str], reason: str
) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if reason == "given tables":
        record["config"]["pre"] = ["pre.npz"]
    elif reason == "not where it was":
        record["config"]["cohort"] = str(run / "gone" / "cohort.csv")
    elif reason == "cannot be read":
        (run / "empty.csv").write_text("")
        record["config"]["cohort"] = str(run / "empty.csv")
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    config = experiments.report.Config(run, images=reason != "--no-images")
    assert experiments.report.job(config) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    assert reason in html
    assert "image/webp" not in html
    assert html.count('<div class="patient">') > 8
    assert str(run) not in html


def test_hidden_patients_have_hashes_and_no_pictures(run: Path) -> None:
    names = Anonymiser(b"a salt of the tests, for nothing else")
    html = page(run, names=names, album=album_of(run))
    assert "--anonymise" in html
    assert "image/webp" not in html
    moved = pd.read_parquet(run / "cls" / "moved.parquet")["patient_id"]
    assert f"<b>{names.patient(moved[0])}</b>" in html
    drawn = (run / "figures" / "cls-patients.svg").read_text(encoding="utf-8")
    for name in moved:
        assert name not in html
        assert name not in drawn


def test_pictures_of_a_run_from_tables_come_from_a_manifest_that_is_named(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest = Path(record["config"]["cohort"])
    record["config"] |= {"pre": ["pre.npz"], "cohort": None}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert album_of(run).cohort is None
    assert album_of(run, cohort=manifest).cohort is not None
    with pytest.raises(InputError, match="--label needs --cohort"):
        album_of(run, label=("gland=1",))


def test_hostile_ids_and_several_studies_stay_text(run: Path) -> None:
    for name in ("patients.parquet", "moved.parquet"):
        table = pd.read_parquet(run / "cls" / name)
        table["patient_id"] = HOSTILE + table["patient_id"]
        table.insert(1, "study_id", "<b>S1</b>")
        table.to_parquet(run / "cls" / name)
    html = page(run, album=album_of(run))
    assert "<script" not in html
    assert "&lt;script&gt;alert" in html
    assert ", study &lt;b&gt;S1&lt;/b&gt;" in html
    assert "\u202e" not in html
    assert "does not name this study" in html
    assert "studies" in html


def test_a_browser_goes_through_the_slices_without_a_script(run: Path) -> None:
    """By pointing, by a click, and by the arrow keys; the middle one is shown first."""
    from playwright import sync_api as browsers

    if not (chromium := shutil.which("chromium")):
        pytest.skip("no Chromium on this machine")
    first = pd.read_parquet(run / "cls" / "moved.parquet")["patient_id"][0]
    inside = np.zeros((9, 40, 40), np.uint8)
    inside[2:7, 12:28, 12:28] = 1
    values = np.random.default_rng(0).normal(100, 10, inside.shape)
    for name, array in (("t2", values), ("gland", inside)):
        write(image(array, (1.0, 1.0, 2.0)), run / f"{name}.nii.gz")
    (run / "volumes.csv").write_text(f"patient_id,t2,gland\n{first},t2.nii.gz,gland.nii.gz\n")
    page(run, album=album_of(run, cohort=run / "volumes.csv"))
    with browsers.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown, faults = browser.new_page(java_script_enabled=True), []
        shown.on("console", lambda message: faults.append(message.text))
        shown.goto((run / "report.html").as_uri())
        card = shown.locator(".patient").first

        def place() -> float:
            moved = card.locator(".strip").first.evaluate(
                "each => new DOMMatrix(getComputedStyle(each).transform).m41"
            )
            return -moved / 36.0

        assert place() == 5, "the middle of ten slices of 1 mm"
        card.locator("input.k5").focus()
        shown.keyboard.press("ArrowRight")
        assert place() == 6
        card.locator("input.k0").hover()
        assert place() == 6, "keys go on while the pointer rests on the bar"
        shown.keyboard.press("ArrowRight")
        assert place() == 7
        shown.keyboard.press("ArrowLeft")
        card.locator("input.k6").blur()
        assert place() == 0
        shown.mouse.move(0, 0)
        assert place() == 6
        card.locator("input.k4").click()
        shown.mouse.move(0, 0)
        assert place() == 4
        browser.close()
    assert not faults


def test_a_budget_bounds_the_page(run: Path) -> None:
    album = album_of(run)
    album.budget = 3_000
    html = page(run, album=album)
    kept = re.findall(r"data:image/webp;base64,([\w+/=]+)", html)
    assert sum(map(len, kept)) <= 3_000
    assert "MB of pictures already" in html


def test_a_folder_of_an_earlier_version_has_no_such_section(run: Path) -> None:
    for task in ("cls", "same"):
        for name in ("patients.parquet", "moved.parquet"):
            (run / task / name).unlink()
    assert "Patients</h2>" not in page(run)
