"""Refitted decoders against a weighted float64 LAPACK solution of every draw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
from scipy import linalg

import lens
from lens.paper.bootstrap import patient_weights
from lens.probes import refit as refits
from lens.probes.devices import workers
from tests.probes.test_decoder import with_condition

N, K = 160, 37


def memory_of(draws: int, numbers: int) -> int:
    """For blocks of so many draws: those handed out and those in the making, on all cores."""
    return workers() * 2 * 8 * draws * numbers


def encoders() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(N, 24)).astype(np.float32) + 3.0
    lame = rng.normal(size=(N, 12)).astype(np.float32)
    lame[:, 3] = 0.0  # a dead unit
    lame[:, 5] = lame[:, 4]  # a duplicate
    return {
        "plain": plain,
        "condition 1e4": with_condition(N, 30, 1e4, seed=1),
        "condition 1e6": with_condition(N, 20, 1e6, seed=2),
        "deficient": lame,
        # Less than 65 of the 160 patients are in no bootstrap sample.
        "wide": rng.normal(size=(N, 110)),
    }


def targets() -> np.ndarray:
    """Means far from zero, spreads from 1e-40 to 1e40 and a constant."""
    rng = np.random.default_rng(3)
    spread = np.geomspace(1e-40, 1e40, K)
    r = spread * (1e3 + rng.normal(size=(N, K)))
    r[:, 7] = 5.0
    return r


def reference(
    z: np.ndarray, r: np.ndarray, w: np.ndarray, intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, intercepts and deviations of the fit, by scipy.linalg.lstsq on the drawn rows."""
    z, r, w = z.astype(np.float64)[w > 0], r[w > 0], w[w > 0]
    z_mean, r_mean = (w @ z / w.sum(), w @ r / w.sum()) if intercept else (0 * z[0], 0 * r[0])
    root = np.sqrt(w)[:, None]
    cut = np.finfo(np.float32).eps
    theta = linalg.lstsq(root * (z - z_mean), root * (r - r_mean), cond=cut)[0].T
    return theta, r_mean - theta @ z_mean, r - r_mean


@pytest.mark.parametrize("intercept", [True, False])
def test_equals_scipy_draw_by_draw(intercept: bool) -> None:
    z, r, w = encoders(), targets(), patient_weights(np.arange(N), 5, 0)
    # Two draws at a time, and one in the last block.
    memory = memory_of(2, K * sum(values.shape[1] + 1 for values in z.values()))
    blocks = list(lens.refit(z, r, w, intercept=intercept, memory=memory))
    assert [len(block["plain"].theta) for block in blocks] == [2, 2, 1]
    for name, values in z.items():
        got = [
            np.concatenate([getattr(block[name], f) for block in blocks]) for f in ("theta", "b")
        ]
        for draw, (theta, b) in enumerate(zip(*got, strict=True)):
            ours = values @ theta.T + b
            expected_theta, expected_b, spread = reference(values, r, w[draw], intercept)
            error = np.linalg.norm(ours - values @ expected_theta.T - expected_b, axis=0)
            scale = np.linalg.norm(spread, axis=0)
            scale[7] = np.sqrt(N) * 5.0
            # Interpolation of the `wide` encoder: rows outside the sample are extrapolated.
            loose = 1e3 if name == "wide" else 1.0
            assert (error <= 1e-5 * loose * scale).all(), (name, draw, (error / scale).max())
    ranks = {name: np.concatenate([block[name].rank for block in blocks]) for name in z}
    np.testing.assert_array_equal(ranks["plain"], 24)
    np.testing.assert_array_equal(ranks["deficient"], 10)
    np.testing.assert_array_equal(ranks["wide"], np.minimum((w > 0).sum(1) - intercept, 110))


def test_weights_of_one_are_the_decoder_and_of_two_a_patient_twice() -> None:
    z = {"pre": encoders()["plain"]}
    r = np.random.default_rng(5).normal(size=(N, K))
    once = np.ones((1, N))
    (block,) = lens.refit(z, r, once)
    whole = lens.decode(z["pre"], r)
    # float32 in the product of the refit.
    np.testing.assert_allclose(block["pre"].theta[0], whole.theta, atol=1e-6)
    np.testing.assert_allclose(block["pre"].b[0], whole.b, atol=1e-5)
    twice = np.concatenate([np.arange(N), [4, 4, 9]])
    once[0, [4, 9]] = 3, 2
    (block,) = lens.refit(z, r, once)
    whole = lens.decode(z["pre"][twice], r[twice])
    np.testing.assert_allclose(block["pre"].theta[0], whole.theta, atol=1e-6)


