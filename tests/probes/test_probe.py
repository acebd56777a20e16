"""Laws of the protocol, for every probe: a new one is tested by adding it to `CASES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler

from lens.probes.kernel_ridge import KernelRidgeProbe
from lens.probes.ridge import LeadingRidgeProbe, RidgeProbe
from lens.probes.spectral import decompose, relative_penalties

Features = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def per_channel(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaler = StandardScaler().fit(x)
    return np.asarray(scaler.transform(x)), np.asarray(scaler.transform(other))


def one_scale(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.sqrt(x.var(axis=0).mean())
    return x / scale, other / scale


def leading(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pca = PCA(len(x) // 8, whiten=True, svd_solver="full").fit(x)
    # scikit-learn divides the variance by n - 1.
    size = np.sqrt(len(x) / (len(x) - 1))
    return size * np.asarray(pca.transform(x)), size * np.asarray(pca.transform(other))


def gaussian(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite features with exactly this kernel among the rows at hand."""
    x, other = per_channel(x, other)
    kernel = rbf_kernel(np.concatenate([x, other]), gamma=0.5 / np.median(pdist(x)) ** 2)
    values, vectors = np.linalg.eigh(kernel)
    features = vectors * np.sqrt(np.maximum(values, 0.0))
    return features[: len(x)], features[len(x) :]


def of_landmarks(x: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's projections on those of 30 rows, spread evenly along the first dimension."""
    x, other = per_channel(x, other)
    landmarks = x[np.argsort(x[:, 0])[np.linspace(0, len(x) - 1, 30).round().astype(int)]]
    gamma = 0.5 / np.median(pdist(landmarks)) ** 2
    span = Nystroem(gamma=gamma, n_components=30, random_state=0).fit(landmarks)
    return np.asarray(span.transform(x)), np.asarray(span.transform(other))


# Rows and dimensions: more patients than dimensions, and fewer.
TALL, WIDE = (80, 12), (40, 90)


@dataclass(frozen=True)
class Case:
    """A probe, and the features on which scikit-learn's ridge regression is the same."""

    probe: Any
    features: Features
    shapes: tuple[tuple[int, int], ...] = (TALL, WIDE)


CASES = {
    "ridge per channel": Case(RidgeProbe(per_channel=True), per_channel),
    "ridge one scale": Case(RidgeProbe(per_channel=False), one_scale),
    "leading components": Case(LeadingRidgeProbe(), leading),
    # Fewer rows than dimensions would be interpolated, with nothing but rounding for residuals.
    "least squares": Case(RidgeProbe(alphas=(0.0,)), per_channel, (TALL,)),
    "gaussian kernel": Case(KernelRidgeProbe(), gaussian),
    "gaussian kernel of landmarks": Case(KernelRidgeProbe(landmarks=30), of_landmarks),
}

Setting = tuple[Case, tuple[int, int]]
SETTINGS = {
    f"{name}, {shape[0]} x {shape[1]}": (case, shape)
    for name, case in CASES.items()
    for shape in case.shapes
}


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def setting(request: pytest.FixtureRequest) -> Setting:
    return request.param


@pytest.fixture
def case(setting: Setting) -> Case:
    return setting[0]


@pytest.fixture
def data(setting: Setting) -> tuple[np.ndarray, ...]:
    """Embeddings and features of fitted rows, then of others."""
    n, d = setting[1]
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(2 * n, 4))
    x = latent @ rng.normal(size=(4, d)) + rng.normal(size=(2 * n, d))
    x = x * rng.uniform(0.1, 10, d) + 3
    r = latent @ rng.normal(size=(4, 7)) + np.geomspace(0.1, 10, 7) * rng.normal(size=(2 * n, 7))
    return x[:n], r[:n], x[n:], r[n:]


def at_penalty_of(target: int, probe: Any, fitted: Any) -> Any:
    """The probe with the penalty that one target has been given, and no other."""
    return replace(probe, alphas=(fitted.alpha[target] / len(fitted.leverage()),))


