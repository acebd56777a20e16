"""What ``--help`` of a job looks like: groups of flags in an order, and no word that says nothing.

The flags stay those of the job's dataclass; only how they are shown is decided here.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

Groups = Mapping[str, tuple[str, ...]]
"""Title -> fields of the job's dataclass: a group of flags, or single flags."""


def plain(groups: Groups | None = None, config: type | None = None) -> ConstructorRegistry:
    """Rules of the parser for a help that is easy to read.

    A flag that may be left out is shown with its type alone (``PATH``, not ``{None}|PATH``), and a
    default is named where it is a value: what is done without the flag is said in its text.

    Args:
        groups: in the order in which they are shown. What none of them names comes at the end:
            single flags in the last one, groups before it.
        config: the dataclass that `groups` is about.
    """
    registry, busy = ConstructorRegistry(), set()

    @registry.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        return _without_none(info)

    @registry.struct_rule
    def quiet(info: StructTypeInfo) -> StructConstructorSpec | None:
        if isinstance(info.type, type) and issubclass(info.type, _Gathered):
            return StructConstructorSpec(dict, info.type.fields)
        if not dataclasses.is_dataclass(info.type) or info.type in busy:
            return None
        busy.add(info.type)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            busy.remove(info.type)
        if not isinstance(spec, StructConstructorSpec):
            return None
        spec = dataclasses.replace(spec, fields=tuple(map(_no_empty_default, spec.fields)))
        return _arranged(spec, groups) if groups and info.type is config else spec

    return registry


class _Gathered:
    """Stands for a group of single flags; the parser asks what is in it."""

    fields: tuple[StructFieldSpec, ...] = ()


def _arranged(spec: StructConstructorSpec, groups: Groups) -> StructConstructorSpec:
    """The same with the fields in groups of these titles."""
    known = {field.name: field for field in spec.fields}
    single = {name for name, field in known.items() if not _is_group(field)}
    named = {name for names in groups.values() for name in names}
    *before, last = groups
    # A group that none of the titles is for keeps the name of its field.
    others = {name: (name,) for name in known if name not in named | single}
    groups = {title: groups[title] for title in before} | others | {last: groups[last]}
    fields, gathered = [], {}
    for title, names in groups.items():
        of_title = [name for name in names if name in single]
        if title == last:
            of_title += sorted(single - named)
        fields += [_titled(known[name], title) for name in names if name not in single]
        if of_title:
            key = f"gathered_{len(gathered)}"
            gathered[key] = of_title
            kind = type("Flags", (_Gathered,), {"fields": tuple(known[name] for name in of_title)})
            fields.append(_titled(StructFieldSpec(key, kind, kind(), helptext=""), title))

    def instantiate(**values: Any) -> Any:
        for key in gathered:
            values |= values.pop(key)
        return spec.instantiate(**values)

    return StructConstructorSpec(instantiate, tuple(fields))


def _titled(field: StructFieldSpec, title: str) -> StructFieldSpec:
    kind: Any = Annotated[field.type, tyro.conf.arg(name=title)]
    return dataclasses.replace(field, type=kind)


def _is_group(field: StructFieldSpec) -> bool:
    kind = field.type
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return dataclasses.is_dataclass(kind)


def _no_empty_default(field: StructFieldSpec) -> StructFieldSpec:
    """The same; a default of None or of no values is not told, but that a flag may be repeated."""
    empty = field.default is None or field.default == ()
    if not empty or tyro.conf.UseAppendAction in get_args(field.type):
        return field
    kind: Any = Annotated[field.type, tyro.conf.arg(help_behavior_hint="")]
    return dataclasses.replace(field, type=kind)


def _without_none(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How a value or None is written: as the value, or as ``None``."""
    if info.type_origin not in (Union, types.UnionType):
        return None
    kinds = get_args(info.type)
    rest = [kind for kind in kinds if kind is not type(None)]
    if len(rest) != 1 or len(rest) == len(kinds):
        return None
    value = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(rest[0], info.markers))
    if not isinstance(value, PrimitiveConstructorSpec):
        return None

    def from_words(words: list[str]) -> Any:
        return None if words == ["None"] else value.instance_from_str(words)

    return dataclasses.replace(
        value,
        instance_from_str=from_words,
        is_instance=lambda each: each is None or value.is_instance(each),
        str_from_instance=lambda each: [] if each is None else value.str_from_instance(each),
    )
