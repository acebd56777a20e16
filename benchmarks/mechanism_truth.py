"""What a fine-tuning did to the factors themselves, and how far verdicts agree with it.

None of it goes through the lens: a factor's held-out R2 is that of scikit-learn's ridge regression,
and which feature measures which factor is told from the phantoms alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import norm, rankdata
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CHANGED, STAYED, WITHIN = 0.1, 0.05, 0.1
"""Change of a factor's R2 from which it changed, below which it stayed, and the bounds that the
interval of one that stayed keeps to."""

OWN = 0.5
"""Share of a feature's variance from which it is a feature of the factor that explains it."""

ALPHAS = np.logspace(-1, 5, 25)
DRAWS = 2000


def squared_errors(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n m"], *, folds: int = 5, repeats: int = 2
) -> Float[np.ndarray, "n m"]:
    """Held-out squared errors of ridge regression, its penalty chosen inside the fold for each
    column, averaged over repeats."""
    total = np.zeros_like(y, dtype=float)
    for repeat in range(repeats):
        for fitted, held in KFold(folds, shuffle=True, random_state=repeat).split(x):
            ridge = RidgeCV(ALPHAS, alpha_per_target=True)
            model = make_pipeline(StandardScaler(), ridge).fit(x[fitted], y[fitted])
            total[held] += np.square(y[held] - model.predict(x[held])) / repeats
    return total


def factor_changes(
    before: Float[np.ndarray, "n m"],
    after: Float[np.ndarray, "n m"],
    factors: pd.DataFrame,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Change of each factor's R2 with its 95% interval over patients, and whether it changed.

    Args:
        before, after: of `squared_errors`, of the columns of `factors`.
        factors: a column each.
        seed: of the bootstrap.

    Returns:
        A row per factor: ``factor, r2_before, r2_after, change, low, high, state, sign``; the state
        is ``changed``, ``stayed`` or ``between``, the sign 0 where the interval holds zero.
    """
    baseline = np.square(factors.to_numpy() - factors.to_numpy().mean(axis=0))
    weights = np.random.default_rng(seed).multinomial(
        len(factors), np.full(len(factors), 1 / len(factors)), size=DRAWS
    )
    drawn = (weights @ (before - after)) / (weights @ baseline)
    change = (before - after).sum(axis=0) / baseline.sum(axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))
    changed = (sign != 0) & (np.abs(change) >= CHANGED)
    stayed = (np.abs(change) < STAYED) & (low > -WITHIN) & (high < WITHIN)
    return pd.DataFrame(
        {
            "factor": factors.columns,
            "r2_before": 1 - before.sum(axis=0) / baseline.sum(axis=0),
            "r2_after": 1 - after.sum(axis=0) / baseline.sum(axis=0),
            "change": change,
            "low": low,
            "high": high,
            "state": np.select([changed, stayed], ["changed", "stayed"], "between"),
            "sign": sign,
        }
    )


def shares_of_factors(r: Float[np.ndarray, "n k"], factors: pd.DataFrame) -> pd.DataFrame:
    """Share of each feature's variance that a cubic curve of each factor alone explains.

    Args:
        r: features in any units; their normal scores are explained.
        factors: normal scores of the factors, a column each.

    Returns:
        A row per feature, a column per factor.
    """
    scores = normal_scores(r)
    shares = {}
    for name in factors:
        curve = np.vander(factors[name], 4)
        fit = curve @ np.linalg.lstsq(curve, scores, rcond=None)[0]
        shares[name] = 1 - np.square(scores - fit).sum(axis=0) / np.square(scores).sum(axis=0)
    return pd.DataFrame(shares)


def normal_scores(r: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Ranks of each column as normal quantiles."""
    scores = norm.ppf((rankdata(r, axis=0) - 0.5) / len(r))
    return scores - scores.mean(axis=0)


def owners(shares: pd.DataFrame) -> np.ndarray:
    """The factor that each feature measures, an empty text where none explains enough of it."""
    best = shares.to_numpy().argmax(axis=1)
    enough = shares.to_numpy().max(axis=1) >= OWN
    return np.where(enough, shares.columns.to_numpy()[best], "")


def agreement(verdicts: Sequence[str], owner: np.ndarray, changes: pd.DataFrame) -> dict[str, int]:
    """Counts of one fine-tuning: how the verdicts on features of one factor go with its change.

    Args:
        verdicts: of the features.
        owner: of the features (`owners`).
        changes: of `factor_changes`.

    Returns:
        ``changed``: features of factors that changed; ``found``: those called in that direction;
        ``called``: features called lost or gained that have a factor; ``right``: their factor
        changed in that direction; ``small``: it did so by less than `CHANGED`; ``wrong``: it did
        not; ``stayed``: features of factors that stayed; ``stayed_called``: those called.
    """
    found = changes.set_index("factor")
    known = owner != ""
    verdict = np.asarray(verdicts)[known]
    factor = owner[known]
    state = found["state"].loc[factor].to_numpy()
    sign = found["sign"].loc[factor].to_numpy()
    called = np.where(verdict == "gained", 1, np.where(verdict == "lost", -1, 0))
    same = (called != 0) & (called == sign)
    changed = state == "changed"
    return {
        "changed": int(changed.sum()),
        "found": int((changed & same).sum()),
        "called": int((called != 0).sum()),
        "right": int((changed & same).sum()),
        "small": int((~changed & same).sum()),
        "wrong": int(((called != 0) & ~same).sum()),
        "stayed": int((state == "stayed").sum()),
        "stayed_called": int(((state == "stayed") & (called != 0)).sum()),
    }


def rate(
    rows: Sequence[dict[str, Any]], part: str, whole: str, *, seed: int = 0
) -> dict[str, float | int | None]:
    """A share over several fine-tunings, with a 95% interval that draws whole labels.

    The seeds of a label are no more independent of each other than that.
    """
    table = pd.DataFrame(rows, columns=["label", part, whole])
    counts = table.groupby("label")[[part, whole]].sum().to_numpy(float)
    of = int(counts[:, 1].sum())
    if not of:
        return {"share": None, "low": None, "high": None, "of": 0, "runs": len(rows)}
    drawn: Int[np.ndarray, "draws labels"] = np.random.default_rng(seed).integers(
        len(counts), size=(DRAWS, len(counts))
    )
    found, wholes = counts[drawn].sum(axis=1).T
    low, high = np.quantile(found[wholes > 0] / wholes[wholes > 0], [0.025, 0.975])
    share = float(counts[:, 0].sum() / of)
    return {"share": share, "low": float(low), "high": float(high), "of": of, "runs": len(rows)}
