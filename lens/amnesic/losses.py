"""What a task loses by each erasure of one embedding: the head fitted again, held-out patients."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from lens.amnesic.clusters import MOST, Cluster, Targets, targets_of
from lens.amnesic.eraser import Whitening, directions, fit_whitening, variance_share
from lens.amnesic.head import fit_heads
from lens.amnesic.labels import Label
from lens.amnesic.null import any_targets, matched_targets, orthonormal
from lens.amnesic.readers import Reader, kernel_reader, linear_reader, r2
from lens.amnesic.scores import Held, Kind, patient_weights, resampled, score
from lens.verdicts.fold_values import normal_scores, target_values
from lens.verdicts.folds import Fold


@dataclass(frozen=True)
class Settings:
    """How the test is done.

    Attributes:
        draws: random subspaces of every cluster, of each kind.
        bootstraps: redrawings of the patients.
        share: principal components of the embedding, relative to the fitted patients.
        seed: of subspaces, patients and landmarks.
        leftovers: also measure how much of a cluster is left; NaN without.
    """

    draws: int = 200
    bootstraps: int = 1000
    share: float = 0.25
    seed: int = 0
    leftovers: bool = True


class Erased(NamedTuple):
    """One cluster erased from one embedding.

    Attributes:
        rank: dimensions erased, the mean over the folds.
        covered: share of the cluster's variance in the components that were erased.
        variance: share of the embedding's variance that went with it, mean over the folds.
        before, after: score of the head.
        drawn_before, drawn_after: the same of redrawn patients.
        null: losses of random subspaces of this rank and variance; empty where nothing is erased.
        null_variance: share of the variance that these take, in the folds, mean.
        null_rank: losses of random subspaces of this rank alone.
        read_linear, left_linear, read_kernel, left_kernel: R2 of the cluster in held-out patients,
            before and after erasing.
    """

    rank: float
    covered: float
    variance: float
    before: float
    after: float
    drawn_before: Float[np.ndarray, " w"]
    drawn_after: Float[np.ndarray, " w"]
    null: Float[np.ndarray, " b"]
    null_variance: float
    null_rank: Float[np.ndarray, " b"]
    read_linear: float
    left_linear: float
    read_kernel: float
    left_kernel: float


LEFT = ("read_linear", "read_kernel", "left_linear", "left_kernel")
"""Fields of `Erased` that readers fill in."""


class _Part(NamedTuple):
    """An embedding in one fold, whitened on its fitted rows.

    Attributes:
        fitted: which rows are.
        held: the others.
        whitening: of the fitted rows.
        rows: all of them, whitened.
        covariance: of the fitted rows with the label.
        variance: of the label.
        whole: covariance of the fitted rows with the components of all rows.
    """

    fitted: np.ndarray
    held: Held
    whitening: Whitening
    rows: Float[np.ndarray, "n r"]
    covariance: Float[np.ndarray, " r"]
    variance: float
    whole: Float[np.ndarray, "r s"]

    def predictions(self, u: Float[np.ndarray, "b r q"]) -> Float[np.ndarray, "t b"]:
        """Of the heads after each erasure, for the held-out rows."""
        n = int(self.fitted.sum())
        coefficients = fit_heads(self.whitening.scale, u, self.covariance, self.variance, n)
        return self.held.mean + self.rows[self.held.rows] @ coefficients.T


@dataclass(frozen=True)
class Cohort:
    """The rows that have the label, and how they are held out.

    Attributes:
        label: of the task.
        r: features, NaN where missing.
        groups: patient of each row.
        folds: by patient.
    """

    label: Label
    r: Float[np.ndarray, "n k"]
    groups: np.ndarray
    folds: Sequence[Fold]

    def features(self) -> list[Float[np.ndarray, "n k"]]:
        """Normal scores of the features, fitted and imputed in each fold."""
        return [target_values(self.r, fold.fitted) for fold in self.folds]


def losses(
    x: Float[np.ndarray, "n d"],
    cohort: Cohort,
    clusters: Sequence[Cluster],
    settings: Settings,
    *,
    stage: int = 0,
    features: Sequence[Float[np.ndarray, "n k"]] | None = None,
    on_cluster: Callable[[], object] | None = None,
) -> list[Erased]:
    """The loss of every cluster; everything is fitted on the fitted rows of a fold.

    The embedding is read by its leading principal components (channels standardised), as many as
    `Settings.share` of the fitted patients: with as many components as patients, every cluster is
    read perfectly in the fitted rows, and erasing it takes a direction that is noise.

    Args:
        x: embedding.
        cohort: rows of `x`.
        clusters: what is erased, one at a time.
        settings: see there.
        stage: number of the embedding; each has subspaces of its own.
        features: of `Cohort.features`, where they are known already.
        on_cluster: called after each.
    """
    features = cohort.features() if features is None else features
    most = int(settings.share * min(len(np.unique(cohort.groups[f.fitted])) for f in cohort.folds))
    whole = fit_whitening(x, most=max(2, most), per_channel=True)
    parts = [_part(x, cohort.label, fold, whole) for fold in cohort.folds]
    weights = patient_weights(
        cohort.groups, settings.bootstraps, np.random.default_rng(settings.seed)
    )
    embedding = _Embedding(
        kind=cohort.label.kind,
        parts=parts,
        whole=whole,
        features=features,
        common=target_values(cohort.r, np.ones(len(x), bool)),
        weights=weights,
        plain=_scored(cohort.label.kind, parts, None, weights),
        leftovers=_Leftovers(whole, parts, settings.seed) if settings.leftovers else None,
    )

    def erased(number: int) -> Erased:
        rng = np.random.default_rng([settings.seed, stage, number])
        return _erased(embedding, clusters[number], settings, rng)

    found = []
    # A cluster per thread: its matrices are too small for several threads to share one.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        for each in pool.map(erased, range(len(clusters))):
            found.append(each)
            if on_cluster is not None:
                on_cluster()
    return found


class _Scored(NamedTuple):
    """The score of all held-out rows, and of redrawn patients."""

    score: float
    drawn: Float[np.ndarray, " w"]


class _Embedding(NamedTuple):
    """What is the same for every cluster that is erased from an embedding.

    Attributes:
        kind: of the score.
        parts: of the folds.
        whole: the whitening of all rows.
        features: normal scores in each fold.
        common: the same, fitted on all rows.
        weights: of redrawn patients.
        plain: the score where nothing is erased.
        leftovers: of its readers, if they are asked for.
    """

    kind: Kind
    parts: Sequence[_Part]
    whole: Whitening
    features: Sequence[Float[np.ndarray, "n k"]]
    common: Float[np.ndarray, "n k"]
    weights: Float[np.ndarray, "w n"]
    plain: _Scored
    leftovers: _Leftovers | None


def _part(x: np.ndarray, label: Label, fold: Fold, whole: Whitening) -> _Part:
    whitening = fit_whitening(x[fold.fitted], most=len(whole.scale), per_channel=True)
    rows = whitening.rows(x)
    own = whole.rows(x)[fold.fitted]
    values = label.values
    if label.kind == "r2":
        values = normal_scores(values[:, None], fold.fitted)[:, 0]
    mean, deviation = values[fold.fitted].mean(), values[fold.fitted].std()
    values = (values - mean) / (deviation if deviation > 0 else 1.0)
    fitted = values[fold.fitted]
    held = np.flatnonzero(fold.test)
    return _Part(
        fitted=fold.fitted,
        held=Held(held, values[held], 0.0),
        whitening=whitening,
        rows=rows,
        covariance=rows[fold.fitted].T @ fitted / len(fitted),
        variance=float(np.square(fitted).mean()),
        whole=rows[fold.fitted].T @ (own - own.mean(axis=0)) / len(own),
    )


def _scored(
    kind: Kind, parts: Sequence[_Part], erased: Sequence[np.ndarray] | None, weights: np.ndarray
) -> _Scored:
    """The score after erasing a basis in each fold; nothing for None."""
    bases = erased or [np.zeros((len(part.whitening.scale), 0)) for part in parts]
    held = [part.held for part in parts]
    after = [part.predictions(u[None]) for part, u in zip(parts, bases, strict=True)]
    drawn = resampled(kind, held, [p[:, 0] for p in after], weights)
    return _Scored(float(score(kind, held, after)[0]), drawn)


def _erased(
    embedding: _Embedding, cluster: Cluster, settings: Settings, rng: np.random.Generator
) -> Erased:
    kind, parts, whole = embedding.kind, embedding.parts, embedding.whole
    most = max(1, min(MOST, min(len(part.whitening.scale) for part in parts) // 4))
    targets = [
        targets_of(values[:, cluster.columns], part.fitted, most)
        for values, part in zip(embedding.features, parts, strict=True)
    ]
    erased = [
        directions(part.rows[part.fitted], t.z[part.fitted])
        for part, t in zip(parts, targets, strict=True)
    ]
    before, after = embedding.plain, _scored(kind, parts, erased, embedding.weights)
    shares = [
        float(variance_share(part.whitening.scale, u[None])[0])
        for part, u in zip(parts, erased, strict=True)
    ]
    variance, ranks = float(np.mean(shares)), [u.shape[1] for u in erased]
    null, null_variance = np.zeros((2, 0)), float("nan")
    if rank := max(ranks):
        matched = matched_targets(whole.scale, rank, variance, settings.draws, rng)
        free = any_targets(len(whole.scale), rank, settings.draws, rng)
        drawn = np.concatenate([matched, free])
        after_null, shares_null = _of_subspaces(parts, drawn, ranks)
        held = [part.held for part in parts]
        null = before.score - score(kind, held, after_null).reshape(2, -1)
        null_variance = float(shares_null[: settings.draws].mean())
    common, leftovers = embedding.common[:, cluster.columns], embedding.leftovers
    target = targets_of(common, np.ones(len(common), bool), most)
    return Erased(
        rank=float(np.mean(ranks)),
        covered=float(np.mean([t.weights.sum() for t in targets])),
        variance=variance,
        before=before.score,
        after=after.score,
        drawn_before=before.drawn,
        drawn_after=after.drawn,
        null=null[0],
        null_variance=null_variance,
        null_rank=null[1],
        **(leftovers.of(target, erased) if leftovers else dict.fromkeys(LEFT, float("nan"))),
    )


def _of_subspaces(
    parts: Sequence[_Part],
    drawn: Float[np.ndarray, "b r q"],
    ranks: Sequence[int],
) -> tuple[list[np.ndarray], Float[np.ndarray, " b"]]:
    """Predictions after the erasure of the same random targets in every fold, and their variance.

    A draw is a set of linear functions of the embedding, the same in all folds, and is erased as a
    cluster is: a subspace drawn anew in each fold would average out over the folds.
    """
    draws = len(drawn)
    predictions, shares = [], []
    for part, rank in zip(parts, ranks, strict=True):
        basis = orthonormal(part.whole @ drawn[:, :, : max(rank, 1)]) if rank else None
        u = np.zeros((draws, len(part.whitening.scale), 0)) if basis is None else basis
        predictions.append(part.predictions(u))
        shares.append(variance_share(part.whitening.scale, u))
    return predictions, np.mean(shares, axis=0)


class _Leftovers:
    """How much of a cluster is read from erased rows of patients whom the eraser did not see.

    In the fitted rows nothing is left for a linear reader, by construction. So the held-out rows of
    all folds, each erased by the eraser of its fold, are read by readers that are fitted on those
    of the other folds.
    """

    def __init__(self, whole: Whitening, parts: Sequence[_Part], seed: int) -> None:
        self._parts, self._seed = parts, seed
        # A fold's components, in the axes of all rows.
        self._turn = [
            (part.whitening.axes * part.whitening.scale[:, None].T).T
            * part.whitening.std
            / whole.std
            @ whole.axes
            for part in parts
        ]
        self._plain = self._readers([np.zeros((len(p.whitening.scale), 0)) for p in parts])

    def of(self, target: Targets, erased: Sequence[np.ndarray]) -> dict[str, float]:
        """R2 by both readers, before and after."""
        scores = [self._scores(each, target) for each in (self._plain, self._readers(erased))]
        return dict(zip(LEFT, [*scores[0], *scores[1]], strict=True))

    def _readers(self, erased: Sequence[np.ndarray]) -> list[tuple[Reader, Reader]]:
        rows = np.zeros((len(self._parts[0].rows), self._turn[0].shape[1]))
        for part, turn, u in zip(self._parts, self._turn, erased, strict=True):
            own = part.rows[part.held.rows]
            rows[part.held.rows] = (own - own @ u @ u.T) @ turn
        found = []
        for part in self._parts:
            fitted, held = rows[part.fitted], rows[part.held.rows]
            found.append(
                (linear_reader(fitted, held), kernel_reader(fitted, held, seed=self._seed))
            )
        return found

    def _scores(self, readers: list[tuple[Reader, Reader]], target: Targets) -> list[float]:
        return [
            r2([
                pair[which].errors(
                    target.z[part.fitted], target.z[part.held.rows], target.weights
                )
                for pair, part in zip(readers, self._parts, strict=True)
            ])
            for which in (0, 1)
        ]  # fmt: skip
