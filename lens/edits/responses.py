"""How the task score responds to edits: a slope over the dose per patient, and its test.

Three questions are asked of every edit, each with a p value of its own:

- *outside*: is the slope that of the same edit in a region outside?
- *noise*: is it that of noise in the region, of the same root mean square change?
- *label*: would a head that was fitted to the label exchanged among patients move as much?

The first two are sign flips of the patients' differences (`lens.verdicts.sign_flips`). The third is
needed because every visible edit moves the embedding somewhere: with enough patients any direction
moves, one that means nothing too. It compares the mean slope, in standard deviations of each head's
own scores, with those of heads on exchanged labels. An edit is said to move the score where all
three are answered (the largest p; an intersection-union test). The family is every edit of the task
before, after and in the change from one to the other (maxT in each of the three).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

from lens.edits.heads import Heads, exchanged, fit_heads, make_folds, scored
from lens.verdicts.sign_flips import sign_flip_test

STAGES = ("pre", "ft", "change")
"""Before and after fine-tuning, and after less before."""

CONTROLS = ("outside", "noise")

LEVEL = 0.05
"""Family-wise level at which an edit is said to move the score."""

FEWEST = 6
"""Patients with an edit, below which it is not tested: six sign flips give p of 1 in 32 at best."""


@dataclass(frozen=True)
class Settings:
    """How responses are tested.

    Attributes:
        folds: in which heads are fitted, by patient.
        exchanges: of the labels.
        flips: of signs.
        seed: of all three.
    """

    folds: int = 5
    exchanges: int = 999
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
    x: Mapping[str, Float[np.ndarray, "n d"]],
    label: Float[np.ndarray, " n"],
    moved: Sequence[Moved],
    settings: Settings = Settings(),
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Slopes and tests of all edits of a task.

    Args:
        x: ``pre`` and ``ft``: embeddings of original images, a row per patient with a label.
        label: a number per patient.
        moved: by edit.
        settings: of folds and tests.

    Returns:
        Three tables, which name an edit by its place, ``at``. A row per edit and stage::

            at, stage, n, n_outside, slope, slope_low, slope_high, slope_outside, slope_noise,
            moved, head_r2, p_outside, p_noise, p_label, p, p_family, moves

        A row per edit, stage, arm and dose: ``at, stage, arm, dose, n, score, score_low,
        score_high``. A row per edit, stage and patient: ``at, stage, row, slope, slope_outside,
        slope_noise``. Slopes and scores are in standard deviations of the label; ``moved`` is the
        length of the mean slope of the embedding, in root mean square standard deviations of its
        channels.
    """
    fold = make_folds(len(label), settings.folds, settings.seed)
    labels = exchanged(label, settings.exchanges, settings.seed)
    heads = {stage: fit_heads(x[stage], labels, fold) for stage in ("pre", "ft")}
    each = [_slopes(heads, edit) for edit in moved]
    p = _tests(moved, [one for one, _ in each], [standard for _, standard in each], settings)
    rows, patients = [], []
    for at, (edit, (one, _)) in enumerate(zip(moved, each, strict=True)):
        for stage in STAGES:
            facts = {"at": at, "stage": stage}
            rows.append(facts | _row(one[stage]) | _movement(x, edit, stage))
            rows[-1]["head_r2"] = heads[stage].r2[0] if stage in heads else np.nan
            rows[-1] |= {name: values[at, STAGES.index(stage)] for name, values in p.items()}
            patients.append(pd.DataFrame(
                facts | {"row": edit.rows, "slope": one[stage]["edit"]}
                | {f"slope_{arm}": one[stage][arm] for arm in CONTROLS}
            ))  # fmt: skip
    table = pd.DataFrame(rows)
    table["moves"] = table["p_family"] < LEVEL
    doses = [_by_dose(heads, edit).assign(at=at) for at, edit in enumerate(moved)]
    return table, pd.concat(doses, ignore_index=True), pd.concat(patients, ignore_index=True)


Slopes = Mapping[str, Mapping[str, np.ndarray]]
"""Stage -> arm -> (m,)."""


def _slopes(
    heads: Mapping[str, Heads], edit: Moved
) -> tuple[Slopes, Mapping[str, Float[np.ndarray, " k"]]]:
    """Slopes of the score per patient; and per stage the mean slope of every head, in standard
    deviations of its scores."""
    found: dict[str, dict[str, np.ndarray]] = {}
    mean: dict[str, np.ndarray] = {}
    for stage, head in heads.items():
        per_dose = {arm: slope(edit.doses, edit.change[stage][arm]) for arm in edit.change[stage]}
        own = scored(head, per_dose["edit"], edit.rows, first=False)
        found[stage] = {"edit": own[:, 0]} | {
            arm: scored(head, per_dose[arm], edit.rows, first=True)[:, 0] for arm in CONTROLS
        }
        spread = head.spread
        mean[stage] = np.divide(
            own.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 0
        )
    found["change"] = {arm: found["ft"][arm] - found["pre"][arm] for arm in ("edit", *CONTROLS)}
    mean["change"] = mean["ft"] - mean["pre"]
    return found, mean


