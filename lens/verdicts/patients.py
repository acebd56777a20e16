"""What the embeddings told of single patients: held-out predictions before and after fine-tuning.

The predictions are those of the ridge probe whose R2 leads the report (the first of
`lens.verdicts.held_out.RIDGE_VIEWS`), fitted in every fold exactly as there: a patient's are by
probes that were fitted on other patients alone. They are kept for a few features, and summed up
over all that the embeddings explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.settings import Scores
from lens.verdicts.fold_values import common_unit, normal_scores, target_values
from lens.verdicts.folds import Fold, times_held_out
from lens.verdicts.held_out import PROBES, RIDGE_VIEWS

COUNT = 2
"""Features shown of each kind."""

KINDS = {
    "lost": "largest loss",
    "lower": "largest fall, which is not shown to be a loss",
    "gained": "largest gain",
    "higher": "largest rise, which is not shown to be a gain",
    "unchanged": "shown unchanged",
}
"""Why a feature is shown, for people. A fall or rise stands in where no feature was lost, or none
gained."""


class Patients(NamedTuple):
    """Tables of single patients.

    Attributes:
        predictions: a row per shown feature, held-out study that has it, and repeat.
        moved: a row per held-out study: how far its predictions moved over all features that the
            embeddings explain; no rows where they explain none.
    """

    predictions: pd.DataFrame
    moved: pd.DataFrame


def shown_features(verdicts: pd.DataFrame) -> dict[str, str]:
    """The features whose patients are shown -> why (`KINDS`): one of a cluster of near copies.

    The largest losses and gains; where no feature was lost (gained), those whose R2 fell (rose) the
    most among the features that the embeddings explain. Of the unchanged, those that are explained
    best both before and after.

    Args:
        verdicts: of `lens.verdicts.rules.verdict_table`, with ``column``.
    """
    explained = verdicts[verdicts["verdict"] != "absent"]
    change = verdicts["delta_r2"]
    level = verdicts[["r2_ridge_pre", "r2_ridge_ft"]].min(axis=1)
    kinds = {}
    for verdict, beside, order in (("lost", "lower", change), ("gained", "higher", -change)):
        rows = verdicts[verdicts["verdict"] == verdict]
        kinds[verdict if len(rows) else beside] = _first(
            rows if len(rows) else explained[order[explained.index] < 0], order
        )
    kinds["unchanged"] = _first(verdicts[verdicts["verdict"] == "unchanged"], -level)
    shown: dict[str, str] = {}
    for kind in KINDS:
        for column in kinds.get(kind, ()):
            shown.setdefault(column, kind)
    return shown


def held_out_patients(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n e"],
    r: Float[np.ndarray, "n k"],
    ids: pd.DataFrame,
    folds: Sequence[Fold],
    verdicts: pd.DataFrame,
    *,
    scores: Scores = "normal",
) -> Patients:
    """Held-out predictions of one task.

    Args:
        x_pre, x_ft: embeddings before and after fine-tuning.
        r: radiomic features in their own units; NaN where missing.
        ids: ``patient_id`` and perhaps ``study_id`` of each row.
        folds: of the verdicts.
        verdicts: a row per feature, with ``column``.
        scores: whether normal scores of the features are predicted or their values.

    Returns:
        - ``predictions``: ``column``, ``shown`` (`KINDS`), the ids, ``repeat``; ``value`` in the
          feature's own unit; ``observed``, the same as the probe is scored on it, and
          ``fitted_mean``, ``predicted_pre``, ``predicted_ft`` in that unit (standard deviations);
          ``value_pre``, ``value_ft``, the predictions in the feature's own unit. With these
          ``1 - sum (observed - predicted)^2 / sum (observed - fitted_mean)^2`` is the R2 of the
          verdicts' table.
        - ``moved``: the ids, ``n_features`` looked at (explained, one of each cluster), ``moved``,
          root mean square over these of the prediction after less that before; ``error_pre``,
          ``error_ft``, root mean square of the prediction's errors. All in standard deviations. The
          largest ``moved`` comes first.
    """
    shown = shown_features(verdicts)
    explained = ((verdicts["verdict"] != "absent") & verdicts["medoid"]).to_numpy()
    keep = explained | verdicts["column"].isin(shown).to_numpy()
    if not keep.any():
        return Patients(_no_predictions(ids), _no_moves(ids))
    # One column at a time is fitted by itself, so that leaving out the others changes nothing.
    columns, explained, own = verdicts["column"][keep].tolist(), explained[keep], r[:, keep]
    unit = common_unit(own)
    tables, sums = [], np.zeros((4, len(r)))
    for fold in folds:
        found = _predict(x_pre, x_ft, unit, fold, scores)
        tables += [
            _rows(column, shown[column], ids, fold, own[:, at], found, at, scores)
            for at, column in enumerate(columns)
            if column in shown
        ]
        sums[:, fold.test] += _squares(found, explained)
    predictions = pd.concat(tables, ignore_index=True) if tables else _no_predictions(ids)
    moved = _moves(ids, sums, times_held_out(tuple(folds)), int(explained.sum()))
    order = pd.Categorical(predictions["column"], list(shown))
    predictions = predictions.iloc[np.argsort(order.codes, kind="stable")]
    return Patients(predictions.reset_index(drop=True), moved)


class _Predicted(NamedTuple):
    """Held-out rows of one fold, in the probe's unit; NaN where the value is missing.

    Attributes:
        observed: values as the probe is scored on them.
        mean: of the fitted rows.
        pre, ft: predictions, of rows with a missing value too.
    """

    observed: Float[np.ndarray, "m k"]
    mean: Float[np.ndarray, " k"]
    pre: Float[np.ndarray, "m k"]
    ft: Float[np.ndarray, "m k"]


def _predict(
    x_pre: Float[np.ndarray, "n d"],
    x_ft: Float[np.ndarray, "n e"],
    unit: Float[np.ndarray, "n k"],
    fold: Fold,
    scores: Scores,
) -> _Predicted:
    filled, probe = target_values(unit, fold.fitted, scores), PROBES[RIDGE_VIEWS[0]]
    pre, ft = (
        probe.fit(x[fold.fitted], filled[fold.fitted]).predict(x[fold.test]) for x in (x_pre, x_ft)
    )
    observed = np.where(np.isfinite(unit[fold.test]), filled[fold.test], np.nan)
    return _Predicted(observed, filled[fold.fitted].mean(axis=0), pre, ft)


def _rows(
    column: str,
    kind: str,
    ids: pd.DataFrame,
    fold: Fold,
    own: Float[np.ndarray, " n"],
    found: _Predicted,
    at: int,
    scores: Scores,
) -> pd.DataFrame:
    """The rows of one feature and fold, without patients who lack the feature."""
    own = np.where(np.isfinite(own), own, np.nan)
    predicted = {"pre": found.pre[:, at], "ft": found.ft[:, at]}
    table = pd.DataFrame(
        {
            "column": column,
            "shown": kind,
            **ids[fold.test],
            "repeat": fold.repeat,
            "value": own[fold.test],
            "observed": found.observed[:, at],
            "fitted_mean": found.mean[at],
            **{f"predicted_{stage}": each for stage, each in predicted.items()},
            **{
                f"value_{stage}": _in_own_unit(each, own, fold, scores)
                for stage, each in predicted.items()
            },
        }
    )
    return table[np.isfinite(found.observed[:, at])]


def _in_own_unit(
    predicted: Float[np.ndarray, " m"], own: Float[np.ndarray, " n"], fold: Fold, scores: Scores
) -> Float[np.ndarray, " m"]:
    """Predictions as values of the feature; of normal scores, within those of the fitted rows."""
    if scores == "raw":
        known = own[np.isfinite(own)]
        return predicted * (known.std() or 1.0) + known.mean()
    fitted = np.unique(own[fold.fitted & np.isfinite(own)])
    if not len(fitted):
        return np.full(len(predicted), np.nan)
    rows = np.concatenate([fold.fitted, np.zeros(len(fitted), bool)])
    placed = normal_scores(np.concatenate([own, fitted])[:, None], rows)
    return np.interp(predicted, placed[len(own) :, 0], fitted)


def _squares(found: _Predicted, explained: np.ndarray) -> Float[np.ndarray, "4 m"]:
    """Sums over the explained features by row: of squared moves, of squared errors before and
    after, and how many errors there are."""
    observed, pre, ft = (each[:, explained] for each in (found.observed, found.pre, found.ft))
    return np.stack(
        [
            np.square(ft - pre).sum(axis=1),
            np.nansum(np.square(observed - pre), axis=1),
            np.nansum(np.square(observed - ft), axis=1),
            np.isfinite(observed).sum(axis=1).astype(float),
        ]
    )


def _moves(
    ids: pd.DataFrame, sums: Float[np.ndarray, "4 n"], times: np.ndarray, count: int
) -> pd.DataFrame:
    held = times > 0
    if not count:
        return _no_moves(ids)
    square, before, after, errors = sums[:, held]
    table = ids[held].reset_index(drop=True)
    table["n_features"] = count
    table["moved"] = np.sqrt(square / (count * times[held]))
    with np.errstate(invalid="ignore"):
        table["error_pre"], table["error_ft"] = np.sqrt(before / errors), np.sqrt(after / errors)
    return table.sort_values("moved", ascending=False, kind="stable", ignore_index=True)


def _first(rows: pd.DataFrame, order: pd.Series) -> list[str]:
    """The first few columns by the order, one of each cluster."""
    ordered = rows.loc[order[rows.index].dropna().sort_values(kind="stable").index]
    return ordered.drop_duplicates("cluster")["column"].head(COUNT).tolist()


def _no_predictions(ids: pd.DataFrame) -> pd.DataFrame:
    numbers = ["value", "observed", "fitted_mean", "predicted_pre", "predicted_ft"]
    texts = {name: pd.Series([], dtype=object) for name in ("column", "shown", *ids)}
    columns = {name: pd.Series([], dtype=float) for name in (*numbers, "value_pre", "value_ft")}
    return pd.DataFrame({**texts, "repeat": pd.Series([], dtype=int), **columns})


def _no_moves(ids: pd.DataFrame) -> pd.DataFrame:
    texts = {name: pd.Series([], dtype=object) for name in ids}
    numbers = {name: pd.Series([], dtype=float) for name in ("moved", "error_pre", "error_ft")}
    return pd.DataFrame({**texts, "n_features": pd.Series([], dtype=int), **numbers})
