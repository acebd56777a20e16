"""Kernel ridge regression: another implementation, and what only a curved kernel reads."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import KernelCenterer, StandardScaler

from lens.probes.kernel_ridge import KernelRidgeProbe
from lens.probes.ridge import RidgeProbe


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
