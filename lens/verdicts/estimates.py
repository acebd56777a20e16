"""Held-out R2 and its change, each with an interval and the influence of every patient on it.

**Estimates.** With ``e_i`` the squared held-out error of row i, and ``b_i`` that of the fitted
patients' mean, both averaged over repeats::

    R2       = sum_i (b_i - e_i) / B,              B = sum_i b_i
    delta R2 = sum_i (e_i before - e_i after) / B

**Influence.** The influence function of an estimate T (Hampel 1974) is its derivative in the weight
of one patient, ``I_i = dT / dw_i`` at equal weights. A cross-validated R2 depends on a patient in
two ways: by the own error while held out, and by the fits that the patient took part in, which
predicted others. For R2::

    I_i = (b_i - e_i - R2 b_i) / B  -  (t_i - mean t) / B
    t_i = what row i taught, in sum_j e_j          (`ProbeErrors.fitted_influence`)

and for delta R2 the difference of two. The rows of a patient are added up.

The second is not the derivative in a weight but the effect of leaving the patient out, which
differs where it matters: a patient who pulls the fit to himself has next to no residual in it, and
seems to have taught nothing. With 3% outlying patients calls in 12 of 50 null cohorts became 0.

**Variance.** ``var T = sum_i I_i^2``: a jackknife in the fits (Efron and Stein 1981), to which a
bootstrap of patients with refitted probes comes close, the same draw for both encoders.
Drawing would cost hundreds of times as much, and would need frozen penalties: generalised
cross-validation on a sample that holds patients twice takes the copies for evidence, and picks
hardly any penalty.

**Why the second term.** Two encoders that carry the same information with other noise fit
differently. A test of held-out errors alone takes the luck of the fitted patients for a change:
with 160 simulated patients, 120 dimensions and 48 features it raised a family-wise alarm in a third
of the cohorts, and its 95% intervals covered 88%.

**Correction.** ``t_i`` is a sum over j of products of an error of patient j and a residual of
patient i. The noise in such a product is in the first term of ``I_j`` already, so that the sum of
squares counts it twice. The second count is estimated from the same products with random signs
(`ProbeErrors.flipped_influence`) and subtracted; without it intervals are up to a tenth wider than
need be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from lens.intervals import LEVEL
from lens.scratch import Scratch, release
from lens.verdicts.held_out import ProbeErrors
from lens.verdicts.sign_flips import Alternative, Significance, influence_test, patient_sums

Weighted = Sequence[tuple[float, ProbeErrors]]
"""Errors of several probes, each with a weight."""

_COLUMNS = 512
"""Features whose estimates are computed at once."""


class Estimate(NamedTuple):
    """An estimate per feature: R2 or a change of R2.

    Attributes:
        value: NaN where the feature does not vary over the held-out patients.
        low, high: `LEVEL` interval, ``value -+ t sqrt(sum influence^2)`` with Student's t of
            ``patients - 1`` degrees of freedom.
        influence: of each patient on `value`, sums to zero over patients. Products of two
            estimates' influences add up to about their covariance.
        patients: that were held out, at least 2.
    """

    value: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    influence: Float[np.ndarray, "p k"]
    patients: int


def r2_score(
    errors: ProbeErrors, baseline: Float[np.ndarray, "n k"], groups: np.ndarray
) -> Estimate:
    """Held-out R2 of a probe, ``1 - sum error / sum baseline``.

    Args:
        errors: of the probe.
        baseline: squared errors of the fitted patients' mean, zero where a row is not scored.
        groups: patient of each row (n,).
    """
    return _by_columns(
        lambda c: _estimate(
            baseline[:, c] - errors.error[:, c],
            errors.fitted_influence[:, c],
            errors.flipped_influence[:, c],
            baseline[:, c],
            groups,
        ),
        errors,
    )


def delta_r2(
    before: ProbeErrors, after: ProbeErrors, baseline: Float[np.ndarray, "n k"], groups: np.ndarray
) -> Estimate:
    """Change of held-out R2, after minus before, paired by patient.

    Exactly zero, interval and all, if both are the same. Arguments as in `r2_score`.
    """
    return delta_of_sums([(1.0, before)], [(1.0, after)], baseline, groups)


def delta_of_sums(
    before: Weighted, after: Weighted, baseline: Float[np.ndarray, "n k"], groups: np.ndarray
) -> Estimate:
    """Change of a weighted sum of the held-out R2 of several probes.

    Args:
        before, after: weight and errors of each probe.
        baseline, groups: as in `r2_score`.
    """

    def change(columns: slice, name: str) -> Float[np.ndarray, "n c"]:
        one, other = (
            sum(weight * getattr(errors, name)[:, columns] for weight, errors in side)
            for side in (before, after)
        )
        return np.subtract(other, one)

    return _by_columns(
        lambda c: _estimate(
            -change(c, "error"),
            change(c, "fitted_influence"),
            change(c, "flipped_influence"),
            baseline[:, c],
            groups,
        ),
        *(errors for _, errors in (*before, *after)),
    )


def significance(
    estimate: Estimate, *, flips: int, seed: int, alternative: Alternative = "two-sided"
) -> Significance:
    """p of ``value = 0``, or of ``value <= 0``, over all features of the estimate together.

    Sign flips of the patients' influences with maxT: `lens.verdicts.sign_flips.influence_test`.
    """
    return influence_test(
        estimate.value,
        estimate.influence,
        estimate.patients,
        flips=flips,
        seed=seed,
        alternative=alternative,
    )


def equivalence(
    estimate: Estimate, margin: float, *, flips: int, seed: int
) -> Float[np.ndarray, " k"]:
    """Family-wise p of ``|value| >= margin``: a small one shows that the value is within it.

    Two one-sided tests (Schuirmann 1987), of which the nearer bound decides: the distance of the
    value to it, ``margin - |value|``, against zero, by `significance` over all features.
    """
    distance = estimate._replace(
        value=margin - np.abs(estimate.value),
        influence=-np.where(estimate.value < 0, -1.0, 1.0) * estimate.influence,
    )
    return significance(distance, flips=flips, seed=seed, alternative="greater").p_maxt


class Joined:
    """Estimates of blocks of features, put together as they come.

    Args:
        columns: features of all blocks.
        scratch: where the influences live, ``p k`` numbers of each estimate.
    """

    def __init__(self, columns: int, scratch: Scratch) -> None:
        self._columns, self._scratch = columns, scratch
        self.estimates: dict[str, Estimate] = {}

    def add(self, columns: slice, estimates: Mapping[str, Estimate]) -> None:
        """Takes over the estimates of these features, by name; the same names for all blocks."""
        for name, part in estimates.items():
            if name not in self.estimates:
                value, low, high = (np.empty(self._columns) for _ in range(3))
                # Features side by side, so that a block of them is one piece of the file.
                influence = self._scratch.zeros((self._columns, len(part.influence))).T
                self.estimates[name] = Estimate(value, low, high, influence, part.patients)
            whole = self.estimates[name]
            for own, values in zip(whole[:4], part[:4], strict=True):
                own[..., columns] = values
            release(whole.influence)
            self.estimates[name] = whole._replace(patients=max(whole.patients, part.patients))


def mean_of(estimate: Estimate, columns: Bool[np.ndarray, " k"]) -> Estimate:
    """Mean over some features, those without a value left out, as an estimate of one column.

    Args:
        estimate: of all features.
        columns: to average over.
    """
    columns = columns & np.isfinite(estimate.value)
    count = max(int(columns.sum()), 1)
    value = np.array([estimate.value[columns].sum() / count if columns.any() else np.nan])
    total = np.zeros((len(estimate.influence), 1))
    for at in range(0, len(columns), _COLUMNS):
        part = columns[at : at + _COLUMNS]
        total += estimate.influence[:, at : at + _COLUMNS][:, part].sum(axis=1, keepdims=True)
        release(estimate.influence)
    return _with_interval(value, total / count, estimate.patients)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """The second estimate less the first, on the same patients, with its own interval."""
    patients = min(one.patients, other.patients)
    return _with_interval(other.value - one.value, other.influence - one.influence, patients)


def concatenate(one: Estimate, other: Estimate) -> Estimate:
    """Two estimates on the same patients as one, so that their features are tested together."""
    arrays = (np.concatenate(pair, axis=-1) for pair in zip(one[:4], other[:4], strict=True))
    return Estimate(*arrays, patients=min(one.patients, other.patients))


def _by_columns(estimate: Callable[[slice], Estimate], *errors: ProbeErrors) -> Estimate:
    """Block by block, so that intermediate results stay small where the errors are large.

    Args:
        estimate: of the features in a slice.
        errors: that it reads.
    """
    blocks = []
    for at in range(0, errors[0].error.shape[1], _COLUMNS):
        blocks.append(estimate(slice(at, at + _COLUMNS)))
        for probe in errors:
            release(*probe)
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
    """``sum gain / sum baseline`` with the influences of the module's docstring.

    Args:
        gain: squared error that is saved in each row.
        fitted_influence: of each row on minus the sum of gains, by the fits that it took part in.
        flipped_influence: the same with random signs of the errors.
        baseline: squared errors of the fitted patients' mean.
        groups: patient of each row.
    """
    total = baseline.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(total > 0, gain.sum(axis=0) / total, np.nan)
        influence = (
            patient_sums(gain - value * baseline - _centred(fitted_influence), groups) / total
        )
        counted_twice = np.square(patient_sums(flipped_influence, groups) / total).sum(axis=0)
        share = counted_twice / np.square(influence).sum(axis=0)
    # At most half of a sum of squares can be a second count of the other half.
    influence *= np.sqrt(1.0 - np.clip(np.nan_to_num(share), 0.0, 0.5))
    patients = int((patient_sums(baseline, groups) > 0).any(axis=1).sum())
    return _with_interval(value, influence, patients)


def _with_interval(
    value: Float[np.ndarray, " k"], influence: Float[np.ndarray, "p k"], patients: int
) -> Estimate:
    error = np.sqrt(np.square(influence).sum(axis=0))
    half = stats.t.ppf((1 + LEVEL) / 2, max(patients - 1, 1)) * error
    return Estimate(value, value - half, value + half, influence, max(patients, 2))


def _centred(fitted_influence: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Minus its mean over the rows that were fitted at all; zero elsewhere."""
    fitted = (fitted_influence != 0).any(axis=1)
    if not fitted.any():
        return fitted_influence
    return np.where(fitted[:, None], fitted_influence - fitted_influence[fitted].mean(axis=0), 0.0)
