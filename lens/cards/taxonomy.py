"""Runs by the profile of their changes: which are alike, measured by how alike seeds are.

The profile of a run is the signed change of R2 of every feature. Two runs are as alike as the ranks
of their changes correlate (Spearman). Runs of one kind, the same task and method from different
seeds, tell how reproducible a profile is: what they correlate among each other is the *noise
ceiling*, which no other pair can be expected to exceed.

**When kinds differ.** Two kinds are called different where every correlation between a run of one
and a run of the other is below every correlation within either. Among all ways to deal these runs
out to two kinds of these sizes at most one is so separated: were the kinds the same, the chance of
it would be at most one over their number (`chance`), 1 in 10 with three seeds each. Anything less
is within the ceiling and is not called different; neither is a kind with a single run.

Features are near copies of one another, and runs of the same patients share their errors: a
correlation describes, and no p belongs to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from lens.cards.agreement import correlation
from lens.cards.entries import Comparable, Entry
from lens.errors import InputError
from lens.report.words import number

FEWEST = 3
"""Runs from which they are clustered."""

LISTED = 6
"""Pairs of kinds that a sentence names."""

APART = 0.5
"""Correlation below which runs fall into different clusters where no kind has two runs."""


@dataclass(frozen=True)
class Taxonomy:
    """Runs clustered by their profiles.

    Attributes:
        labels: of the runs.
        kinds: of the runs; an empty text where it is not told.
        features: that the profiles are of.
        correlations: Spearman's, of each two runs.
        tree: of `scipy.cluster.hierarchy.linkage`, average linkage on one minus the correlation.
        order: of the runs along the tree.
        clusters: number of each run's cluster, from 1 in the order of the tree.
        ceiling: kind with several runs -> lowest correlation among them.
        pairs: a row per two kinds: ``kind_a, kind_b, runs_a, runs_b, lowest, highest`` correlation
            between them, ``ceiling`` (the lowest within either; NaN where one has a single run),
            ``differ`` (yes, no, not known) and ``chance``.
    """

    labels: list[str]
    kinds: list[str]
    features: int
    correlations: Float[np.ndarray, "m m"]
    tree: Float[np.ndarray, "_ 4"]
    order: Int[np.ndarray, " m"]
    clusters: Int[np.ndarray, " m"]
    ceiling: Mapping[str, float]
    pairs: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """A row per run in the order of the tree: its kind, cluster and nearest other run."""
        others = self.correlations - 3 * np.eye(len(self.labels))
        nearest = others.argmax(axis=1)
        rows = pd.DataFrame({
            "run": self.labels,
            "kind": self.kinds,
            "cluster": self.clusters,
            "nearest": [self.labels[at] for at in nearest],
            "correlation": others.max(axis=1),
            "ceiling": [self.ceiling.get(kind, np.nan) for kind in self.kinds],
        })  # fmt: skip
        return rows.iloc[self.order].reset_index(drop=True)


def taxonomy(comparable: Comparable, kinds: Sequence[str] = ()) -> Taxonomy | None:
    """The runs of a comparison by their profiles; None of fewer than three, runs or features.

    Args:
        comparable: the runs, on their common features.
        kinds: of each run in their order; runs of one kind are seeds of the same. None without.

    Raises:
        InputError: another number of kinds than runs, kinds of fewer than three runs, or two runs
            of one kind that are copies: they agree wholly, and would make a ceiling of one.
    """
    entries = comparable.entries
    if kinds and len(kinds) != len(entries):
        raise InputError(
            f"--kinds has {len(kinds)} for {len(entries)} runs: give one each, in their order, the "
            "same for seeds of the same task and method"
        )
    if len(entries) < FEWEST:
        if kinds:
            raise InputError(
                f"--kinds needs {FEWEST} runs or more, two of them of one kind; leave it out, or "
                "name more runs"
            )
        return None
    changes = np.array([entry.features["delta_r2"].to_numpy(float) for entry in entries])
    read = np.array([entry.features["verdict"].to_numpy(str) != "absent" for entry in entries])
    usable = np.isfinite(changes).all(axis=0)
    # What no run explains changes by noise alone.
    chosen = usable & read.any(axis=0) if (usable & read.any(axis=0)).sum() >= FEWEST else usable
    if chosen.sum() < FEWEST:
        return None
    if kinds:
        _check_seeds(entries, changes, kinds)
    return cluster(
        changes[:, chosen], [entry.label for entry in entries], list(kinds) or [""] * len(entries)
    )


def cluster(
    changes: Float[np.ndarray, "m k"], labels: Sequence[str], kinds: Sequence[str]
) -> Taxonomy:
    """Profiles clustered, and kinds compared; see `taxonomy`.

    Args:
        changes: a row per run.
        labels, kinds: of the runs.
    """
    ranks = rankdata(changes, axis=1)
    found = np.eye(len(changes))
    for a, b in combinations(range(len(changes)), 2):
        # A run in which nothing changes, not even by noise, is like no other.
        found[a, b] = found[b, a] = np.nan_to_num(correlation(ranks[a], ranks[b]))
    distances = squareform(np.maximum(1.0 - found, 0.0), checks=False)
    tree = linkage(distances, method="average", optimal_ordering=True)
    order = leaves_list(tree)
    ceiling = _ceilings(found, kinds)
    cut = 1.0 - (max(min(ceiling.values()), 0.0) if ceiling else APART)
    raw = fcluster(tree, cut + 1e-9, criterion="distance")
    numbers = {old: new for new, old in enumerate(dict.fromkeys(raw[order]), start=1)}
    clusters = np.array([numbers[old] for old in raw])
    pairs = _pairs(found, kinds)
    return Taxonomy(list(labels), list(kinds), changes.shape[1], found, tree, order, clusters,
                    ceiling, pairs)  # fmt: skip


def sentences(found: Taxonomy) -> list[str]:
    """What the taxonomy says, the answer first."""
    parts = [_groups(found)]
    if not found.ceiling:
        return [
            *parts,
            "No kind has two runs (--kinds), so that nobody knows how reproducible a profile is: "
            "what looks different here may be the seed.",
        ]
    each = [f"{kind} {number(value)}" for kind, value in found.ceiling.items()]
    parts.append(
        f"Noise ceiling, the lowest correlation of two seeds of one kind: {', '.join(each)}."
    )
    weak = [kind for kind, value in found.ceiling.items() if value < APART]
    if weak:
        parts.append(f"Of {', '.join(weak)} the profile is hardly reproducible from seed to seed.")
    known = found.pairs[found.pairs["differ"] != "not known"]
    if known.empty:
        return parts
    rows = known.to_dict("records")
    told = [
        f"{row['kind_a']} and {row['kind_b']} ({number(row['lowest'])} to {number(row['highest'])}"
        f"; by chance at most 1 in {round(1 / row['chance'])})"
        for row in rows
        if row["differ"] == "yes"
    ]
    alike = [f"{row['kind_a']} and {row['kind_b']}" for row in rows if row["differ"] == "no"]
    if told:
        parts.append(f"Different beyond the seed: {_listed(told)}.")
    if alike:
        parts.append(f"Not told apart, their runs are within the ceiling: {_listed(alike)}.")
    return parts


def _listed(pairs: list[str]) -> str:
    more = len(pairs) - LISTED
    rest = f"; and {more} more pairs (taxonomy-kinds.csv)" if more > 0 else ""
    return "; ".join(pairs[:LISTED]) + rest


def _groups(found: Taxonomy) -> str:
    members: dict[int, list[str]] = {}
    for at in found.order:
        members.setdefault(int(found.clusters[at]), []).append(found.labels[at])
    by = "the noise ceiling" if found.ceiling else f"a correlation of {APART}"
    if len(members) == 1:
        return f"By the changes of {found.features} features all runs are of one cluster, by {by}."
    listed = "; ".join(f"{number}. {', '.join(runs)}" for number, runs in members.items())
    return (
        f"By the changes of {found.features} features the runs fall into {len(members)} clusters "
        f"(cut at {by}): {listed}."
    )


def _ceilings(found: np.ndarray, kinds: Sequence[str]) -> dict[str, float]:
    places = _places(kinds)
    return {
        kind: min(found[a, b] for a, b in combinations(at, 2))
        for kind, at in places.items()
        if len(at) > 1
    }


def _pairs(found: np.ndarray, kinds: Sequence[str]) -> pd.DataFrame:
    ceilings, rows = _ceilings(found, kinds), []
    for (one, at), (other, to) in combinations(_places(kinds).items(), 2):
        between = [found[a, b] for a in at for b in to]
        known = one in ceilings and other in ceilings
        ceiling = min(ceilings[one], ceilings[other]) if known else np.nan
        differ = ("yes" if max(between) < ceiling else "no") if known else "not known"
        splits = comb(len(at) + len(to), len(at)) // (2 if len(at) == len(to) else 1)
        rows.append({
            "kind_a": one, "kind_b": other, "runs_a": len(at), "runs_b": len(to),
            "lowest": min(between), "highest": max(between), "ceiling": ceiling,
            "differ": differ, "chance": 1 / splits,
        })  # fmt: skip
    columns = ["kind_a", "kind_b", "runs_a", "runs_b", "lowest", "highest", "ceiling", "differ",
               "chance"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _check_seeds(entries: Sequence[Entry], changes: np.ndarray, kinds: Sequence[str]) -> None:
    """Refuses copies as two seeds: the same embeddings after fine-tuning, or the same changes."""
    after = [(entry.facts.get("hashes") or {}).get("after") for entry in entries]
    for kind, places in _places(kinds).items():
        for a, b in combinations(places, 2):
            alike = np.array_equal(changes[a], changes[b], equal_nan=True)
            if (after[a] and after[a] == after[b]) or (alike and np.nan_to_num(changes[a]).any()):
                raise InputError(
                    f"--kinds: {entries[a].label} and {entries[b].label} are copies, and no two "
                    f"seeds of {kind}; name one of them, or call them of two kinds"
                )


def _places(kinds: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for at, kind in enumerate(kinds):
        if kind:
            places.setdefault(kind, []).append(at)
    return places
