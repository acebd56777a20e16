"""The study with a known mechanism: how verdicts are set against what happened, on planted data."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from benchmarks import mechanism, mechanism_truth
from benchmarks.mechanism import Config, Material, row_of, summary, verdicts
from benchmarks.mechanism_figure import AIM, _panel, draw
from benchmarks.mechanism_files import packed, unpacked
from benchmarks.mechanism_train import score, split
from benchmarks.mechanism_truth import (
    agreement,
    factor_changes,
    owners,
    rate,
    shares_of_factors,
    squared_errors,
)

PATIENTS, FACTORS, PER_FACTOR = 240, ("size", "texture", "level"), 4


@pytest.fixture(scope="module")
def planted() -> tuple[Material, dict[str, np.ndarray]]:
    """Embeddings that hold three factors; one side lacks ``texture``, one holds more of it."""
    rng = np.random.default_rng(0)
    factors = pd.DataFrame(rng.standard_normal((PATIENTS, 3)), columns=FACTORS)
    noise = rng.standard_normal((PATIENTS, 3 * PER_FACTOR))
    r = np.exp(np.repeat(factors.to_numpy(), PER_FACTOR, axis=1) + 0.5 * noise)
    mixing = rng.standard_normal((3, 8))

    def embedded(shown: np.ndarray) -> np.ndarray:
        hidden = factors.to_numpy() * shown
        return (hidden @ mixing + 0.4 * rng.standard_normal((PATIENTS, 8))).astype(np.float32)

    before = embedded(np.array([1.0, 0.6, 1.0]))
    sides = {
        "lacks": embedded(np.array([1.0, 0.0, 1.0])),
        "gains": embedded(np.array([1.0, 2.0, 1.0])),
        "same": before,
    }
    columns = [f"t2.gland.original_firstorder_{i}" for i in range(r.shape[1])]
    patients = np.array([f"p{i:03d}" for i in range(PATIENTS)])
    return Material({"pretrained": before, **sides}, columns, r, patients, factors), sides


@pytest.fixture(scope="module")
def judged(planted: tuple[Material, dict[str, np.ndarray]]) -> dict[str, pd.DataFrame]:
    material, sides = planted
    config = Config(folds=4, flips=500)
    return verdicts(config, material, material.embeddings["pretrained"], sides)


def changes_of(material: Material, side: str) -> pd.DataFrame:
    y = material.factors.to_numpy()
    before, after = (
        squared_errors(material.embeddings[name].astype(float), y) for name in ("pretrained", side)
    )
    return factor_changes(before, after, material.factors)


def test_the_truth_knows_the_factor_that_was_dropped(planted: tuple) -> None:
    material, _ = planted
    for side, sign in (("lacks", -1), ("gains", 1), ("same", 0)):
        changes = changes_of(material, side).set_index("factor")
        assert changes.loc["texture", "sign"] == sign
        expected = "stayed" if side == "same" else "changed"
        assert changes.loc["texture", "state"] == expected
    assert (changes_of(material, "same")["change"] == 0).all()


def test_each_feature_is_told_by_its_factor(planted: tuple) -> None:
    material, _ = planted
    owner = owners(shares_of_factors(material.r, material.factors))
    np.testing.assert_array_equal(owner, np.repeat(FACTORS, PER_FACTOR))
    nobody = np.random.default_rng(1).standard_normal(material.r.shape)
    assert (owners(shares_of_factors(nobody, material.factors)) == "").all()


def row(material: Material, judged: dict[str, pd.DataFrame], side: str) -> dict:
    shares = shares_of_factors(material.r, material.factors)
    found = row_of(judged[side], changes_of(material, side), owners(shares), shares)
    return found | {"label": "texture_grade", "seed": 0, "kind": "full", "same_encoder": False}


@pytest.mark.parametrize(("side", "verdict"), [("lacks", "lost"), ("gains", "gained")])
def test_features_of_a_changed_factor_are_called(
    planted: tuple, judged: dict[str, pd.DataFrame], side: str, verdict: str
) -> None:
    material, _ = planted
    called = judged[side]["verdict"].to_numpy()[PER_FACTOR : 2 * PER_FACTOR]
    assert (called == verdict).all()
    found = row(material, judged, side)
    assert found["owned_found"] == PER_FACTOR
    assert found["owned_changed"] >= PER_FACTOR
    texture = next(f for f in found["factors"] if f["factor"] == "texture")
    assert texture[verdict] == PER_FACTOR
    assert found["correlation_with_expected"] > 0.9


def test_nothing_is_called_where_nothing_changed(
    planted: tuple, judged: dict[str, pd.DataFrame]
) -> None:
    material, _ = planted
    found = row(material, judged, "same")
    assert found["called"] == 0
    assert found["owned_stayed"] == 3 * PER_FACTOR
    assert found["correlation_with_expected"] is None


def table(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_a_call_of_the_other_sign_is_a_false_alarm() -> None:
    changes = table(
        factor=["a", "b", "c", "d"],
        state=["changed", "stayed", "between", "changed"],
        sign=[-1, 0, 1, 1],
    )
    owner = np.array(["a", "a", "a", "b", "b", "c", "c", "d", ""])
    called = ["lost", "gained", "undecided", "lost", "unchanged", "gained", "lost", "lost", "lost"]
    assert agreement(called, owner, changes) == {
        "changed": 4,
        "found": 1,
        "called": 6,
        "right": 1,
        "small": 1,
        "wrong": 4,
        "stayed": 2,
        "stayed_called": 1,
    }


def test_shares_over_fine_tunings_have_intervals_that_draw_whole_labels() -> None:
    rows = [
        {"label": f"{label}", "found": (9, 1)[label % 2], "of": 10}
        for label in range(8)
        for _ in range(3)
    ]
    found = rate(rows, "found", "of")
    assert found["share"] == 0.5
    assert found["runs"] == 24
    # Two kinds of labels, eight of them: the standard error is 0.4 / sqrt(8), about 0.14; that of
    # 24 independent fine-tunings would be 0.08.
    assert 0.15 < found["low"] < 0.3
    assert 0.7 < found["high"] < 0.85
    assert rate([{"label": "a", "found": 0, "of": 0}], "found", "of")["share"] is None
    assert rate([], "found", "of")["share"] is None


def test_packing_keeps_embeddings_to_a_step_of_their_range() -> None:
    x = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    x[:, 3] = 2
    stored = packed("volume_ml-0-full/gland", x)
    back = unpacked(stored)["gland"]["volume_ml-0-full"]
    assert np.abs(back - x).max() <= np.ptp(x, axis=0).max() / 65_535
    assert (back[:, 3] == 2).all()


def test_the_split_shares_no_patient_and_scores_are_as_defined() -> None:
    train, val, test = split(70, 1)
    assert sorted(np.concatenate([train, val, test])) == list(range(70))
    assert len(train) == 50
    assert len(val) == len(test) == 10
    truth = np.array([1, 1, 2, 2, 3, 3])
    perfect = np.eye(3)[truth - 1]
    assert score(truth, perfect, np.array([1, 2, 3])) == 1
    assert score(truth, 1 - perfect, np.array([1, 2, 3])) == 0
    assert np.isnan(score(truth[:2], perfect[:2], np.array([1, 2, 3])))
    assert score(truth, truth.astype(float), None) == 1
    assert score(truth, np.full(6, 2.0), None) == 0


def test_the_record_sums_up_and_is_drawn(
    planted: tuple, judged: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    material, _ = planted
    rows = [row(material, judged, side) for side in ("lacks", "gains")]
    rows += [row(material, judged, "same") | {"kind": "frozen", "same_encoder": True}]
    found = summary(rows)
    assert found["full"]["sensitivity"]["share"] > 0.9
    assert found["full"]["false_alarms"]["share"] == 0
    assert found["frozen"]["called"]["share"] == 0
    draw({"patients": 60, "runs": rows, "summary": found}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_wrong_sign_is_found_out(
    planted: tuple, judged: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdicts of the side that lost are no agreement with a factor said to have gained."""
    material, _ = planted
    true = mechanism_truth.factor_changes

    def turned(*arguments: object, **options: object) -> pd.DataFrame:
        changes = true(*arguments, **options)  # type: ignore[arg-type]
        return changes.assign(sign=-changes["sign"])

    monkeypatch.setattr(mechanism, "factor_changes", turned)
    changes = turned(
        *(
            squared_errors(material.embeddings[name].astype(float), material.factors.to_numpy())
            for name in ("pretrained", "lacks")
        ),
        material.factors,
    )
    shares = shares_of_factors(material.r, material.factors)
    found = row_of(judged["lacks"], changes, owners(shares), shares)
    assert found["owned_found"] == 0
    assert found["owned_wrong"] == found["owned_called"] > 0


def test_the_factor_that_was_trained_for_is_marked(
    planted: tuple, judged: dict[str, pd.DataFrame]
) -> None:
    material, _ = planted
    found = row(material, judged, "gains")
    renamed = [f | {"factor": "gland_volume"} for f in found["factors"][:1]] + found["factors"][1:]
    figure, axes = plt.subplots(1, 2)
    for axis, label in zip(axes, ("volume_ml", "lesion_grade"), strict=True):
        _panel(axis, [found | {"factors": renamed}], label)
    marked = [any(to_hex(p.get_facecolor()).upper() == AIM for p in axis.patches) for axis in axes]
    plt.close(figure)
    assert marked == [True, False]
