"""A finished run folder, and cards made of numbers that a test chooses."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lens.cards.card import card
from lens.report.results import read_results
from tests.pictures import svg_alone
from tests.report.conftest import finished as finished
from tests.report.conftest import folder as folder


@pytest.fixture(scope="session")
def content(finished: Path) -> dict[str, Any]:
    """The card of the finished run."""
    return card(read_results(finished))


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    svg_alone(monkeypatch)


def planted_card(
    like: Mapping[str, Any],
    changes: np.ndarray,
    errors: np.ndarray,
    *,
    n: int = 100,
    hashes: str = "a",
    task: str = "cls",
) -> dict[str, Any]:
    """A card with these changes of R2 and their standard errors, of features and all groups.

    Args:
        like: a card whose first task is the model.
        changes, errors: of each feature (k,); groups have their mean.
        n: patients.
        hashes: a letter; cards with the same one are of the same data.
        task: its only task.
    """
    made = copy.deepcopy(dict(like))
    facts = next(iter(made["tasks"].values()))
    facts |= {"patients": n, "scored": n}
    print_ = hashes * 64
    facts["hashes"] = {"features": {"t2.gland": print_}, "before": print_, "after": print_}
    t = stats.t.ppf(0.975, n - 1)
    facts["features"] = facts["features"][: len(changes)]
    for row, value, error in zip(facts["features"], changes, errors, strict=True):
        row |= {"n": n, "delta_r2": value, "delta_r2_low": value - t * error}
        row |= {"delta_r2_high": value + t * error}
    value, error = float(np.mean(changes)), float(np.mean(errors))
    for row in facts["levels"]:
        row |= {"delta_r2_cv": value, "delta_r2_cv_low": value - t * error}
        row |= {"delta_r2_cv_high": value + t * error}
    made["tasks"] = {task: facts}
    return made


def written(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """A card as a file."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
