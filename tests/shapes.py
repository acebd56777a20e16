"""Array shapes in signatures, checked at run time: each kind of call once.

jaxtyping and beartype look at types, dtypes and shapes, and at the values of nothing but literals.
Two calls that agree in these pass or fail alike, and the second need not be asked again: a check
costs more than most of the small sums in the tests, and there are hundreds of thousands. What
cannot be told apart that way (a set, a long list, a mapping of its own kind) is asked every time;
so is a list of several kinds of items, of which beartype looks at one by chance.
A function's checks are written when it is first called; those of a function within a function are
written once, not each time that the outer one runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import CodeType, FunctionType, NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import jaxtyping
import jaxtyping._decorator as decorator

MOST_ITEMS, MOST_KINDS = 16, 5000
"""Items of a collection that are compared one by one, and kinds of calls that a function keeps."""

ATOMS = frozenset({NoneType, bool, int, float, complex, str, bytes})


class Asks(NamedTuple):
    """What the annotations of a function ask for beyond types, dtypes and shapes.

    Attributes:
        values: certain values (`Literal`).
        any_length: tuples of any length, which are looked at by chance.
    """

    values: bool
    any_length: bool


Kind = Callable[[Any, Asks], Hashable]

whole_check = decorator.jaxtyped


class Unsure(Exception):
    """A value of which the check depends on more than its kind."""


class Checks:
    """What a function's code is checked with, and the kinds of calls that have passed."""

    def __init__(self, function: FunctionType, checker: Callable[..., Any]) -> None:
        self.passed: set[Hashable] = set()
        self.asks = asked_by(function)
        self.run = _checked(function, checker)

    def __call__(self, function: Callable[..., Any], arguments: tuple, named: dict) -> Any:
        """The function's result, the arguments and itself checked unless their kind was."""
        try:
            kind = call_kind(arguments, named, self.asks)
            known = kind in self.passed
        except (Unsure, TypeError):
            return self.run(function, arguments, named)
        found = function(*arguments, **named) if known else self.run(function, arguments, named)
        try:
            whole = (kind, kind_of(found, self.asks))
            if known and whole not in self.passed:
                self.run(lambda *_, **__: found, arguments, named)
            if len(self.passed) < MOST_KINDS:
                self.passed |= {kind, whole}
        except (Unsure, TypeError):
            if known:
                self.run(lambda *_, **__: found, arguments, named)
        return found


_checks: dict[CodeType, Checks] = {}


def _checked(function: FunctionType, checker: Callable[..., Any]) -> Callable[..., Any]:
    """Calls any function with the checks that jaxtyping makes for `function`'s signature."""
    asked = threading.local()

    def stand_in(*arguments: Any, **named: Any) -> Any:
        return asked.function(*arguments, **named)

    # In the globals of the function, where jaxtyping looks its annotations up.
    own = FunctionType(
        stand_in.__code__, function.__globals__, function.__name__, None, stand_in.__closure__
    )
    checked = whole_check(functools.update_wrapper(own, function), typechecker=checker)

    def run(called: Callable[..., Any], arguments: tuple, named: dict) -> Any:
        asked.function = called
        return checked(*arguments, **named)

    return run


def checked_by_kind(
    fn: Any = decorator._sentinel, *, typechecker: Any = decorator._sentinel
) -> Any:
    """Stands for `jaxtyping.jaxtyped`."""
    if not isinstance(fn, FunctionType) or not callable(typechecker):
        return whole_check(fn, typechecker=typechecker)
    if hasattr(fn, "checked_by_kind"):
        return fn
    function, code = fn, fn.__code__

    @functools.wraps(function)
    def asked(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        checks = _checks.get(code)
        if checks is None:
            checks = _checks.setdefault(code, Checks(function, typechecker))
        return checks(function, arguments, named)

    asked.checked_by_kind = True  # pyright: ignore[reportAttributeAccessIssue]
    return asked


def call_kind(arguments: tuple, named: dict, asks: Asks) -> Hashable:
    """The kinds of all arguments."""
    kinds = tuple([kind_of(value, asks) for value in arguments])
    if not named:
        return kinds
    return kinds, tuple([(name, kind_of(value, asks)) for name, value in named.items()])


def kind_of(value: Any, asks: Asks) -> Hashable:
    """All that a check can see of a value.

    Raises:
        Unsure: it may see more.
    """
    cls = type(value)
    if cls in ATOMS:
        return (cls, value) if asks.values else cls
    look = _looks.get(cls)
    if look is None:
        look = _looks.setdefault(cls, look_of(value))
    return look(value, asks)


_looks: dict[type, Kind] = {}


def look_of(value: Any) -> Kind:
    """How the kind of a value of this class is told."""
    cls = type(value)
    if isinstance(value, type):
        return lambda value, _: value
    try:
        is_array = hasattr(value, "dtype") and hasattr(value, "shape")
    except Exception:  # of a class that answers for every name, as templates have
        return _unsure
    if is_array:
        return lambda value, _: (cls, value.dtype, value.shape)
    if issubclass(cls, tuple | list):
        return _items
    if issubclass(cls, dict):
        return lambda value, asks: (
            cls,
            *_items(tuple(value.items()), asks._replace(any_length=False)),
        )
    # Annotations say no more of tables than that they are some.
    if issubclass(cls, Iterable) and not (
        issubclass(cls, Iterator) or cls.__module__.startswith("pandas.")
    ):
        return _unsure
    return lambda value, _: cls


def _items(value: Any, asks: Asks) -> Hashable:
    if len(value) > MOST_ITEMS:
        raise Unsure
    kinds = [kind_of(item, asks) for item in value]
    if (isinstance(value, list) or asks.any_length) and len(set(kinds)) > 1:
        raise Unsure
    return (type(value), *kinds)


def _unsure(value: Any, asks: Asks) -> Hashable:
    raise Unsure


def asked_by(function: FunctionType) -> Asks:
    """What the annotations of a function ask for, as far as jaxtyping understands them."""
    hints: list[Any] = [
        decorator._destring_annotation(each, function.__globals__)
        for each in function.__annotations__.values()
    ]
    values = any_length = False
    while hints:
        hint = hints.pop()
        parts = [*hint] if isinstance(hint, list | tuple) else [*get_args(hint)]
        values |= get_origin(hint) is Literal
        any_length |= get_origin(hint) is tuple and Ellipsis in parts
        hints += parts
    return Asks(values, any_length)


def check_each_kind_of_call() -> None:
    """Has jaxtyping's import hook use the checks of this module."""
    jaxtyping.jaxtyped = decorator.jaxtyped = checked_by_kind
