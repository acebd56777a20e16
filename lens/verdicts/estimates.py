"""Estimates and tests from held-out errors: R2, its change, and whether the change is real.

**What a patient owes a score.** A cross-validated R2 moves with a patient in two ways: by the
patient's own error while held out, and by what the patient taught the probes that scored others.
Two encoders that carry the same information with other noise teach differently, so a test of
held-out errors alone takes the luck of the fitted patients for a change: with 160 simulated
patients, 120 dimensions and 48 features it raised a family-wise alarm in a third of the cohorts,
and its 95% intervals covered 88%. All functions here use both parts
(`Estimate.influence`).

An error of one patient by the noise in another counts twice that way, for the one who was scored
and for the one who was fitted. The second count is estimated (`ProbeErrors.flipped_influence`) and
taken off; without it intervals are up to a tenth wider than need be.

**Why no refitted bootstrap.** The sum of squares of these influences is the variance to which a
patient bootstrap with refitted probes converges, weights drawn once for both encoders (the
infinitesimal jackknife; Efron 2014), without drawing. Refits cost hundreds of times as much and
need their penalties frozen: generalised cross-validation on a sample that holds patients twice
takes the copies for evidence, and picks hardly any penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from lens.intervals import LEVEL
from lens.verdicts.held_out import ProbeErrors
from lens.verdicts.sign_flips import Alternative, Significance, influence_test, patient_sums

_COLUMNS = 512
"""Features whose estimates are computed at once."""


class Estimate(NamedTuple):
    """A value per feature with its `LEVEL` interval, and what each patient adds to it.

    Attributes:
        value, low, high: NaN where the feature does not vary over the held-out patients.
        influence: of each patient on `value`, sums to zero; products of two estimates' influences
            add up to about their covariance, and ``weights @ influence`` over bootstrap weights of
            the patients gives draws of ``value``.
    """

    value: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    influence: Float[np.ndarray, "p k"]
    patients: int


def r2_score(
    scores: ProbeErrors, baseline: Float[np.ndarray, "n k"], groups: np.ndarray
) -> Estimate:
    """Held-out ``1 - sum error / sum baseline`` of a probe.

    Args:
        scores: of the probe.
        baseline: squared errors of the fitted patients' mean, zero where a row is not scored.
        groups: patient of each row.
    """
    return _by_columns(
        lambda c: _estimate(
            baseline[:, c] - scores.error[:, c],
            scores.fitted_influence[:, c],
            scores.flipped_influence[:, c],
            baseline[:, c],
            groups,
        ),
        baseline.shape[1],
    )


def delta_r2(
    before: ProbeErrors, after: ProbeErrors, baseline: Float[np.ndarray, "n k"], groups: np.ndarray
) -> Estimate:
    """Difference of held-out R2, after minus before, of the same patients: a paired interval.

    Exactly zero, interval and all, if both are the same.
    """
    return _by_columns(
        lambda c: _estimate(
            before.error[:, c] - after.error[:, c],
            after.fitted_influence[:, c] - before.fitted_influence[:, c],
            after.flipped_influence[:, c] - before.flipped_influence[:, c],
            baseline[:, c],
            groups,
        ),
        baseline.shape[1],
    )


def significance(
    estimate: Estimate, *, flips: int, seed: int, alternative: Alternative = "two-sided"
) -> Significance:
    """Whether the values differ from zero (or exceed it), over all features together.

    Sign flips over patients with maxT, of everything that the patients owe the estimate: see
    `lens.verdicts.sign_flips.influence_test`.
    """
    return influence_test(
        estimate.value,
        estimate.influence,
        estimate.patients,
        flips=flips,
        seed=seed,
        alternative=alternative,
    )


def select(estimate: Estimate, columns: np.ndarray) -> Estimate:
    """The estimate of some features."""
    arrays = (values[..., columns] for values in estimate[:4])
    return Estimate(*arrays, patients=estimate.patients)


def beside(one: Estimate, other: Estimate) -> Estimate:
    """Two estimates on the same patients as one of all their features, to be tested together."""
    arrays = (np.concatenate(pair, axis=-1) for pair in zip(one[:4], other[:4], strict=True))
    return Estimate(*arrays, patients=min(one.patients, other.patients))


def _by_columns(estimate: Callable[[slice], Estimate], columns: int) -> Estimate:
    """Block by block, so that intermediate results stay small where the scores are large."""
    blocks = [estimate(slice(at, at + _COLUMNS)) for at in range(0, columns, _COLUMNS)]
    arrays = (
        np.concatenate(parts, axis=-1) for parts in zip(*(b[:4] for b in blocks), strict=True)
    )
    return Estimate(*arrays, patients=max(block.patients for block in blocks))


def _estimate(
    gain: Float[np.ndarray, "n k"],
    fitted_influence: Float[np.ndarray, "n k"],
    flipped_influence: Float[np.ndarray, "n k"],
    baseline: Float[np.ndarray, "n k"],
    groups: np.ndarray,
) -> Estimate:
    total = baseline.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(total > 0, gain.sum(axis=0) / total, np.nan)
        influence = (
            patient_sums(gain - value * baseline - _centred(fitted_influence), groups) / total
        )
        twice = np.square(patient_sums(flipped_influence, groups) / total).sum(axis=0)
        share = twice / np.square(influence).sum(axis=0)
    # At most half of a sum of squares can be a second count of the other half.
    influence *= np.sqrt(1.0 - np.clip(np.nan_to_num(share), 0.0, 0.5))
    patients = int((patient_sums(baseline, groups) > 0).any(axis=1).sum())
    error = np.sqrt(np.square(influence).sum(axis=0))
    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 1, 1)) * error
    return Estimate(value, value - half, value + half, influence, max(patients, 2))


def _centred(fitted_influence: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Minus its mean over the rows that were fitted at all; zero elsewhere."""
    fitted = (fitted_influence != 0).any(axis=1)
    if not fitted.any():
        return fitted_influence
    return np.where(fitted[:, None], fitted_influence - fitted_influence[fitted].mean(axis=0), 0.0)
