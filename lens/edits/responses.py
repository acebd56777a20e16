"""How the task score responds to edits: a slope over the dose per patient, and its test.

Three questions are asked of the mean slope of every edit:

- is it zero?
- is it that of the same edit in a region *outside*?
- is it that of *noise* in the region, of the same root mean square change?

Each is answered by random signs over patients (`lens.verdicts.sign_flips.influence_test`), of whom
both the edited and those behind the head count (`lens.edits.heads.influence`): every visible edit
moves the embedding somewhere, and a head that reads nothing moves with it in a direction that the
next patients would change. An edit is said to move the score where all three are denied: p is the
largest of the three (an intersection-union test). The family is every edit of the task before,
after and in the change from one to the other (maxT in each of the three).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

from lens.edits.heads import Heads, fit_heads, influence, make_folds, scored
from lens.verdicts.sign_flips import influence_test

STAGES = ("pre", "ft", "change")
"""Before and after fine-tuning, and after less before."""

CONTROLS = ("outside", "noise")

LEVEL = 0.05
"""Family-wise level at which an edit is said to move the score."""

FEWEST = 8
"""Patients with an edit, or its control, below which it is not tested."""


@dataclass(frozen=True)
class Settings:
    """How responses are tested.

    Attributes:
        folds: in which heads are fitted, by patient.
        flips: of signs.
        seed: of both.
    """

    folds: int = 5
    flips: int = 4999
    seed: int = 0


class Moved(NamedTuple):
    """What one edit did to the embeddings of m patients, before and after fine-tuning.

    Attributes:
        doses: (q,).
        rows: which of the n patients.
        change: stage -> arm -> (m, q, d): embedding of the edited image less the original's; NaN
            where there is no control.
    """

    doses: Float[np.ndarray, " q"]
    rows: Int[np.ndarray, " m"]
    change: Mapping[str, Mapping[str, Float[np.ndarray, "m q d"]]]


class Estimate(NamedTuple):
    """A mean over patients, and the influence of each of n patients on it; NaN and zeros where too
    few patients have what it is the mean of."""

    value: float
    influence: Float[np.ndarray, " n"]
    count: int

    def __sub__(self, other: Estimate) -> Estimate:  # type: ignore[override]
        return Estimate(
            self.value - other.value, self.influence - other.influence, min(self.count, other.count)
        )

    @property
    def interval(self) -> tuple[float, float]:
        """95%, over another draw of all patients; Student's t."""
        n = len(self.influence)
        error = np.linalg.norm(self.influence) * np.sqrt(n / (n - 1))
        half = float(student.ppf(0.975, max(self.count - 1, 1)) * error)
        return self.value - half, self.value + half


def slope(
    doses: Float[np.ndarray, " q"], change: Float[np.ndarray, "m q ..."]
) -> Float[np.ndarray, "m ..."]:
    """Least-squares slope over the dose through the original, which is dose zero.

    Args:
        doses: not zero.
        change: from the original at each dose.
    """
    return np.einsum("q,mq...->m...", doses, change) / np.square(doses).sum()


