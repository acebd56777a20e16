"""Percentile and normal intervals."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from lens.intervals import LEVEL, Z_VALUE, percentile_interval


def test_the_normal_quantile_belongs_to_the_level() -> None:
    assert norm.ppf((1 + LEVEL) / 2) == Z_VALUE


def test_percentile_interval_leaves_out_draws_without_a_value() -> None:
    samples = np.append(np.arange(1001.0), np.nan)[:, None]
    low, high = percentile_interval(samples)
    np.testing.assert_allclose((low[0], high[0]), (25, 975))


def test_no_value_at_all_has_no_interval() -> None:
    low, high = percentile_interval(np.full((5, 2), np.nan))
    assert np.isnan([low, high]).all()
