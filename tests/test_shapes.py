"""The checks of shapes in signatures, once for each kind of call, still find what they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float, Int, TypeCheckError

from lens.probes.scaling import standardise
from tests.shapes import checked_by_kind


def checked(function: Callable) -> Callable:
    return checked_by_kind(function, typechecker=beartype)


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray


@checked
def product(x: Float[np.ndarray, "n k"], w: Float[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
    return x @ w


@checked
def joined(parts: list[Float[np.ndarray, "_ k"]]) -> Float[np.ndarray, "_ k"]:
    return np.concatenate(parts)


@checked
def solved(how: Literal["auto", "exact"], count: int = 1) -> str:
    return how * count


def test_a_wrong_shape_is_found_whatever_passed_before() -> None:
    x, w = np.ones((3, 2)), np.ones(2)
    for _ in range(3):
        assert product(x, w).tolist() == [2, 2, 2]
        assert product(x=x, w=w).tolist() == [2, 2, 2]
        for wrong in ((x, np.ones(3)), (x.astype(int), w), (x[0], w), (x, w.tolist()), (x, None)):
            with pytest.raises(TypeCheckError):
                product(*wrong)
        with pytest.raises(TypeError):
            product(x)


def test_a_wrong_result_is_found_whatever_passed_before() -> None:
    @checked
    def some(x: Float[np.ndarray, " n"], count: int) -> Float[np.ndarray, " n"]:
        return x[:count]

    for _ in range(3):
        assert some(np.ones(3), 3).shape == (3,)
        with pytest.raises(TypeCheckError, match="return value"):
            some(np.ones(3), 2)


def test_items_of_collections_are_seen_one_by_one() -> None:
    good, bad = np.ones((1, 2)), np.ones(2)
    for _ in range(3):
        assert joined([good, good]).shape == (2, 2)
        for wrong in ([bad, bad], [good.astype(int)], (good, good)):
            with pytest.raises(TypeCheckError):
                joined(wrong)


@checked
def first(parts: tuple[int, ...] | list[int]) -> int:
    return int(parts[0])


@pytest.mark.parametrize("parts", [[1, "2"], (1, "2")])
def test_what_passes_by_chance_is_asked_again(parts: list[int]) -> None:
    """beartype looks at one item of several, each time another: half of the calls fail."""
    found = 0
    for _ in range(50):
        try:
            first(parts)
        except TypeCheckError:
            found += 1
    assert found > 5


def test_values_are_compared_where_a_literal_is_asked_for() -> None:
    for _ in range(3):
        assert solved("auto", 2) == "autoauto"
        with pytest.raises(TypeCheckError):
            solved("other", 2)


def test_the_function_is_run_once_a_call_and_its_own_errors_pass() -> None:
    runs = []

    @checked
    def counted(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        runs.append(len(x))
        if len(x) > 2:
            raise ValueError("too long")
        return x

    for size in (1, 1, 2, 1, 2):
        counted(np.ones(size))
    for _ in range(2):
        with pytest.raises(ValueError, match="too long"):
            counted(np.ones(3))
    assert runs == [1, 1, 2, 1, 2, 3, 3]


def test_a_function_within_a_function_keeps_its_own_variables() -> None:
    def adding(amount: float) -> Callable:
        @checked
        def add(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return x + amount

        return add

    one, two = adding(1.0), adding(2.0)
    for _ in range(2):
        assert one(np.zeros(2)).tolist() == [1, 1]
        assert two(np.zeros(2)).tolist() == [2, 2]
    with pytest.raises(TypeCheckError):
        two(np.zeros((2, 2)))


def test_a_call_within_a_call_is_checked_as_itself() -> None:
    @checked
    def halves(x: Float[np.ndarray, " n"], wrong: bool = False) -> Float[np.ndarray, " n"]:
        if len(x) > 1:
            return np.concatenate([halves(x[:1]), halves(x[1:], wrong)])
        return x[None] if wrong else x

    assert halves(np.arange(4.0)).tolist() == [0, 1, 2, 3]
    with pytest.raises(TypeCheckError):
        halves(np.arange(4.0), True)
    assert halves(np.arange(4.0)).tolist() == [0, 1, 2, 3]


def test_generators_named_tuples_tracers_and_dataclasses() -> None:
    @checked
    def rows(x: Float[np.ndarray, "n k"]) -> Iterator[Float[np.ndarray, " k"]]:
        yield from x

    @checked
    def left(pair: Pair) -> Float[np.ndarray, " n"]:
        return pair.left

    @checked
    def total(x: Float[jax.Array, "n n"]) -> Float[jax.Array, ""]:
        return x.sum()

    @dataclass(frozen=True)
    class Held:
        x: Float[np.ndarray, "n k"]
        labels: Int[np.ndarray, " n"]

    held = checked_by_kind(Held, typechecker=beartype)
    for _ in range(3):
        assert [row.shape for row in rows(np.ones((2, 3)))] == [(3,), (3,)]
        assert left(Pair(np.ones(2), np.ones(3))).shape == (2,)
        with pytest.raises(TypeCheckError):
            left(Pair(np.ones((2, 2)), np.ones(3)))
        assert float(jax.jit(total)(jnp.ones((2, 2)))) == 4
        with pytest.raises(TypeCheckError):
            jax.jit(total)(jnp.ones((2, 3)))
        assert held(np.ones((2, 3)), np.arange(2)).x.shape == (2, 3)
        with pytest.raises(TypeCheckError):
            held(np.ones((2, 3)), np.arange(3))


def test_the_packages_are_checked() -> None:
    x, one = np.ones((3, 2)), np.ones(2)
    for _ in range(3):
        assert standardise(x, one, one).shape == (3, 2)
        with pytest.raises(TypeCheckError):
            standardise(x, one, np.ones(3))
        with pytest.raises(TypeCheckError):
            standardise(x[0], one, one)