def test_targets_have_different_penalties(case: Case, data) -> None:
    """Otherwise the tests below would not see targets mixed up."""
    x, r, _, _ = data
    alone = case.probe.alphas is not None and len(case.probe.alphas) == 1
    assert alone or len(set(case.probe.fit(x, r).alpha)) > 1


def test_predictions_equal_those_of_scikit_learn_at_the_penalties(case: Case, data) -> None:
    x, r, other, _ = data
    fitted = case.probe.fit(x, r)
    here, there = case.features(x, other)
    expected = Ridge(alpha=fitted.alpha, solver="svd").fit(here, r).predict(there)
    # Both are float64; the kernel's eigenvalues below 1e-12 of the largest are left out by ours.
    np.testing.assert_allclose(fitted.predict(other), expected, atol=1e-6)


def test_penalties_have_the_least_generalised_cross_validation_error(case: Case, data) -> None:
    x, r, _, _ = data
    fitted = case.probe.fit(x, r)
    n = len(x)
    alphas = case.probe.alphas
    if alphas is None:
        here, _ = case.features(x, x[:1])
        alphas = relative_penalties(decompose(here - here.mean(axis=0))[0]) / n
    errors = []
    for alpha in alphas:
        one = replace(case.probe, alphas=(alpha,)).fit(x, r)
        rss = np.square(r - one.predict(x)).sum(axis=0)
        errors.append(rss / n / (1 - one.leverage().sum(axis=0) / n) ** 2)
    best = np.array(alphas)[np.argmin(errors, axis=0)]
    np.testing.assert_allclose(fitted.alpha, n * best)


def test_leverage_is_what_a_fitted_value_follows_of_its_own_target(case: Case, data) -> None:
    x, r, _, _ = data
    fitted = case.probe.fit(x, r)
    leverage = fitted.leverage()
    for row in (0, 17):
        moved = r.copy()
        moved[row] += 1.0
        for target in range(r.shape[1]):
            probe = at_penalty_of(target, case.probe, fitted)
            change = (probe.fit(x, moved).predict(x) - probe.fit(x, r).predict(x))[row, target]
            # Fitted values are linear in the targets: no error but rounding.
            np.testing.assert_allclose(leverage[row, target], change, atol=1e-8)
    assert (leverage >= 1 / len(x) - 1e-12).all()
    assert (leverage <= 1 + 1e-12).all()


def test_leverage_gives_the_error_of_a_row_left_out(case: Case, data) -> None:
    x, r, _, _ = data
    fitted = case.probe.fit(x, r)
    found = (r - fitted.predict(x)) / (1 - fitted.leverage())
    here, _ = case.features(x, x[:1])
    for row in (1, 12):
        others = np.delete(np.arange(len(x)), row)
        model = Ridge(alpha=fitted.alpha, solver="svd").fit(here[others], r[others])
        np.testing.assert_allclose(found[row], r[row] - model.predict(here[[row]])[0], atol=1e-5)


