"""Estimates of every feature, from held-out errors of a block of features at a time.

Errors take room for every patient, feature, probe and encoder, in all about ``37 n k`` numbers with
one task. Nothing in them depends on the other features once the shared MLPs are trained, so that a
block's are turned into estimates, and gone before the next block's. Of an estimate the patients'
influences stay, ``n k`` numbers, for the tests that look at all features together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.scratch import IN_MEMORY, Scratch
from lens.settings import Scores, SweepConfig
from lens.verdicts.confounds import RUNS, Confounds, confound_columns
from lens.verdicts.estimates import Joined
from lens.verdicts.evidence import FeatureEstimates, estimate_features, view_change
from lens.verdicts.fold_fits import FoldFits, column_blocks
from lens.verdicts.folds import Fold
from lens.verdicts.held_out import (
    PROBES,
    RIDGE_VIEWS,
    feature_bytes,
    held_out_errors,
    train_mlps,
)

FIRST_VIEW = {RIDGE_VIEWS[0]: PROBES[RIDGE_VIEWS[0]]}
"""The one probe that encoders fine-tuned from other seeds are read by."""

Sides = Mapping[str, Float[np.ndarray, "n e"]]

Fits = Mapping[Any, FoldFits]
"""``errors``, the runs of the confounds, and (task, number) of encoders from other seeds."""


@dataclass(frozen=True)
class TaskFeatures:
    """Of one task.

    Attributes:
        estimates: of every feature.
        retrained: change of R2 in the first view of each encoder fine-tuned from another seed.
        confounds: columns of `lens.verdicts.confounds.confound_columns`.
    """

    estimates: FeatureEstimates
    retrained: list[Float[np.ndarray, " k"]]
    confounds: pd.DataFrame


@dataclass(frozen=True)
class FeatureBlocks:
    """How the features of a study are scored.

    Attributes:
        x_pre, x_ft, groups, folds, config, scores, seed: as in
            `lens.verdicts.held_out.held_out_errors`.
        retrained: task -> embeddings of encoders fine-tuned from other seeds.
        confounds: to look at.
        scratch: half of its bound is a block of errors', a quarter each that of what the fits owe
            to the embeddings and of the patients' influences.
    """

    x_pre: Float[np.ndarray, "n d"]
    x_ft: Sides
    groups: np.ndarray
    folds: Sequence[Fold]
    config: SweepConfig | None
    scores: Scores = "normal"
    seed: int = 0
    retrained: Mapping[str, Sequence[Float[np.ndarray, "n d"]]] = field(default_factory=dict)
    confounds: Confounds = field(default_factory=Confounds)
    scratch: Scratch = IN_MEMORY

    def blocks(self, columns: int) -> list[slice]:
        """Features that are scored at once.

        Args:
            columns: all features.
        """
        each = feature_bytes(len(self.x_pre), len(self.x_ft), mlp=self.config is not None)
        return [*column_blocks(columns, each, 0.5 * self.scratch.limit)]

    def count_fits(self, columns: int) -> int:
        """Calls of the first `on_fit` of `estimate`, for a progress bar."""
        rounds = len(self.blocks(columns)) + (self.config is not None)
        return rounds * len(self.folds) * (1 + len(self.x_ft))

    def estimate(
        self,
        r: Float[np.ndarray, "n k"],
        *,
        on_fit: Callable[[], object] | None = None,
        on_confound: Callable[[], object] | None = None,
    ) -> dict[str, TaskFeatures]:
        """Estimates of every task.

        Args:
            r: radiomic features in any units; NaN where missing.
            on_fit: called after each of `count_fits` fits.
            on_confound: called after each fit of `lens.verdicts.confounds.count_fits`.
        """
        # Of a single block nothing is used twice.
        blocks = self.blocks(r.shape[1])
        several = len(blocks) > 1
        names = [
            "errors",
            *RUNS,
            *((t, i) for t, e in self.retrained.items() for i in range(len(e))),
        ]
        owed = self.scratch.share(0.25)
        fits = {name: FoldFits(owed if several else None) for name in names}
        if self.config is not None:
            train_mlps(
                fits["errors"], self.x_pre, self.x_ft, r, self.folds, self.config,
                scores=self.scores, seed=self.seed, on_fit=on_fit,
            )  # fmt: skip
        kept = self.scratch.share(0.25)
        found = {task: _Collected(r.shape[1], kept) for task in self.x_ft}
        for columns in blocks:
            self._add(found, columns, r[:, columns], fits, on_fit, on_confound)
            on_confound = None
        return {task: collected.all() for task, collected in found.items()}

    def _add(
        self,
        found: Mapping[str, _Collected],
        columns: slice,
        r: Float[np.ndarray, "n b"],
        fits: Fits,
        on_fit: Callable[[], object] | None,
        on_confound: Callable[[], object] | None,
    ) -> None:
        """Adds a block of features."""
        held_out = held_out_errors(
            self.x_pre, self.x_ft, r, self.groups, self.folds, self.config,
            scores=self.scores, seed=self.seed, on_fit=on_fit, fits=fits["errors"],
        )  # fmt: skip
        confounds = confound_columns(
            self.x_pre, self.x_ft, r, self.groups, self.folds, held_out, self.confounds,
            scores=self.scores, seed=self.seed, on_fit=on_confound, fits=fits,
        )  # fmt: skip
        for task, collected in found.items():
            estimates = estimate_features(held_out, task, self.groups)
            collected.add(columns, estimates, self._retrained(task, r, fits), confounds[task])

    def _retrained(
        self, task: str, r: Float[np.ndarray, "n b"], fits: Fits
    ) -> list[Float[np.ndarray, " b"]]:
        """Changes of R2; the rule on seeds asks one ridge probe alone."""
        changes = []
        for number, x in enumerate(self.retrained.get(task, ())):
            run = held_out_errors(
                self.x_pre, {task: x}, r, self.groups, self.folds, None,
                scores=self.scores, probes=FIRST_VIEW, fits=fits[task, number],
            )  # fmt: skip
            changes.append(view_change(run, RIDGE_VIEWS[0], task, self.groups).value)
        return changes


class _Collected:
    """What the blocks said of one task."""

    def __init__(self, columns: int, scratch: Scratch) -> None:
        self._joined = Joined(columns, scratch)
        self._parts: list[FeatureEstimates] = []
        self._retrained: list[list[np.ndarray]] = []
        self._confounds: list[pd.DataFrame] = []

    def add(
        self,
        columns: slice,
        estimates: FeatureEstimates,
        retrained: list[np.ndarray],
        confounds: pd.DataFrame,
    ) -> None:
        """The next block."""
        self._joined.add(columns, estimates.estimates)
        self._parts.append(FeatureEstimates({}, estimates.mlp, estimates.others))
        self._retrained.append(retrained)
        self._confounds.append(confounds)

    def all(self) -> TaskFeatures:
        """All blocks as one."""
        first = self._parts[0]
        mlp = {name: np.concatenate([p.mlp[name] for p in self._parts]) for name in first.mlp}
        others = {
            name: (
                np.concatenate([p.others[name][0] for p in self._parts]),
                np.concatenate([p.others[name][1] for p in self._parts]),
            )
            for name in first.others
        }
        return TaskFeatures(
            FeatureEstimates(self._joined.estimates, mlp, others),
            [np.concatenate(parts) for parts in zip(*self._retrained, strict=True)],
            pd.concat(self._confounds, ignore_index=True),
        )
