"""A composed configuration checked against the Python signatures that will receive it, before any work.

Hydra refuses an unknown key, but suggests adding it with ``+``, and then hands anything to anyone. Here the
signatures are the schema: the annotated fields of the entry point's dataclass for the top level, and the
arguments of each ``_target_`` below it. Targets are neither called nor imported: a misspelt key should not have to wait
for torch.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.static_signatures import find_signature

_NODE = "a node with a _target_"
Node = Annotated[dict[str, Any], _NODE]
"""Annotation of a field whose value must be a mapping with a ``_target_``."""


class AlsoReads:
    """In ``Annotated[Node, AlsoReads(name=type)]``: keys that the entry point itself reads, beside the target's."""

    def __init__(self, **types_by_name: Any) -> None:
        self.types_by_name = types_by_name


class SomeArgumentsOf:
    """In ``Annotated[dict[str, Any], SomeArgumentsOf(path)]``: a mapping of that target's arguments, null if not given.

    A mapping with a ``_target_`` is checked against that one instead.
    """

    def __init__(self, path: str) -> None:
        self.path = path


_MISSING = "???"  # how OmegaConf writes a value that the user has to give
_HYDRA_KEYS: dict[str, Any] = {
    "_target_": str,
    "_partial_": bool,
    "_recursive_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_args_": list,
}
_WORDS: dict[type, str] = {
    int: "int",
    float: "float",
    str: "str",
    bool: "true or false",
    types.NoneType: "null",
    object: "anything",
}
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}
_LISTS = {list, tuple, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable}
_SHOWN_CHARACTERS = 80


_Extra = TypeVar("_Extra")


class _Misfit(NamedTuple):
    key: str
    value: Any
    annotation: Any


def check_config(config: Mapping[str, Any], schema: type) -> None:
    """Refuse a configuration with a key that nobody reads or a value of the wrong type.

    ``config`` is plain: dicts, lists and scalars, interpolations resolved. ``schema`` is a dataclass: its
    fields are the keys of the top level, those without a default are required, and a field annotated with
    another dataclass describes a plain group. Every mapping with a ``_target_``, at any depth, is checked
    against the signature of its target; arguments that are absent may still be added by the entry point.
    Arguments without an annotation, or with one that cannot be resolved, accept everything.

    Raises ``InputError`` with the first problem, and the number of others.
    """
    hints = typing.get_type_hints(schema, include_extras=True)
    also_read = {name: extra.types_by_name for name, hint in hints.items() for extra in _extras(hint, AlsoReads)}
    _refuse([*_dataclass_problems("", config, schema), *_node_problems("", config, also_read)])


def check_arguments(arguments: Mapping[str, Any], path: str, also_read: Mapping[str, Any]) -> None:
    """Refuse arguments that the function or class at ``path`` does not take; ``also_read`` has types of other keys."""
    _refuse([*_argument_problems("", {"_target_": path, **arguments}, also_read), *_node_problems("", arguments, {})])


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)


def _dataclass_problems(key: str, config: Mapping[str, Any], schema: type) -> Iterator[str]:
    """Problems of a group whose keys are the fields of a dataclass."""
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    for name, value in ((str(name), value) for name, value in config.items()):
        if name not in fields:
            yield f"{_join(key, name)}={_show(value)}: no such key; {did_you_mean(name, fields)}"
            continue
        group = next(filter(dataclasses.is_dataclass, (hints[name], *typing.get_args(hints[name]))), None)
        if isinstance(group, type) and isinstance(value, Mapping):
            yield from _dataclass_problems(_join(key, name), value, group)
        else:
            yield from _value_problems(_join(key, name), value, hints[name])
        if isinstance(value, Mapping) and "_target_" not in value:
            given = {str(child): child_value for child, child_value in value.items() if child_value is not None}
            for extra in _extras(hints[name], SomeArgumentsOf):
                yield from _argument_problems(_join(key, name), {"_target_": extra.path, **given}, {})
    for name, field in fields.items():
        defaults = {field.default, field.default_factory} - {dataclasses.MISSING}
        if name not in config and not defaults:
            yield _required(_join(key, name))


def _extras(hint: Any, kind: type[_Extra]) -> list[_Extra]:
    """What an ``Annotated`` adds to its type, of one kind."""
    return [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, kind)]