def _tests(
    moved: Sequence[Moved],
    slopes: Sequence[Slopes],
    means: Sequence[Mapping[str, Float[np.ndarray, " k"]]],
    settings: Settings,
) -> dict[str, Float[np.ndarray, "e s"]]:
    """p values by edit and stage."""
    shape = (len(slopes), len(STAGES))
    single, family = {}, {}
    for control in CONTROLS:
        single[control], family[control] = _against(moved, slopes, control, settings)
    standard = np.stack([[mean[stage] for stage in STAGES] for mean in means]).reshape(
        -1, settings.exchanges + 1
    )
    single["label"], family["label"] = _exchange_test(standard)
    out = {f"p_{name}": values.reshape(shape) for name, values in single.items()}
    # A question that could not be asked is left out of the largest, and NaN in its own column.
    out["p"] = np.nanmax(np.stack([*single.values()]), axis=0).reshape(shape)
    out["p_family"] = np.nanmax(np.stack([*family.values()]), axis=0).reshape(shape)
    few = np.array([[len(each[stage]["edit"]) < FEWEST for stage in STAGES] for each in slopes])
    for values in out.values():
        values[few] = np.nan
    return out


def _against(
    moved: Sequence[Moved], slopes: Sequence[Slopes], control: str, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """p of each edit and stage against one control, by itself and for all together.

    A difference whose sign is not that of the edit's own mean slope says that the control moved
    more, and counts as none: its p is 1.
    """
    columns, agrees, there, rows = [], [], [], []
    for edit, each in zip(moved, slopes, strict=True):
        for stage in STAGES:
            difference = each[stage]["edit"] - each[stage][control]
            known = np.isfinite(difference)
            columns.append(np.where(known, difference, 0.0))
            rows.append(edit.rows)
            there.append(int(known.sum()) >= FEWEST)
            mean = each[stage]["edit"][known].mean() if known.any() else 0.0
            agrees.append(mean * difference[known].sum() > 0)
    # One sign per patient for all edits. Who lacks an edit, or its control, adds nothing to a sum
    # and nothing to its spread.
    everybody = np.unique(np.concatenate(rows))
    padded = np.zeros((len(everybody), len(columns)))
    for column, (own, values) in enumerate(zip(rows, columns, strict=True)):
        padded[np.searchsorted(everybody, own), column] = values
    size = len(everybody)
    tested = sign_flip_test(padded, np.arange(size), flips=settings.flips, seed=settings.seed)
    out = []
    for values in (tested.p, tested.p_maxt):
        out.append(np.where(there, np.where(agrees, values, 1.0), np.nan))
    return out[0], out[1]


def _exchange_test(means: Float[np.ndarray, "e k"]) -> tuple[np.ndarray, np.ndarray]:
    """p of mean slopes (first column) among those of exchanged labels, single and for all."""
    size = np.sqrt(np.mean(np.square(means), axis=1, keepdims=True))
    z = np.abs(np.divide(means, size, out=np.zeros_like(means), where=size > 0))
    observed = z[:, :1] * (1 - 1e-9)
    count = means.shape[1]
    single = (z >= observed).sum(axis=1) / count
    family = (z.max(axis=0) >= observed).sum(axis=1) / count
    return single, family


def _row(slopes: Mapping[str, np.ndarray]) -> dict[str, float]:
    own = slopes["edit"]
    low, high = _interval(own)
    known = np.isfinite(slopes["outside"])
    return {
        "n": len(own),
        "n_outside": int(known.sum()),
        "slope": float(own.mean()),
        "slope_low": low,
        "slope_high": high,
        "slope_outside": float(slopes["outside"][known].mean()) if known.any() else np.nan,
        "slope_noise": float(slopes["noise"].mean()),
    }


def _movement(
    x: Mapping[str, Float[np.ndarray, "n d"]], edit: Moved, stage: str
) -> dict[str, float]:
    """Length of the mean slope of the embedding."""
    if stage not in x:
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
            scores = scored(head, change, edit.rows, first=True)[..., 0]
            for dose, values in zip(edit.doses, scores.T, strict=True):
                known = values[np.isfinite(values)]
                low, high = _interval(known)
                rows.append({
                    "stage": stage, "arm": arm, "dose": dose, "n": len(known),
                    "score": float(known.mean()) if len(known) else np.nan,
                    "score_low": low, "score_high": high,
                })  # fmt: skip
    return pd.DataFrame(rows)


def _interval(values: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """95% interval of the mean over patients, Student's t; NaN of fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
