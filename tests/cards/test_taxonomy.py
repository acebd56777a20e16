"""Runs by their profiles: planted kinds are found, seeds are never called different."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from experiments.compare import Config, job
from lens.cards.entries import choose
from lens.cards.reading import read_sources
from lens.cards.taxonomy import Taxonomy, cluster, sentences, taxonomy
from lens.errors import InputError
from lens.formulas import read_csv
from tests.cards.conftest import planted_card, written

FEATURES = 48
KINDS = ("grade",) * 3 + ("volume",) * 3


def profiles(seed: int, noise: float, *, alike: bool = False) -> np.ndarray:
    """Six runs: a profile for each kind, or one for both, and errors of each run's own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(2, FEATURES))
    truth[1] = truth[0] if alike else truth[1]
    return truth[[0, 0, 0, 1, 1, 1]] + noise * rng.normal(size=(6, FEATURES))


def found(changes: np.ndarray, kinds: tuple[str, ...] = KINDS) -> Taxonomy:
    return cluster(changes, [f"run{at}" for at in range(len(changes))], kinds)


def test_two_planted_kinds_are_clusters_and_differ() -> None:
    tree = found(profiles(0, 0.4))
    assert tree.clusters[:3].tolist() == [tree.clusters[0]] * 3
    assert tree.clusters[3:].tolist() == [tree.clusters[3]] * 3
    assert tree.clusters[0] != tree.clusters[3]
    (pair,) = tree.pairs.to_dict("records")
    assert pair["differ"] == "yes"
    assert pair["chance"] == pytest.approx(1 / 10)
    assert any("Different beyond the seed: grade and volume" in text for text in sentences(tree))
    table = tree.table()
    assert list(table["kind"]) in (list(KINDS), list(KINDS[::-1]))
    for row in table.to_dict("records"):
        own, nearest = int(row["run"][-1]), int(row["nearest"][-1])
        assert KINDS[own] == KINDS[nearest]


def test_correlations_are_scipys_and_the_ceiling_is_the_lowest_of_a_kind() -> None:
    changes = profiles(1, 1.0)
    tree = found(changes)
    expected = np.asarray(spearmanr(changes, axis=1)[0])
    np.testing.assert_allclose(tree.correlations, expected, atol=1e-12)
    within = [expected[a, b] for a, b in combinations(range(3), 2)]
    assert tree.ceiling["grade"] == pytest.approx(min(within))


def test_kinds_of_one_profile_are_hardly_ever_called_different() -> None:
    """At most one of the ten ways to deal six runs out separates them."""
    called = [
        found(profiles(seed, 0.5, alike=True)).pairs["differ"].iloc[0] == "yes"
        for seed in range(200)
    ]
    assert np.mean(called) <= 0.1 + 3 * np.sqrt(0.09 / 200)
    exact = profiles(7, 0.5, alike=True)
    ways = 0
    for grade in combinations(range(6), 3):
        kinds = tuple("grade" if at in grade else "volume" for at in range(6))
        ways += found(exact, kinds).pairs["differ"].iloc[0] == "yes"
    assert ways <= 2, "a way and its mirror image"


def test_within_the_ceiling_nothing_is_called_different() -> None:
    """A kind of mere noise differs from nothing, however low its correlations are."""
    changes = profiles(2, 0.3)
    changes[3:] = np.random.default_rng(3).normal(size=(3, FEATURES))
    tree = found(changes)
    assert tree.pairs["highest"].iloc[0] < tree.ceiling["grade"]
    assert tree.pairs["differ"].iloc[0] == "no"
    assert any("hardly reproducible" in text and "volume" in text for text in sentences(tree))


def test_a_single_run_of_a_kind_is_not_known_to_differ() -> None:
    kinds = ("grade", "grade", "grade", "volume", "outline", "outline")
    rows = found(profiles(0, 0.4), kinds).pairs.set_index(["kind_a", "kind_b"])
    assert rows.loc[("grade", "volume"), "differ"] == "not known"
    assert rows.loc[("grade", "outline"), "differ"] == "yes"
    alone = found(profiles(0, 0.4), ("",) * 6)
    assert "nobody knows how reproducible" in sentences(alone)[1]


def test_runs_without_any_change_are_like_no_other() -> None:
    changes = profiles(0, 0.4)
    changes[5] = 0
    tree = found(changes)
    assert np.isfinite(tree.tree).all()
    assert (tree.correlations[5, :5] == 0).all()


def test_the_comparison_writes_tree_tables_and_words(
    content: dict[str, Any], tmp_path: Path, capsys
) -> None:
    paths = []
    for at, changes in enumerate(0.1 * profiles(0, 0.4)):
        made = planted_card(content, changes, np.full(FEATURES, 0.02), n=100, hashes="abcdef"[at])
        paths.append(written(tmp_path, f"run{at}", made))
    out = tmp_path / "out"
    assert job(Config(tuple(paths), out, kinds=KINDS)) == 0
    said = capsys.readouterr().out
    assert "Different beyond the seed: grade and volume" in said
    assert "Runs by their profiles" in (out / "compare.html").read_text(encoding="utf-8")
    assert (out / "figures" / "taxonomy.png").is_file()
    assert list(read_csv(out / "taxonomy-kinds.csv")["differ"]) == ["yes"]
    assert len(read_csv(out / "taxonomy.csv")) == 6
    # Of two runs there is no tree, and none is left from before.
    assert job(Config(tuple(paths[:2]), out)) == 0
    assert not (out / "taxonomy.csv").exists()


def test_copies_are_no_seeds_and_two_runs_have_no_kinds(
    content: dict[str, Any], tmp_path: Path
) -> None:
    """Copies agree wholly: with a ceiling of one any other kind would differ from theirs."""
    changes, error = 0.1 * profiles(0, 0.4)[[0, 0, 1, 2]], np.full(FEATURES, 0.02)
    paths = [
        written(tmp_path, f"run{at}", planted_card(content, each, error, hashes="abcd"[at]))
        for at, each in enumerate(changes)
    ]
    (block,) = choose(read_sources(paths))
    with pytest.raises(InputError, match="run0 and run1 are copies, and no two seeds of a"):
        taxonomy(block, ("a", "a", "b", "b"))
    assert taxonomy(block, ("a", "b", "b", "a")) is not None
    (block,) = choose(read_sources(paths[1:3]))
    with pytest.raises(InputError, match="--kinds needs 3 runs"):
        taxonomy(block, ("a", "b"))


def test_another_number_of_kinds_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    error = np.full(FEATURES, 0.02)
    paths = [
        written(tmp_path, name, planted_card(content, error * at, error, hashes=name))
        for at, name in enumerate("abc")
    ]
    (block,) = choose(read_sources(paths))
    with pytest.raises(InputError, match="--kinds has 2 for 3 runs: give one each"):
        taxonomy(block, ("x", "y"))
