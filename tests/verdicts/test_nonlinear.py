"""The nonlinear reader: a feature bent out of a linear reader's reach, and one that is gone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.settings import Rules
from lens.verdicts.clusters import cluster_features
from lens.verdicts.folds import make_folds
from lens.verdicts.held_out import held_out_errors
from lens.verdicts.judge import judge
from lens.verdicts.nonlinear import COLUMNS, nonlinear_columns

N = 300
GROUPS = np.arange(N)
FOLDS = make_folds(GROUPS, 5, 1, 0)


@pytest.fixture(scope="module")
def cohort() -> dict[str, np.ndarray]:
    """Before, the embedding holds two factors; after, one of them squared, the other gone."""
    rng = np.random.default_rng(0)
    latent, axes = rng.normal(size=(N, 3)), np.linalg.qr(rng.normal(size=(30, 30)))[0][:3]
    noise = [0.3 * rng.normal(size=(N, 30)) for _ in range(2)]
    bent = np.c_[np.abs(latent[:, 0]) * np.sqrt(3), np.zeros(N), latent[:, 2]]
    r = np.c_[latent[:, 0] ** 2, latent[:, 1], latent[:, 2], rng.normal(size=N)]
    r[:, :3] += 0.3 * rng.normal(size=(N, 3))
    squared = np.c_[latent[:, 0] ** 2, latent[:, 1:]]
    return {
        "linear": 3 * squared @ axes + noise[0],
        "bent": 3 * np.c_[latent[:, 0], np.zeros(N), latent[:, 2]] @ axes + noise[1],
        "unused": bent,
        "r": r,
    }


def columns(cohort: dict[str, np.ndarray], pre: str, ft: str) -> pd.DataFrame:
    held_out = held_out_errors(cohort[pre], {"t": cohort[ft]}, cohort["r"], GROUPS, FOLDS, None)
    clusters = cluster_features(cohort["r"])
    verdicts = judge(held_out, "t", clusters, GROUPS, Rules(flips=499)).features
    found = nonlinear_columns(cohort[pre], cohort[ft], cohort["r"], GROUPS, FOLDS, verdicts)
    return pd.concat([verdicts[["verdict", "delta_r2"]], found], axis=1)


def test_what_only_a_linear_reader_lost_is_still_there(cohort) -> None:
    table = columns(cohort, "linear", "bent")
    assert table["verdict"].tolist()[:2] == ["lost", "lost"]
    assert table["linear_only"].tolist() == [True, False, False, False]
    assert table["r2_kernel_ft"][0] > 0.4
    assert table["r2_kernel_ft"][1] < 0.1
    assert table.loc[2:, [*COLUMNS]].isna().all(axis=None), "no reader for what did not change"


def test_what_a_nonlinear_reader_saw_before_was_there(cohort) -> None:
    table = columns(cohort, "bent", "linear")
    assert table["verdict"].tolist()[:2] == ["gained", "gained"]
    assert table["linear_only"].tolist() == [True, False, False, False]
    np.testing.assert_allclose(
        table["delta_r2_kernel"], table["r2_kernel_ft"] - table["r2_kernel_pre"], atol=1e-12
    )


def test_without_a_change_nothing_is_fitted(cohort) -> None:
    table = pd.DataFrame({"verdict": ["undecided"] * 4, "delta_r2": [0.0] * 4})
    fits = []
    found = nonlinear_columns(
        cohort["linear"], cohort["bent"], cohort["r"], GROUPS, FOLDS, table,
        on_fit=lambda: fits.append(1),
    )  # fmt: skip
    assert not fits
    assert [*found] == [*COLUMNS, "linear_only"]
    assert not found["linear_only"].any()
