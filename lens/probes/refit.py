"""Bootstrap that refits the decoder: one decoder for each vector of weights of the patients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Int
from scipy import linalg
from threadpoolctl import threadpool_limits

from lens.probes.checks import AnyArray, check_rows
from lens.probes.decoder import decode
from lens.probes.devices import map_in_threads, over_devices, workers
from lens.probes.least_squares import BENIGN, RANK_CUTOFF, factorise, times_inverse

_SHAKY = 100.0
"""Mean variance inflation from which a draw is solved in float64 throughout."""


class Refits(NamedTuple):
    """Decoders of consecutive draws, ``r = z theta[i].T + b[i]``.

    Attributes:
        theta: weights, a row per radiomic column.
        b: intercepts, zeros where none was fitted.
        rank: numerical rank of the draw's (centred) embeddings; below `h`, `theta` is the solution
            of minimum norm.
    """

    theta: Float[np.ndarray, "b k h"]
    b: Float[np.ndarray, "b k"]
    rank: Int[np.ndarray, " b"]


def refit(
    z: Mapping[str, Float[AnyArray, "n _"]],
    r: Float[AnyArray, "m k"],
    weights: Float[np.ndarray, "b w"],
    *,
    intercept: bool = True,
    memory: int = 2**28,
) -> Iterator[dict[str, Refits]]:
    """Decoders of several encoders under each row of weights, block by block.

    Every draw minimises ``sum_i w_i ||r_i - theta z_i - b||^2``, so that a weight of 2 is a patient
    drawn twice. Predictions equal `lens.decode` of the weighted rows to 1e-5. All encoders see the
    same draws, so that differences between them are paired:

        draws = [
            {name: np.linalg.norm(part.theta, axis=-1) for name, part in block.items()}
            for block in lens.refit({"pre": z_pre, "ft": z_ft}, r, weights)
        ]
        change = np.concatenate([draw["ft"] - draw["pre"] for draw in draws])

    It answers how far importance, or R2 on other patients, would move if the decoder were fitted to
    another draw of these patients, with the projection held. It is no replacement for the intervals
    of `lens.verdicts`, which also refit what comes before the decoder. Scores on patients of the
    draw itself are optimistic: score on held-out patients, or on those of weight zero.

    A bootstrap sample holds 63% of the patients. Where that is not well above `h`, draws are close
    to interpolation: decoders scatter much more than those of a new cohort would, and draws of
    fewer than ``h + 1`` patients are rank deficient (see `Refits.rank`) and take the minimum-norm
    solution, in float64 and many times slower. Weights without zeros (exponential ones, the
    Bayesian bootstrap) avoid this.

    Args:
        z: projected embeddings of each encoder, same patients; widths may differ.
        r: scaled radiomic features, same patients (m = n).
        weights: of the patients (w = n), at least zero, a row per draw.
        intercept: fit `b`.
        memory: bound in bytes on the results held at a time, of finished blocks and of those being
            solved, but at least one draw per device; the rest of the memory does not depend on the
            number of draws. All local devices share a block; on a CPU each core solves one.

    Yields:
        For each encoder the decoders of the next draws, in order, in float64.

    Raises:
        ValueError: rows differ, an entry is not finite (names the column), weights are negative or
            all zero in a draw.
    """
    weights = np.asarray(weights, np.float64)
    for values in z.values():
        check_rows(z=values, r=r)
    _check_weights(weights, len(r))
    data = {name: np.asarray(values, np.float64) for name, values in z.items()}
    return _blocks(data, np.asarray(r, np.float64), weights, intercept, memory)


class _Basis(NamedTuple):
    """``z - mean`` in well-conditioned coordinates: weights there, times `back`, are those of `z`.

    Attributes:
        rows: the patients in these coordinates.
        back: a factor for each coordinate, or a matrix where they are mixed.
    """

    rows: Float[AnyArray, "n p"]
    back: Float[AnyArray, " p"] | Float[AnyArray, "h p"]


class _Target(NamedTuple):
    """``r - mean = deviation * size``, `deviation` within -1 and 1 in float32."""

    deviation: Float[AnyArray, "n k"]
    size: Float[AnyArray, " k"]


def _blocks(
    z: dict[str, Float[np.ndarray, "n _"]],
    r: Float[np.ndarray, "n k"],
    weights: Float[np.ndarray, "b n"],
    intercept: bool,
    memory: int,
) -> Iterator[dict[str, Refits]]:
    devices = jax.local_device_count()
    one = 16 * r.shape[1] * sum(values.shape[1] + 1 for values in z.values())
    together = max(1, min(workers(), memory // one))
    size = min(memory // one // together, len(weights)) // devices * devices or devices
    patients = -(-int((weights > 0).sum(axis=1).max()) // 8) * 8
    bases = {name: _basis(values, intercept) for name, values in z.items()}
    mean = r.mean(axis=0) if intercept else np.zeros(r.shape[1])
    target = _target(r - mean)
    with jax.enable_x64(True):
        bases, target = jax.device_put((bases, target))

    def make(start: int) -> dict[str, Refits]:
        block = weights[start : start + size]
        filled = np.resize(block, (size, block.shape[1]))
        rows = np.argsort(filled == 0, axis=1, kind="stable")[:, :patients].astype(np.int32)
        with jax.enable_x64(True):
            drawn = np.take_along_axis(filled, rows, axis=1)
            solved = _solve(bases, target, rows, drawn, intercept=intercept)
        r_mean = np.asarray(solved.r_mean)[: len(block)] + mean
        return {
            name: _finish(
                np.asarray(solved.theta[name])[: len(block)],
                np.asarray(solved.inflation[name])[: len(block)],
                bases[name].rows.shape[1],
                (values, r, r_mean, block),
                intercept,
            )
            for name, values in z.items()
        }

    starts = range(0, len(weights), size)
    # The first one compiles for all.
    for group in (
        starts[:1],
        *(starts[at : at + together] for at in range(1, len(starts), together)),
    ):
        # BLAS's threads wait for more by spinning, on the cores that the large product needs.
        with threadpool_limits(1, user_api="blas"):
            made = map_in_threads(make, group)
        yield from made


def _finish(
    theta: Float[np.ndarray, "b h k"],
    inflation: Float[np.ndarray, " b"],
    rank: int,
    data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    intercept: bool,
) -> Refits:
    """Adds intercepts; draws that float32 cannot be trusted with are solved again in float64."""
    z, r, r_mean, weights = data
    z_mean = weights @ z / weights.sum(axis=1, keepdims=True) if intercept else 0.0 * weights @ z
    theta, ranks = theta.swapaxes(1, 2), np.full(len(theta), rank)
    shaky = np.flatnonzero(~(inflation < _SHAKY))
    if shaky.size:
        theta = theta.copy()
    for draw in shaky:
        root = np.sqrt(weights[draw])[:, None]
        centre = weights[draw] @ r / weights[draw].sum() if intercept else 0.0
        again = decode(
            root * (z - z_mean[draw]), root * (r - centre), intercept=False, solver="lstsq"
        )
        theta[draw], ranks[draw] = again.theta, again.rank
    b = r_mean - (theta @ z_mean[:, :, None])[..., 0] if intercept else np.zeros(theta.shape[:2])
    return Refits(theta, b, ranks)


def _basis(z: Float[np.ndarray, "n h"], intercept: bool) -> _Basis:
    factor = factorise(z, intercept=intercept)
    if factor is None:
        centred = z - z.mean(axis=0) if intercept else z
        rows, values, directions = linalg.svd(centred, full_matrices=False)
        kept = values > RANK_CUTOFF * values[0]
        return _Basis(rows[:, kept], directions[kept].T / values[kept])
    if factor.inflation < BENIGN:
        return _Basis(factor.standard, 1.0 / factor.scale)
    orthonormal = times_inverse(factor.standard, factor, transposed=True)
    return _Basis(orthonormal, factor.inverse.T / factor.scale[:, None])


def _target(centred: Float[np.ndarray, "n k"]) -> _Target:
    size = np.abs(centred).max(axis=0)
    size[size == 0] = 1.0
    return _Target((centred / size).astype(np.float32), size)


class _Solved(NamedTuple):
    theta: dict[str, Float[Array, "b h k"]]
    r_mean: Float[Array, "b k"]
    inflation: dict[str, Float[Array, " b"]]


@partial(jax.jit, static_argnames="intercept")
def _solve(
    bases: dict[str, _Basis],
    target: _Target,
    rows: Int[AnyArray, "b m"],
    weights: Float[AnyArray, "b m"],
    *,
    intercept: bool,
) -> _Solved:
    """All draws of a block, each device its share."""

    def share(rows: Any, weights: Any, bases: Any, target: Any) -> _Solved:
        def one(draw: Any) -> _Solved:
            return _draw(bases, target, *draw, intercept=intercept)

        return _over_draws(one, (rows, weights))

    return over_devices(share, 2)(rows, weights, bases, target)


def _over_draws(solve: Callable[[Any], _Solved], draws: Any) -> _Solved:
    """One after another on a CPU, whose caches a draw fills; together on an accelerator."""
    together = jax.default_backend() != "cpu"
    return jax.vmap(solve)(draws) if together else jax.lax.map(solve, draws)


def _draw(
    bases: dict[str, _Basis],
    target: _Target,
    rows: Int[Array, " m"],
    weights: Float[Array, " m"],
    *,
    intercept: bool,
) -> _Solved:
    """One draw: what the embeddings decide in float64, one product with the features in float32."""
    total = weights.sum()
    left, inflation = [], {}
    for name, basis in bases.items():
        x = basis.rows[rows]
        if intercept:
            x = x - weights @ x / total
        weighted = weights[:, None] * x
        gram = weighted.T @ x
        lower = jnp.linalg.cholesky(gram, symmetrize_input=False)
        inverse = solve_triangular(lower, jnp.eye(len(lower)), lower=True)
        inflation[name] = (jnp.diagonal(gram) * jnp.square(inverse).sum(axis=0)).mean()
        p = cho_solve((lower, True), weighted.T)
        left.append(p * basis.back[:, None] if basis.back.ndim == 1 else p)
    left.append((weights / total)[None] if intercept else jnp.zeros_like(weights)[None])
    # Some accelerators would round the factors of a float32 product to 10 bits.
    product = jnp.matmul(
        jnp.concatenate(left).astype(jnp.float32), target.deviation[rows], precision="highest"
    ).astype(jnp.float64)
    product *= target.size
    *parts, mean = jnp.split(product, np.cumsum([len(p) for p in left[:-1]]))
    theta: dict[str, Any] = {
        name: part if basis.back.ndim == 1 else basis.back @ part
        for (name, basis), part in zip(bases.items(), parts, strict=True)
    }
    return _Solved(theta, mean[0], inflation)


def _check_weights(weights: Float[np.ndarray, "b w"], rows: int) -> None:
    if weights.shape[1] != rows:
        raise ValueError(f"weights have shape {weights.shape}; they must have {rows} columns")
    bad = np.flatnonzero(~((weights >= 0).all(axis=1) & np.isfinite(weights.sum(axis=1))))
    if bad.size:
        raise ValueError(f"weights must be finite and at least zero, unlike those of draw {bad[0]}")
    empty = np.flatnonzero(weights.sum(axis=1) == 0)
    if empty.size:
        raise ValueError(f"all weights of draw {empty[0]} are zero")