def _node_problems(key: str, value: Any, also_read: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Problems of every node with a ``_target_``, and every value still to be given, from here down.

    ``also_read``: by the key of a node, the types of those of its keys that are not for its target.
    """
    if isinstance(value, str) and value == _MISSING:
        yield _required(key)
    elif isinstance(value, Mapping):
        if "_target_" in value:
            yield from _argument_problems(key, value, also_read.get(key, {}))
        for name, child in value.items():
            yield from _node_problems(_join(key, name), child, also_read)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _node_problems(f"{key}[{index}]", child, also_read)


def _argument_problems(key: str, node: Mapping[str, Any], also_read: Mapping[str, Any]) -> Iterator[str]:
    """Problems of one node's own arguments; of those nested in it only what its target's annotations say."""
    types_of_others = {**_HYDRA_KEYS, **also_read}
    for name in filter(node.__contains__, types_of_others):
        yield from _value_problems(_join(key, name), node[name], types_of_others[name])
    path = node["_target_"]
    if not isinstance(path, str) or path == _MISSING:
        return
    try:
        arguments, takes_any_name = find_signature(path)
    except InputError as error:
        yield f"{_join(key, '_target_')}={path}: {error}"
        return
    for name, value in ((str(name), value) for name, value in node.items() if name not in types_of_others):
        if name in arguments:
            if value is not None or not arguments[name].may_be_none:
                yield from _value_problems(_join(key, name), value, arguments[name].type)
        elif not takes_any_name:
            guess = did_you_mean(name, _HYDRA_KEYS if name.startswith("_") else {*arguments, *also_read})
            yield f"{_join(key, name)}={_show(value)}: {path} has no argument {name}; {guess}"


def _value_problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    misfit = _misfit(key, value, annotation)
    if misfit:
        yield f"{misfit.key}={_show(misfit.value)}: must be {_describe(misfit.annotation)}"


def _misfit(key: str, value: Any, annotation: Any) -> _Misfit | None:
    """The innermost value that its annotation does not allow; None where all is well.

    A list stands for any sequence and for a tuple, since YAML has no other; an int for a float. Nothing else
    is converted, because Hydra converts nothing either.
    """
    here = _Misfit(key, value, annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if (isinstance(value, Mapping) and "_target_" in value) or (isinstance(value, str) and value == _MISSING):
        return None  # what a target makes is not known before it is called; _node_problems sees to the rest
    if origin is Annotated:
        return here if _NODE in arguments[1:] else _misfit(key, value, arguments[0])
    if origin in {Union, types.UnionType}:
        misfits = [_misfit(key, value, alternative) for alternative in arguments]
        if None in misfits:
            return None
        # Where an alternative has the right shape, the culprit is inside it.
        return next((misfit for misfit in misfits if misfit and misfit.key != key), here)
    if origin is Literal:
        return None if any(value == option and type(value) is type(option) for option in arguments) else here
    if annotation is None or annotation is types.NoneType:
        return None if value is None else here
    kind = origin or annotation
    if not isinstance(kind, type):
        return None
    if kind is int or kind is float:
        allowed: tuple[type, ...] = (int,) if kind is int else (int, float)
        return None if isinstance(value, allowed) and not isinstance(value, bool) else here
    if kind in _MAPPINGS:
        if not isinstance(value, Mapping):
            return here
        child_annotation = arguments[1] if arguments else Any
        return _first_misfit((_join(key, name), child, child_annotation) for name, child in value.items())
    if kind in _LISTS:
        if not isinstance(value, list | tuple):
            return here
        one_by_one = kind is tuple and arguments and arguments[-1] is not Ellipsis
        if one_by_one and len(arguments) != len(value):
            return here
        element_annotations = arguments if one_by_one else [arguments[0] if arguments else Any] * len(value)
        elements = enumerate(zip(value, element_annotations, strict=True))
        return _first_misfit((f"{key}[{index}]", *element) for index, element in elements)
    try:
        return None if isinstance(value, kind) else here
    except TypeError:  # a protocol that is not for run time
        return None


def _first_misfit(values: Iterable[tuple[str, Any, Any]]) -> _Misfit | None:
    return next(filter(None, (_misfit(*value) for value in values)), None)


def _describe(annotation: Any) -> str:
    """An annotation in the words of a configuration file."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _NODE if _NODE in arguments[1:] else _describe(arguments[0])
    if origin in {Union, types.UnionType}:
        words = dict.fromkeys(map(_describe, arguments))
        return " or ".join(sorted(words, key=lambda word: (word == "null", word.startswith("a "))))
    if origin is Literal:
        return " or ".join(repr(option) for option in arguments)
    kind = origin or annotation
    if not isinstance(kind, type):
        return str(annotation)
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in _MAPPINGS:
        return "a mapping"
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list [{', '.join(map(_describe, arguments))}]"
    if kind in _LISTS:
        return f"a list of {_describe(arguments[0])}" if arguments and arguments[0] is not Any else "a list"
    return f"a node that makes {kind.__name__}"


def _required(key: str) -> str:
    return f"{key} is required: give {key}=..."


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