def test_left_out_is_the_error_of_a_patient_left_out_with_all_rows(case: Case, data) -> None:
    x, r, _, _ = data
    groups = np.repeat(np.arange(len(x)), [1, 2, 3, 4] * (len(x) // 4))[: len(x)]
    fitted = case.probe.fit(x, r)
    found = fitted.left_out(groups)
    here, _ = case.features(x, x[:1])
    for patient in (0, 1, 2, 3, groups[-1]):
        rows, others = np.flatnonzero(groups == patient), np.flatnonzero(groups != patient)
        model = Ridge(alpha=fitted.alpha, solver="svd").fit(here[others], r[others])
        np.testing.assert_allclose(found[rows], r[rows] - model.predict(here[rows]), atol=1e-5)
    alone = fitted.left_out()
    np.testing.assert_allclose(
        alone, (r - fitted.predict(x)) / (1 - fitted.leverage()), atol=1e-8 * np.abs(alone).max()
    )


def test_influence_is_what_deleting_a_patient_does_to_the_predictions(case: Case, data) -> None:
    x, r, other, truth = data
    x[3] = 8 * (x[3] - x.mean(axis=0)) + x.mean(axis=0)  # A patient far out, who pulls the fit.
    groups = np.r_[0, 0, 1, np.arange(3, len(x))]
    fitted = case.probe.fit(x, r)
    error = truth - fitted.predict(other)
    found = fitted.influence(other, error, groups)
    here, there = case.features(x, other)
    for patient in (0, 1, 3, len(x) - 1):
        others = groups != patient
        model = Ridge(alpha=fitted.alpha, solver="svd").fit(here[others], r[others])
        fall = fitted.predict(other) - model.predict(there)
        expected = -2 * (error * fall).sum(axis=0)
        # Exact for ridge; the tolerance is that of the kernel's smallest eigenvalues.
        np.testing.assert_allclose(
            found[groups == patient].sum(axis=0), expected, atol=1e-5 * np.abs(found).max()
        )


def test_targets_keep_their_units_and_do_not_see_each_other(case: Case, data) -> None:
    x, r, other, truth = data
    plain, scaled = case.probe.fit(x, r), case.probe.fit(x, 1e6 * r[:, ::-1] + 5e7)
    predicted = scaled.predict(other)[:, ::-1]
    # Means of 5e7 cost seven of float64's sixteen digits.
    np.testing.assert_allclose((predicted - 5e7) / 1e6, plain.predict(other), atol=1e-6)
    np.testing.assert_allclose(scaled.leverage()[:, ::-1], plain.leverage(), atol=1e-9)
    error = truth - plain.predict(other)
    influence = plain.influence(other, error)
    np.testing.assert_allclose(
        scaled.influence(other, 1e6 * error[:, ::-1])[:, ::-1] / 1e12,
        influence,
        atol=1e-6 * np.abs(influence).max(),
    )
    alone = case.probe.fit(x, r[:, 2:3]).predict(other)
    np.testing.assert_allclose(alone, plain.predict(other)[:, 2:3], atol=1e-9)


def test_the_order_of_rows_does_not_matter(case: Case, data) -> None:
    x, r, other, truth = data
    order = np.random.default_rng(1).permutation(len(x))
    plain, shuffled = case.probe.fit(x, r), case.probe.fit(x[order], r[order])
    np.testing.assert_allclose(shuffled.predict(other), plain.predict(other), atol=1e-8)
    np.testing.assert_allclose(shuffled.leverage(), plain.leverage()[order], atol=1e-8)
    error = truth - plain.predict(other)
    influence = plain.influence(other, error)
    np.testing.assert_allclose(
        shuffled.influence(other[::-1], error[::-1]),
        influence[order],
        atol=1e-7 * np.abs(influence).max(),
    )


def test_a_shift_of_the_embeddings_and_float32_do_not_matter(case: Case, data) -> None:
    x, r, other, _ = (values.astype(np.float32) for values in data)
    plain = case.probe.fit(x, r)
    moved = case.probe.fit(x.astype(np.float64) - 7.0, r)
    np.testing.assert_allclose(
        moved.predict(other.astype(np.float64) - 7.0), plain.predict(other), atol=1e-7
    )


def test_constant_channels_and_constant_embeddings_are_no_obstacle(case: Case, data) -> None:
    x, r, other, _ = data
    x, other = x.copy(), other.copy()
    x[:, 3] = other[:, 3] = 2.0
    fitted = case.probe.fit(x, r)
    assert np.isfinite(fitted.predict(other)).all()
    constant = case.probe.fit(np.ones_like(x), r)
    np.testing.assert_allclose(constant.predict(np.ones((5, x.shape[1]))), [r.mean(axis=0)] * 5)
    np.testing.assert_allclose(constant.leverage(), 1 / len(x))


def test_refuses_other_rows_and_values_that_are_not_finite(case: Case) -> None:
    x, r = np.random.default_rng(0).normal(size=(20, 5)), np.ones((20, 3))
    with pytest.raises(ValueError, match="x has 19 rows, r has 20"):
        case.probe.fit(x[1:], r)
    r[2, 1] = np.nan
    with pytest.raises(ValueError, match="r is not finite in column 1"):
        case.probe.fit(x, r)