def respond(
    x: Mapping[str, Float[np.ndarray, "n _"]],
    label: Float[np.ndarray, " n"],
    moved: Sequence[Moved],
    settings: Settings = Settings(),
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Slopes and tests of all edits of a task.

    Args:
        x: ``pre`` and ``ft``: embeddings of original images, a row per patient with a label.
        label: a number per patient, not the same for all.
        moved: by edit.
        settings: of folds and tests.

    Returns:
        Three tables, which name an edit by its place, ``at``. A row per edit and stage::

            at, stage, n, n_outside, slope, slope_low, slope_high, slope_outside, slope_noise,
            moved, head_r2, p_zero, p_outside, p_noise, p, p_family, moves

        A row per edit, stage, arm and dose: ``at, stage, arm, dose, n, score, score_low,
        score_high``. A row per edit, stage and patient: ``at, stage, row, slope, slope_outside,
        slope_noise``. Slopes and scores are in standard deviations of the label; ``moved`` is the
        length of the mean slope of the embedding, in root mean square standard deviations of its
        channels.
    """
    fold = make_folds(len(label), settings.folds, settings.seed)
    standard = (label - label.mean()) / label.std()
    heads = {stage: fit_heads(x[stage], standard, fold) for stage in ("pre", "ft")}
    each = [_estimates(heads, edit) for edit in moved]
    tested = _tests(each, settings)
    rows, patients, doses = [], [], []
    for at, (edit, found) in enumerate(zip(moved, each, strict=True)):
        single = _slopes(heads, edit)
        for place, stage in enumerate(STAGES):
            facts = {"at": at, "stage": stage}
            rows.append(facts | _row(found[stage], edit) | _movement(x, edit, stage))
            rows[-1]["head_r2"] = heads[stage].r2 if stage in heads else np.nan
            rows[-1] |= {name: values[at, place] for name, values in tested.items()}
            patients.append(pd.DataFrame(facts | {"row": edit.rows} | single[stage]))
        doses.append(_by_dose(heads, edit).assign(at=at))
    table = pd.DataFrame(rows)
    table["moves"] = table["p_family"] < LEVEL
    return table, pd.concat(doses, ignore_index=True), pd.concat(patients, ignore_index=True)


Estimates = Mapping[str, Mapping[str, Estimate]]
"""Stage -> ``edit``, each control, and ``edit-outside``, ``edit-noise``: the edit less these."""


def _estimates(heads: Mapping[str, Heads], edit: Moved) -> Estimates:
    """Mean slopes of an edit, its controls and what it is beyond them."""
    found: dict[str, dict[str, Estimate]] = {}
    for stage, head in heads.items():
        arms = {arm: slope(edit.doses, values) for arm, values in edit.change[stage].items()}
        beyond = {f"edit-{control}": arms["edit"] - arms[control] for control in CONTROLS}
        found[stage] = {
            name: _estimate(head, values, edit.rows) for name, values in (arms | beyond).items()
        }
    found["change"] = {name: found["ft"][name] - found["pre"][name] for name in found["ft"]}
    return found


def _estimate(
    head: Heads, moved: Float[np.ndarray, "m d"], rows: Int[np.ndarray, " m"]
) -> Estimate:
    known = np.isfinite(moved).all(axis=1)
    if known.sum() < FEWEST:
        mean = float(scored(head, moved[known], rows[known]).mean()) if known.any() else np.nan
        return Estimate(mean, np.zeros(len(head.fold)), int(known.sum()))
    moved, rows = moved[known], rows[known]
    mean = float(scored(head, moved, rows).mean())
    return Estimate(mean, influence(head, moved, rows), len(rows))


def _tests(each: Sequence[Estimates], settings: Settings) -> dict[str, Float[np.ndarray, "e s"]]:
    """p values by edit and stage."""
    shape = (len(each), len(STAGES))
    single, family = {}, {}
    for name, which in (("zero", "edit"), *((c, f"edit-{c}") for c in CONTROLS)):
        every = [found[stage][which] for found in each for stage in STAGES]
        own = np.array([found[stage]["edit"].value for found in each for stage in STAGES])
        values = np.array([one.value for one in every])
        counts = np.array([one.count for one in every])
        there = counts >= FEWEST
        tested = influence_test(
            np.where(there, values, 0.0),
            np.stack([one.influence for one in every], axis=1),
            # Student's t of as many as are edited, at the least: a head rests on more.
            int(counts[there].min()) if there.any() else 2,
            flips=settings.flips, seed=settings.seed,
        )  # fmt: skip
        # A difference against the sign of the slope says that the control moved more: no response.
        agrees = values * own > 0
        for into, p in ((single, tested.p), (family, tested.p_maxt)):
            into[name] = np.where(there, np.where(agrees, p, 1.0), np.nan).reshape(shape)
    out = {f"p_{name}": values for name, values in single.items()}
    for name, of in (("p", single), ("p_family", family)):
        # A question that cannot be asked for want of a control is left out; not so the others.
        most = np.fmax(np.fmax(of["zero"], of["outside"]), of["noise"])
        out[name] = np.where(np.isnan(of["zero"]), np.nan, most)
    return out


def _slopes(heads: Mapping[str, Heads], edit: Moved) -> dict[str, dict[str, np.ndarray]]:
    """Slopes of single patients by stage."""
    names = {"edit": "slope"} | {control: f"slope_{control}" for control in CONTROLS}
    found = {
        stage: {
            names[arm]: scored(head, slope(edit.doses, values), edit.rows)
            for arm, values in edit.change[stage].items()
        }
        for stage, head in heads.items()
    }
    found["change"] = {name: found["ft"][name] - found["pre"][name] for name in names.values()}
    return found


def _row(found: Mapping[str, Estimate], edit: Moved) -> dict[str, Any]:
    low, high = found["edit"].interval
    few = found["edit"].count < FEWEST
    return {
        "n": len(edit.rows),
        "n_outside": found["edit-outside"].count,
        "slope": found["edit"].value,
        "slope_low": np.nan if few else low,
        "slope_high": np.nan if few else high,
        "slope_outside": found["outside"].value,
        "slope_noise": found["noise"].value,
    }


def _movement(
    x: Mapping[str, Float[np.ndarray, "n _"]], edit: Moved, stage: str
) -> dict[str, float]:
    """Length of the mean slope of the embedding."""
    if stage not in x or not len(edit.rows):
        return {"moved": np.nan}
    spread = x[stage].std(axis=0, dtype=np.float64)
    mean = slope(edit.doses, edit.change[stage]["edit"]).mean(axis=0)
    standard = mean[spread > 0] / spread[spread > 0]
    return {"moved": float(np.sqrt(np.mean(np.square(standard)))) if standard.size else 0.0}


def _by_dose(heads: Mapping[str, Heads], edit: Moved) -> pd.DataFrame:
    """Mean change of the score at each dose, with its interval."""
    rows = []
    for stage, head in heads.items():
        for arm, change in edit.change[stage].items():
            for at, dose in enumerate(edit.doses):
                one = _estimate(head, change[:, at], edit.rows)
                low, high = one.interval if one.count >= FEWEST else (np.nan, np.nan)
                rows.append({
                    "stage": stage, "arm": arm, "dose": float(dose), "n": one.count,
                    "score": one.value, "score_low": low, "score_high": high,
                })  # fmt: skip
    return pd.DataFrame(rows)
