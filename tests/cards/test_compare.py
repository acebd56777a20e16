"""Runs compared: what is refused, what is pooled, and that page and tables say the same."""

from __future__ import annotations

import copy
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import experiments.compare
from lens.cards.agreement import kappa, pair_row
from lens.cards.entries import Relation, choose, relation
from lens.cards.page import FACTS, PAGE, write_comparison
from lens.cards.pooling import pool
from lens.cards.reading import read_sources
from lens.cards.tables import tables_of
from lens.cards.words import sentences
from lens.errors import InputError
from lens.files import write_json
from lens.formulas import read_csv
from lens.report.assets import NONE, inline
from tests.cards.conftest import planted_card, written
from tests.command_line import started

K = 48
HOSTILE = "</script><script>document.title=1</script>\u202e$x$"


@pytest.fixture
def cards(content: dict[str, Any], tmp_path: Path) -> list[Path]:
    """Cards of three hospitals: the same changes in two, none in the third."""
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(K) % 6 == 0, -0.4, 0.0)
    paths = []
    for name, share, n in (("a", 1.0, 400), ("b", 1.0, 200), ("c", 0.0, 200)):
        errors = np.full(K, 0.5 / np.sqrt(n))
        made = planted_card(
            content, share * truth + errors * rng.normal(size=K), errors, n=n, hashes=name
        )
        made["tasks"]["cls"]["levels"][0]["delta_r2_cv"] = share * -0.07
        paths.append(written(tmp_path, f"hospital-{name}", made))
    return paths


def test_cards_of_different_patients_are_pooled_and_the_odd_one_is_seen(cards: list[Path]) -> None:
    (block,) = choose(read_sources(cards))
    tables = tables_of(block)
    rows = tables.pooled[tables.pooled["kind"] == "feature"].reset_index(drop=True)
    lost = np.arange(K) % 6 == 0
    assert (rows.loc[lost, "q_differ"] < 0.05).all(), "one hospital shows no loss"
    assert (rows.loc[~lost, "q_differ"] < 0.05).sum() <= 1
    (alike,) = choose(read_sources(cards[:2]))
    two = tables_of(alike).pooled
    two = two[two["kind"] == "feature"].reset_index(drop=True)
    assert np.abs(two.loc[lost, "delta_r2"] + 0.4).max() < 0.1
    assert two.loc[lost, "q_change"].max() < 0.001
    # The table's numbers are those of the method on the cards' own.
    features = [source.features["cls"] for source in read_sources(cards[:2])]
    half = [(f["delta_r2_high"] - f["delta_r2"]).to_numpy() for f in features]
    errors = [h / stats.t.ppf(0.975, n - 1) for h, n in zip(half, (400, 200), strict=True)]
    peer = pool(np.array([f["delta_r2"] for f in features]), np.array(errors))
    np.testing.assert_allclose(two["delta_r2"], peer.mean, rtol=1e-9)
    np.testing.assert_allclose(two["p_differ"], peer.p, rtol=1e-9)


def test_runs_of_the_same_patients_are_not_pooled(
    content: dict[str, Any], cards: list[Path], tmp_path: Path
) -> None:
    again = json.loads(cards[0].read_text())
    again["tasks"]["cls"]["hashes"]["before"] = None
    (block,) = choose(read_sources([cards[0], written(tmp_path, "again", again)]))
    tables = tables_of(block)
    assert not block.independent
    assert tables.pooled.empty
    assert tables.pairs["p"].isna().all()
    said = " ".join(sentences(block, tables))
    assert "The same patients, at least in part: hospital-a and again" in said
    assert "veraged over these cohorts" not in said
    assert "Cochran" not in said
    (told,) = choose(read_sources([cards[0], cards[1]]), patients="same")
    assert tables_of(told).pooled.empty


def test_how_common_patients_are_known(cards: list[Path], finished: Path) -> None:
    one, other, _ = choose(read_sources(cards))[0].entries
    assert relation(one, other).kind == "not known", "a card cannot rule it out"
    with_ids = copy.copy(one)
    object.__setattr__(with_ids, "ids", frozenset({"P1", "P2"}))
    for ids, kind in (({"P3"}, "different"), ({"P2", "P9"}, "same")):
        again = copy.copy(other)
        object.__setattr__(again, "ids", frozenset(ids))
        assert relation(with_ids, again).kind == kind
    assert relation(with_ids, again, "different").kind == "different"
    # Two tasks of one run, by hashes and ids.
    (block,) = choose(read_sources([finished, finished]), ["cls", "same"])
    assert not block.independent
    assert [entry.label for entry in block.entries] == ["run (cls)", "run (same)"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("scores", "raw"), ("level", 0.1), ("margin", 0.02), ("equivalence", 0.05)],
)
def test_settings_that_make_numbers_incomparable_are_refused(
    cards: list[Path], setting: str, value: Any
) -> None:
    content = json.loads(cards[1].read_text())
    content["settings"][setting] = value
    write_json(cards[1], content)
    with pytest.raises(InputError, match=rf"--{setting} differs: .*hospital-a.*{value} in hosp"):
        choose(read_sources(cards))


