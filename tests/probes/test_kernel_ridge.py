"""Kernel ridge regression: another implementation, and what only a curved kernel reads."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import KernelCenterer, StandardScaler

from lens.probes.kernel_ridge import ALPHAS, KernelRidgeProbe
from lens.probes.ridge import RidgeProbe
from lens.probes.spectral import decompose, decompose_kernel, solve


def test_predictions_equal_those_of_scikit_learns_kernel_ridge() -> None:
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 70, 6)) * np.geomspace(0.1, 100, 6)
    r = np.sin(x[:, :3]) + rng.normal(size=(70, 3)) * (0.01, 0.1, 1)
    fitted = KernelRidgeProbe().fit(x, r)
    scaler = StandardScaler().fit(x)
    x, other = scaler.transform(x), scaler.transform(other)
    gamma = 0.5 / np.median(pdist(x)) ** 2
    centerer = KernelCenterer().fit(rbf_kernel(x, gamma=gamma))
    model = KernelRidge(alpha=fitted.alpha, kernel="precomputed")
    model.fit(centerer.transform(rbf_kernel(x, gamma=gamma)), r - r.mean(axis=0))
    there = centerer.transform(rbf_kernel(other, x, gamma=gamma))
    expected = model.predict(there) + r.mean(axis=0)
    # Eigenvalues below 1e-12 of the largest are left out by ours.
    np.testing.assert_allclose(fitted.predict(scaler.inverse_transform(other)), expected, atol=1e-6)


def test_a_square_is_read_by_the_kernel_and_not_by_ridge() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 4))
    r = np.square(x[:, :1])
    fitted, held_out = slice(0, 200), slice(200, 400)

    def r2(probe: RidgeProbe | KernelRidgeProbe) -> float:
        error = r[held_out] - probe.fit(x[fitted], r[fitted]).predict(x[held_out])
        return float(1 - np.square(error).mean() / r[held_out].var())

    assert r2(RidgeProbe()) < 0.05
    assert r2(KernelRidgeProbe()) > 0.8


def centred(n: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictors with an inner product of 1 with themselves on average, and six targets."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, c))
    y = x[:, :5] @ rng.normal(size=(5, 6)) / 3 + rng.normal(size=(n, 6)) * np.linspace(0.1, 3, 6)
    return (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(c), y - y.mean(axis=0)


def test_fewer_columns_than_rows_give_the_same_fit() -> None:
    """Also with copies of a column, which leave directions without a value."""
    x, y = centred(120, 40)
    x = np.c_[x, x[:, :5]]
    dual = solve(decompose_kernel(x @ x.T), y, ALPHAS).dual()
    spectrum, v = decompose(x)
    weights = v @ (solve(spectrum, y, ALPHAS).components / spectrum.s[:, None])
    # Two eigendecompositions in float64; the smallest penalty leaves 1e-6 of a condition number.
    np.testing.assert_allclose(x @ weights, x @ x.T @ dual, atol=1e-8)


def test_leading_components_are_read_alone() -> None:
    rng = np.random.default_rng(3)
    x, other = rng.normal(size=(2, 80, 30)) @ np.diag(np.geomspace(10, 0.1, 30))
    x, other = x @ (q := np.linalg.qr(rng.normal(size=(30, 30)))[0]), other @ q
    r = np.sin(x[:, :2])
    fitted = KernelRidgeProbe(share=0.1).fit(x, r)
    scaler = StandardScaler().fit(x)
    pca = PCA(8, svd_solver="full").fit(scaler.transform(x))
    here, there = (pca.transform(scaler.transform(rows)) for rows in (x, other))
    gamma = 0.5 / np.median(pdist(here)) ** 2
    centerer = KernelCenterer().fit(rbf_kernel(here, gamma=gamma))
    model = KernelRidge(alpha=fitted.alpha, kernel="precomputed")
    model.fit(centerer.transform(rbf_kernel(here, gamma=gamma)), r - r.mean(axis=0))
    expected = model.predict(centerer.transform(rbf_kernel(there, here, gamma=gamma)))
    np.testing.assert_allclose(fitted.predict(other), expected + r.mean(axis=0), atol=1e-6)


def test_the_penalty_is_the_one_with_the_least_gcv_error() -> None:
    x, y = centred(n := 120, 40)
    kernel = x @ x.T
    errors = []
    for share in ALPHAS:
        hat = kernel @ np.linalg.inv(kernel + share * n * np.eye(n)) + 1 / n
        rss = np.square(y - hat @ y).sum(axis=0)
        errors.append(rss / (1 - np.trace(hat) / n) ** 2)
    best = np.array(ALPHAS)[np.argmin(errors, axis=0)] * n
    np.testing.assert_allclose(solve(decompose_kernel(kernel), y, ALPHAS).alpha, best)
    assert len(set(best)) > 1