def test_draws_of_few_patients_take_the_minimum_norm_solution() -> None:
    z = encoders()["plain"]
    r = np.random.default_rng(6).normal(size=(N, K))
    w = np.zeros((2, N))
    w[0, :6] = 1.0  # interpolates them
    w[1, 8] = 3.0  # a constant
    (block,) = lens.refit({"pre": z}, r, w)
    np.testing.assert_array_equal(block["pre"].rank, [5, 0])
    theta, b = block["pre"].theta, block["pre"].b
    np.testing.assert_allclose(z[:6] @ theta[0].T + b[0], r[:6], atol=1e-6)
    np.testing.assert_allclose(theta[0], reference(z, r, w[0], True)[0], atol=1e-9)
    assert not theta[1].any()
    np.testing.assert_allclose(b[1], r[8], atol=1e-6)


def test_draws_together_are_those_one_by_one(monkeypatch) -> None:
    """As an accelerator makes them, beside those of a CPU."""
    z = {name: encoders()[name] for name in ("plain", "condition 1e4", "deficient")}
    r = np.random.default_rng(8).normal(size=(N, K))
    w = patient_weights(np.arange(N), 5, 0)
    (alone,) = lens.refit(z, r, w, memory=memory_of(5, 200 * K))
    monkeypatch.setattr(refits, "_over_draws", lambda solve, draws: jax.vmap(solve)(draws))
    refits._solve.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    (together,) = lens.refit(z, r, w, memory=memory_of(5, 200 * K))
    refits._solve.clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    for name, found in together.items():
        np.testing.assert_allclose(found.theta, alone[name].theta, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.b, alone[name].b, rtol=1e-4, atol=1e-4)


def test_devices_share_the_draws() -> None:
    """Eight devices give what one gives, with draws that do not divide by eight."""
    script = """
import json, jax
import numpy as np
import lens
from lens.paper.bootstrap import patient_weights
from tests.probes.test_refit import K, N, encoders
z = {name: encoders()[name] for name in ("plain", "deficient", "wide")}
r = np.random.default_rng(7).normal(size=(N, K))
blocks = list(lens.refit(z, r, patient_weights(np.arange(N), 19, 1), memory=2**20))
sums = {n: np.concatenate([(b[n].theta**2).sum((1, 2)) for b in blocks]).tolist() for n in z}
print(json.dumps([jax.device_count(), len(blocks), sums]))
"""
    results = []
    for devices in (1, 8):
        flags = f" --xla_force_host_platform_device_count={devices}"
        out = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True,
            env=os.environ
            | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + flags, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        found, blocks, sums = json.loads(out.stdout.splitlines()[-1])
        assert found == devices
        assert blocks > 1
        results.append(sums)
    for name, one in results[0].items():
        # The order of float32 sums may differ, and `wide` is nearly singular.
        np.testing.assert_allclose(results[1][name], one, rtol=1e-5, err_msg=name)
    assert len(one) == 19


def test_work_is_that_of_the_formula() -> None:
    """Products of a draw, counted by the compiler, and one compilation for all blocks."""
    h, m, k = 48, 96, 400
    rng = np.random.default_rng(8)
    z = rng.normal(size=(N, h))
    bases = {name: refits._basis(z, True) for name in ("pre", "ft")}
    target = refits._target(rng.normal(size=(N, k)))

    draw = jax.jit(partial(refits._draw, intercept=True))
    with jax.enable_x64(True):
        cost = draw.lower(bases, target, np.arange(m), np.ones(m)).compile().cost_analysis()
    # Triangular solves are calls of LAPACK, which the compiler does not see.
    wide, gram = 2 * m * (2 * h + 1) * k, 2 * (2 * m * h**2)
    assert wide + gram <= cost["flops"] <= 1.2 * (wide + gram)

    r = rng.normal(size=(N, k))
    before = refits._solve._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    for seed in (0, 1):
        weights = patient_weights(np.arange(N), 7, seed)
        weights[0] = 1.0  # all patients, so that both calls have as many
        memory = memory_of(2, k * 2 * (h + 1))
        for block in lens.refit({"pre": z, "ft": z}, r, weights, memory=memory):
            assert len(block["pre"].theta) in (1, 2)
    assert refits._solve._cache_size() == before + 1  # pyright: ignore[reportAttributeAccessIssue]


def test_refuses_weights_that_cannot_be() -> None:
    z, r = {"pre": np.ones((4, 2))}, np.ones((4, 3))
    for weights, message in (
        (np.ones((2, 5)), "must have 4 columns"),
        (np.array([[1.0, 1, 1, 1], [1, 1, -1, 1]]), "unlike those of draw 1"),
        (np.array([[1.0, np.nan, 1, 1]]), "unlike those of draw 0"),
        (np.zeros((1, 4)), "all weights of draw 0 are zero"),
    ):
        with pytest.raises(ValueError, match=message):
            lens.refit(z, r, weights)
    with pytest.raises(ValueError, match="z has 4 rows, r has 3"):
        lens.refit(z, r[:3], np.ones((1, 3)))