def test_other_folds_are_told(cards: list[Path]) -> None:
    content = json.loads(cards[1].read_text())
    content["tasks"]["cls"]["folds"] = 3
    write_json(cards[1], content)
    (block,) = choose(read_sources(cards))
    assert block.notes == ["folds differs: 2 in hospital-a, 3 in hospital-b, 2 in hospital-c"]


def test_runs_without_a_common_feature_or_task_are_refused(cards: list[Path]) -> None:
    content = json.loads(cards[1].read_text())
    for row in content["tasks"]["cls"]["features"]:
        row["column"] = row["column"].replace("t2", "T2w").replace("adc", "ADCmap")
    write_json(cards[1], content)
    with pytest.raises(InputError, match="no feature is in all runs"):
        choose(read_sources(cards))
    content["tasks"] = {"seg": content["tasks"]["cls"], "reg": content["tasks"]["cls"]}
    write_json(cards[1], content)
    with pytest.raises(InputError, match=r"no task is in all runs \(hospital-a: cls"):
        choose(read_sources(cards))
    with pytest.raises(InputError, match="hospital-b has no task 'cls'; it has seg, reg"):
        choose(read_sources(cards), ["cls"])


def test_groups_of_other_features_are_left_out(cards: list[Path]) -> None:
    """The mean over other features is another quantity."""
    content = json.loads(cards[1].read_text())
    features = content["tasks"]["cls"]["features"]
    content["tasks"]["cls"]["features"] = [
        row for row in features if not (row["modality"] == "t2" and "wavelet" in row["image"])
    ]
    write_json(cards[1], content)
    (block,) = choose(read_sources(cards))
    levels = block.entries[0].levels
    assert block.left_out == 12
    assert set(levels["modality"]) == {"", "adc"}
    assert "task" not in set(levels["level"]), "the mean over all features is not the same either"
    kept = levels[levels["level"] == "group"]["group"].tolist()
    assert kept == ["original"], "no wavelet feature is in there"
    assert "groups of features are not compared" in sentences(block, tables_of(block))[0]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda c: c.update(schema="other"), "not a lens card"),
        (lambda c: c.update(version="2.0"), "version 2.0, and this program reads 1"),
        (lambda c: c["tasks"]["cls"].update(scored=19), "fewer than 20 patients"),
        (lambda c: c["tasks"].update({"../../out": c["tasks"]["cls"]}), "damaged"),
        (lambda c: c["tasks"]["cls"]["features"][0].update(delta_r2="x"), "is no number"),
        (lambda c: c["tasks"]["cls"]["features"].append(c["tasks"]["cls"]["features"][0]), "twice"),
        (lambda c: c["tasks"]["cls"]["features"][0].pop("column"), "damaged"),
        (lambda c: c["tasks"]["cls"]["features"][0].update(verdict="won"), "'won' is none"),
        (lambda c: c["tasks"]["cls"].update(hashes={"features": [1]}), "no hashes"),
        (lambda c: c["tasks"]["cls"].update(levels=[]), "has no rows"),
        (lambda c: c.update(tasks=[]), "tasks or settings are missing"),
    ],
)
def test_a_damaged_card_is_refused_by_name(cards: list[Path], break_it: Any, said: str) -> None:
    content = json.loads(cards[1].read_text())
    break_it(content)
    write_json(cards[1], content)
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        choose(read_sources(cards))
    assert "hospital-b.json" in str(refused.value)


def test_the_page_says_what_the_tables_say(cards: list[Path], tmp_path: Path) -> None:
    blocks = choose(read_sources(cards))
    said = write_comparison(tmp_path / "out", blocks)
    page = unescape((tmp_path / "out" / PAGE).read_text("utf-8"))
    assert all(text in page for text in said)
    features = read_csv(tmp_path / "out" / "features.csv")
    assert len(features) == 3 * K
    verdicts = features.pivot(index="column", columns="run", values="verdict")
    same = verdicts.nunique(axis=1) == 1
    assert f"{same.sum()} of {K} features have the same verdict in all runs" in page
    pooled = read_csv(tmp_path / "out" / "pooled.csv")
    of_features = pooled[pooled["kind"] == "feature"]
    assert f"For {(of_features['q_differ'] <= 0.05).sum()} of {K} features the runs differ" in page
    assert f"median I2 is {of_features['i2'].median():.0%}" in page
    pairs = read_csv(tmp_path / "out" / "pairs.csv")
    low, high = (f"{each:.2f}".replace("-", "−") for each in
                 (pairs["correlation"].min(), pairs["correlation"].max()))  # fmt: skip
    assert f"correlate by {low} to {high} (median of 3 pairs" in page
    by_hand = features.pivot(index="column", columns="run", values="delta_r2").corr()
    np.testing.assert_allclose(
        pairs["correlation"], by_hand.to_numpy()[np.triu_indices(3, 1)], rtol=1e-9
    )
    for name in ("changes", "forest"):
        assert (tmp_path / "out" / "figures" / f"{name}.svg").stat().st_size > 2000
    assert str(tmp_path) not in page
    assert str(tmp_path) not in (tmp_path / "out" / FACTS).read_text("utf-8")


