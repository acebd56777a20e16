"""Checked shapes at a small price: arguments and results are checked once for each of their kinds.

jaxtyping binds and checks every call anew, which is a third of the time of a whole job. Whether a
check passes is settled by the kinds of what it looks at: types, and the types of numbers and shapes
of arrays. So a call whose kinds passed before is let through, and everything else is checked in
full: the first call, every other shape, every other kind of result. What failed is never let
through.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Hashable
from itertools import islice
from types import FunctionType
from typing import Any

import jaxtyping
from jaxtyping import install_import_hook

LOOKED_AT = 8
"""Items of a list, tuple or mapping whose kinds count; beartype looks at one item of a list."""

DEEPEST = 6
"""Lists in lists whose kinds count, or half as many mappings in mappings; calls with deeper ones,
which may hold themselves, are checked anew each time."""

_passed: dict[Hashable, dict[Hashable, set[Hashable]]] = {}
"""Module, name and code of a function (of an inner function all are one) -> kinds of arguments that
passed -> kinds of results that passed with them."""

_checks: dict[Hashable, Callable[..., Any]] = {}
"""Module, name and code of a function -> the checks, around whatever is to run next."""

_waiting = threading.local()
"""What is to run once its arguments have passed, the last in first: `runs`, of each thread."""

_every_call = jaxtyping.jaxtyped


def install(packages: list[str]) -> None:
    """Checks the annotated shapes of packages that are imported from now on."""
    jaxtyping.jaxtyped = _jaxtyped  # what the hook writes above every function and class
    install_import_hook(packages, "beartype.beartype")


def checked(function: FunctionType, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the kinds of its arguments and of its result checked.

    Args:
        function: annotated.
        typechecker: a decorator that raises where annotations are not kept.

    Raises:
        jaxtyping.TypeCheckError: of a call, as `jaxtyping.jaxtyped` does.
    """
    name = (function.__module__, function.__qualname__, function.__code__)
    passed = _passed.setdefault(name, {})

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        kinds: Hashable = (*map(_kind, args), *kwargs, *map(_kind, kwargs.values()))
        results = passed.get(kinds)
        if results is None:
            result = _in_full(name, function, function, typechecker)(*args, **kwargs)
            passed[kinds] = {_kind(result)}
            return result
        result = function(*args, **kwargs)
        if (kind := _kind(result)) not in results:
            there = _in_full(name, function, lambda *_, **__: result, typechecker)
            there(*args, **kwargs)
            results.add(kind)
        return result

    return call


def _jaxtyped(function: Any = None, *, typechecker: Any = None) -> Any:
    """What stands for `jaxtyping.jaxtyped`: the same but for how often it looks."""
    if function is None:
        return functools.partial(_jaxtyped, typechecker=typechecker)
    if typechecker is None or not isinstance(function, FunctionType | type):
        return _every_call(function, typechecker=typechecker)
    if isinstance(function, FunctionType):
        return checked(function, typechecker)
    if dataclasses.is_dataclass(function) and "__init__" in vars(function):
        function.__init__ = checked(vars(function)["__init__"], typechecker)
    return function


def _in_full(
    name: Hashable,
    function: FunctionType,
    run: Callable[..., Any],
    typechecker: Callable[..., Any],
) -> Callable[..., Any]:
    """Runs something with the arguments and the result checked as those of a function.

    Writing the checks takes a millisecond or more: once for all functions of the same code.
    """
    check = _checks.get(name)
    if check is None:
        named = FunctionType(_next.__code__, function.__globals__, closure=_next.__closure__)
        check = _every_call(functools.update_wrapper(named, function), typechecker=typechecker)
        _checks[name] = check

    def call(*args: Any, **kwargs: Any) -> Any:
        waiting = _waiting.__dict__.setdefault("runs", [])
        before = len(waiting)
        waiting.append(run)
        try:
            return check(*args, **kwargs)
        finally:
            del waiting[before:]  # arguments that did not pass

    return call


def _make_next(waiting: threading.local) -> FunctionType:
    def following(*args: Any, **kwargs: Any) -> Any:
        return waiting.runs.pop()(*args, **kwargs)

    return following


def _kinds(deepest: int) -> Callable[[Any], Hashable]:
    """What a check can tell of a value, from a function made for so many lists in lists.

    Every argument and every result of every call goes through it: what is no array and holds
    nothing, most by far, is told first.
    """
    within = _kinds(deepest - 1) if deepest else None
    of_items = _kinds(deepest - 2) if deepest > 1 else None
    plain: set[type] = set()

    def kind(value: Any) -> Hashable:
        of = type(value)
        if of in plain:
            return of
        if of is tuple or of is list:
            if within is None:
                return object()  # like no other
            return (of, *map(within, value if len(value) <= LOOKED_AT else value[:LOOKED_AT]))
        if of is dict:
            if of_items is None:
                return object()
            names, values = islice(value, LOOKED_AT), islice(value.values(), LOOKED_AT)
            return (of, *map(of_items, names), *map(of_items, values))
        if _is_array(of):
            return (of, value.dtype, value.shape)
        plain.add(of)
        return of

    return kind


@functools.cache
def _is_array(of: type) -> bool:
    """Arrays of NumPy, JAX and PyTorch, and what stands for them while JAX traces."""
    return hasattr(of, "shape") and hasattr(of, "dtype")


_kind = _kinds(DEEPEST)
_next = _make_next(_waiting)
