"""Learning curves: does a feature need more patients to be read, or is it lost?

An embedding can hold the same information and give it away to fewer or more patients: a rescaling
of directions that carry no signal, say, leaves what very many patients could learn as it is, and
takes from what these can. For a fit to n patients the squared error falls to its limit about as
1/n. With the errors of fits to half of the patients that limit can be had::

    e(n) = e + c / n    so that    2 e(n) - e(n / 2) = e

At about twice the standard error, so that a verdict asks for it only where the embeddings before
and after differ in the patients that they need. Far from the limit the errors fall in other ways
than 1/n: where the changes as a whole are still clearly shrinking from half of the patients to all
(`lasting_share`), none is called.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from lens.verdicts.estimates import Estimate, delta_of_sums, mean_of
from lens.verdicts.held_out import HALVED, PRE, HeldOutErrors

VIEW = "one_scale"
"""The probe whose learning curve is looked at. It reads all of an embedding, and a rotation or a
scale factor does not touch it; the leading components can be noise, of which there is nothing to
learn."""

LASTING = 2 / 3
"""Share of the changes that must be left with very many patients (`lasting_share`), where the
learning curves differ. Of features that are gone all is left, of a factor that fades beside the
noise about four fifths, of a rescaling that hides a signal from few patients half or less."""


def extrapolated_change(held_out: HeldOutErrors, task: str, groups: np.ndarray) -> Estimate:
    """Change of R2 that is expected of fits to very many patients.

    Args:
        held_out: with the errors of `VIEW`, and of its halves.
        task: key of the embeddings after fine-tuning.
        groups: patient of each row.
    """
    return _change(held_out, task, groups, all_patients=2.0, half=-1.0)


def learning_change(held_out: HeldOutErrors, task: str, groups: np.ndarray) -> Estimate:
    """Change of R2 with half of the patients less that with all of them, by feature."""
    return _change(held_out, task, groups, all_patients=-1.0, half=1.0)


def learning_cost(change: Estimate, read: Bool[np.ndarray, " k"]) -> Estimate:
    """Mean of `learning_change` over features.

    Negative where the embedding after fine-tuning needs more patients than that before. A feature
    that is lost counts the other way, since there is nothing more to learn.

    Args:
        change: of every feature.
        read: features that are explained at all, before or after; with none of them, all.
    """
    return mean_of(change, read if read.any() else np.ones_like(read))


def _change(
    held_out: HeldOutErrors, task: str, groups: np.ndarray, *, all_patients: float, half: float
) -> Estimate:
    """Change of a weighted sum of R2 with all and with half of the patients."""
    whole, halves = held_out.probes[VIEW], held_out.probes[HALVED[VIEW]]

    before, after = ([(all_patients, whole[side]), (half, halves[side])] for side in (PRE, task))
    return delta_of_sums(before, after, held_out.baseline, groups)


def needs_more(cost: Estimate, p: Float[np.ndarray, " 1"], level: float) -> int:
    """Which embedding needs more patients: 1 before, -1 after fine-tuning, 0 neither is shown."""
    return int(np.sign(cost.value[0])) if p[0] <= level else 0


def lasting_share(change: Estimate, extrapolated: Estimate) -> float:
    """Share of the changes that is expected to be left with very many patients.

    Slope of the extrapolated changes against those with the patients at hand, through the origin,
    over all features: large changes count most, and none is chosen for its luck.

    Args:
        change: of R2, in `VIEW`.
        extrapolated: of `extrapolated_change`.

    Returns:
        1 where nothing changed.
    """
    now, later = np.nan_to_num(change.value), np.nan_to_num(extrapolated.value)
    size = float(np.square(now).sum())
    return float((now * later).sum()) / size if size > 0 else 1.0
