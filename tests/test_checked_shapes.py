"""Wrong shapes are told whenever they come; what passed before is not looked at again."""

from __future__ import annotations

import dataclasses
from typing import Any

import beartype
import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError

from lens.probes.gcv import gcv_errors
from tests import checked_shapes
from tests.checked_shapes import checked

Row = Float[np.ndarray, " k"]
Rows = Float[np.ndarray, "n k"]


def checking(function: Any) -> Any:
    return checked(function, beartype.beartype)


def test_a_wrong_shape_is_told_at_any_call() -> None:
    @checking
    def weighed(rows: Rows, weights: Row) -> Rows:
        return rows * weights[:1]

    for rows in (3, 3, 4, 3):
        assert weighed(np.ones((rows, 2)), np.ones(2)).shape == (rows, 2)
        for wrong in (np.ones(3), np.ones((1, 2)), np.ones(2, int), [1.0, 1.0]):
            for _ in range(2):
                with pytest.raises(TypeCheckError, match="weights"):
                    weighed(np.ones((rows, 2)), wrong)
    assert weighed(weights=np.ones(2), rows=np.ones((3, 2))).shape == (3, 2)
    with pytest.raises(TypeCheckError, match="weights"):
        weighed(weights=np.ones(3), rows=np.ones((3, 2)))


def test_a_wrong_result_is_told_at_any_call() -> None:
    results = [np.ones(2), np.ones(2), np.ones(3), None, np.ones(2)]
    calls = []

    @checking
    def column_means(rows: Rows) -> Row:
        calls.append(len(calls))
        return results[calls[-1]]  # pyright: ignore[reportReturnType]

    rows = np.ones((5, 2))
    for result in results:
        if result is results[0] or np.shape(result) == (2,):
            assert column_means(rows) is result
        else:
            with pytest.raises(TypeCheckError, match="return value"):
                column_means(rows)
    assert calls == [0, 1, 2, 3, 4], "the function itself runs once a call"


def test_shapes_within_tuples_lists_and_mappings_count() -> None:
    @checking
    def paired(pair: tuple[Row, Row], more: list[Row], named: dict[str, Row]) -> int:
        return len(pair) + len(more) + len(named)

    right, wrong = np.ones(2), np.ones(3)
    assert paired((right, right), [right], {"a": right}) == 4
    for arguments in (
        ((right, wrong), [right], {"a": right}),
        ((right, right), [wrong], {"a": right}),
        ((right, right), [right], {"a": wrong}),
    ):
        with pytest.raises(TypeCheckError):
            paired(*arguments)


def test_fields_of_dataclasses_count() -> None:
    both = checked_shapes._jaxtyped(
        dataclasses.make_dataclass("Both", [("a", Row), ("b", Row)]), typechecker=beartype.beartype
    )
    row, rows = np.ones(2), np.ones((3, 2))
    assert both(row, row).b is row
    with pytest.raises(TypeCheckError):
        both(row, rows)
    with pytest.raises(TypeCheckError):
        both(row, b=np.ones(3))
    assert both(row, row).a is row


def test_the_same_kinds_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    in_full = checked_shapes._in_full

    def counted(name: Any, function: Any, *others: Any) -> Any:
        looks.append(function.__name__)
        return in_full(name, function, *others)

    monkeypatch.setattr(checked_shapes, "_in_full", counted)

    def of_size(size: int) -> Row:
        @checking
        def doubled(row: Row) -> Row:
            return 2 * row

        return doubled(np.ones(size))

    for size in (2, 2, 3, 2, 3):
        of_size(size)
    assert looks == ["doubled", "doubled"], "also of an inner function, made anew in each call"


def test_what_holds_itself_is_looked_at_each_time() -> None:
    @checking
    def first(held: dict, row: Row) -> Row:
        return row[: len(held)]

    endless: dict = {}
    endless["again"] = endless
    for _ in range(2):
        assert first(endless, np.ones(1)).shape == (1,)
    with pytest.raises(TypeCheckError, match="row"):
        first(endless, np.ones((1, 1)))


def test_the_package_is_imported_with_checks() -> None:
    values, power, beyond, alphas = np.ones(3), np.ones((3, 2)), np.ones(2), np.ones(4)
    assert gcv_errors(values, power, beyond, 9, alphas).shape == (4, 2)
    with pytest.raises(TypeCheckError, match="beyond"):
        gcv_errors(values, power, np.ones(3), 9, alphas)