def test_hostile_names_and_wild_numbers_stay_inert(cards: list[Path], tmp_path: Path) -> None:
    content = json.loads(cards[1].read_text())
    other = json.loads(cards[0].read_text())
    for card in (content, other):
        for row in card["tasks"]["cls"]["features"]:
            row["column"] += HOSTILE
            row["feature"] = row["roi"] = HOSTILE
        for row in card["tasks"]["cls"]["levels"]:
            row["roi"] = HOSTILE
        card["tasks"]["cls"]["features"][0] |= {"delta_r2": -1000.0, "verdict": "lost"}
        card["tasks"]["cls"]["features"][1] |= dict.fromkeys(
            ("delta_r2", "delta_r2_low", "delta_r2_high"), None
        )
    write_json(cards[0], other)
    write_json(cards[1], content)
    names = [HOSTILE, "second" * 500]
    write_comparison(tmp_path / "out", choose(read_sources(cards[:2], names)))
    page = (tmp_path / "out" / PAGE).read_text("utf-8")
    ours = inline(NONE)
    assert re.findall("<script", page) == ["<script"] * len(ours.scripts), "ours, and no other"
    assert ours.policy in unescape(page)
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    svg = (tmp_path / "out" / "figures" / "changes.svg").read_text("utf-8")
    assert "<script" not in svg


def test_every_common_task_has_its_folder_and_no_spread_is_no_number(
    cards: list[Path], tmp_path: Path
) -> None:
    """Embeddings that equal those before change nothing, with certainty: nothing is pooled."""
    for path in cards[:2]:
        content = json.loads(path.read_text())
        still = planted_card(
            content, np.zeros(K), np.zeros(K), hashes=f"{ord(path.stem[-1]):x}"[-1]
        )
        content["tasks"]["still"] = still["tasks"]["cls"]
        write_json(path, content)
    blocks = choose(read_sources(cards[:2]))
    assert [block.entries[0].task for block in blocks] == ["cls", "still"]
    assert all(block.independent for block in blocks)
    said = " ".join(write_comparison(tmp_path / "out", blocks))
    assert "No feature can be pooled: in some run its change has no spread." in said
    assert "nan" not in said.lower()
    pooled = read_csv(tmp_path / "out" / "still" / "pooled.csv")
    assert pooled["delta_r2"].isna().all()
    assert (tmp_path / "out" / "cls" / "pairs.csv").is_file()
    page = (tmp_path / "out" / PAGE).read_text("utf-8")
    assert "nan" not in re.sub(r"base64,[^\"]+|<[^>]+>", "", page).lower()


def test_agreement_by_hand(content: dict[str, Any], tmp_path: Path) -> None:
    words = (
        np.array(["lost", "lost", "gained", "absent"]),
        np.array(["lost", "gained", "gained", "absent"]),
    )
    # Agreement 3/4; by chance (2 * 1 + 1 * 2 + 1 * 1) / 16 = 5/16.
    np.testing.assert_allclose(kappa(*words), (3 / 4 - 5 / 16) / (1 - 5 / 16))
    assert np.isnan(kappa(words[0][:2], words[0][:2]))
    errors = np.full(K, 0.05)
    for name, mean in (("x", 0.1), ("y", 0.3)):
        written(tmp_path, name, planted_card(content, np.full(K, mean), errors, hashes=name))
    (block,) = choose(read_sources([tmp_path / "x.json", tmp_path / "y.json"]))
    row = pair_row(*block.entries, Relation("different", ""))
    assert np.isnan(row["correlation"]), "no change varies over the features"
    np.testing.assert_allclose(row["difference"], 0.2)
    # Equal errors of 100 patients each: Welch's degrees of freedom are 2 * 99.
    half = stats.t.ppf(0.975, 198) * 0.05 * np.sqrt(2)
    np.testing.assert_allclose(row["difference_low"], 0.2 - half)


def test_the_job_reads_folders_and_cards_together(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run folder on one side, a card of the same run on the other."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(finished / "card.json", other / "card.json")

    def run(*runs: Path, out: Path = tmp_path / "out") -> tuple[int, str]:
        code = started(experiments.compare, monkeypatch, *map(str, runs), task="cls", out=out)
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    code, said = run(finished, other)
    assert code == 0, said
    assert "run (120 patients) and other (120 patients)" in said
    assert "The same patients" in said
    assert "48 of 48 features have the same verdict" in said
    assert not (tmp_path / "out" / "pooled.csv").exists()
    for runs, out, reason in (
        ([finished], tmp_path / "x", "name two or more"),
        ([finished, other], finished, "is the folder of a run"),
        ([tmp_path / "none", other], tmp_path / "x", "neither the folder of a finished run"),
    ):
        code, said = run(*runs, out=out)
        assert code == 1
        assert reason in said
    assert not (tmp_path / "x" / PAGE).exists()
