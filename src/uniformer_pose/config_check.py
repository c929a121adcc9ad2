"""A composed configuration checked against the Python signatures that will receive it, before any work.

Hydra refuses an unknown key, but suggests adding it with ``+``, and then hands anything to anyone. Here the
signatures are the schema: the annotated fields of the entry point's dataclass for the top level, and the arguments of
each ``_target_`` below it, which is imported but not called. Pydantic judges the values, ranges in ``Annotated``
included (``annotated_types``); the few ranges of other libraries stand in ``ranges``.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections import abc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union

import pydantic
from pydantic_core import PydanticCustomError

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.ranges import ranges_of
from uniformer_pose.targets import find_target

_NODE = "a config with a _target_"
Node = Annotated[dict[str, Any], _NODE]
"""Annotation of a field whose value must be a mapping with a ``_target_``."""


class AlsoReads:
    """In ``Annotated[Node, AlsoReads(name=type)]``: keys that the entry point itself reads, beside the target's."""

    def __init__(self, **types_by_name: Any) -> None:
        self.types_by_name = types_by_name


class SetByProgram:
    """In ``Annotated[Node, SetByProgram(name="give other=...")]``: what the entry point itself gives the target.

    Each is refused with the words that say what to do instead.
    """

    def __init__(self, **instead_by_name: str) -> None:
        self.instead_by_name = instead_by_name


class IgnoredHere:
    """In ``Annotated[Node, IgnoredHere(name="give other=...")]``: what this entry point does not read.

    A file that several entry points share may hold such a key; on the command line it is refused.
    """

    def __init__(self, **instead_by_name: str) -> None:
        self.instead_by_name = instead_by_name


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
_WORDS = {
    "int_type": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "true or false",
    "none_required": "null",
    "dict_type": "a mapping",
}
_WRONG_LISTS = {"list_type", "tuple_type", "missing", "too_long"}
_PLAIN_TYPES = (Any, int, float, str, bool, types.NoneType, object)
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}
_LISTS = {list, tuple, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable}
_SHOWN_CHARACTERS = 80
_STRICT = pydantic.ConfigDict(strict=True)
_Extra = TypeVar("_Extra")


class _Argument(NamedTuple):
    type: Any
    default: Any

    @property
    def may_be_none(self) -> bool:
        """`x: int = None` is an old way to write an optional argument."""
        return self.default is None


class Signature(NamedTuple):
    """Arguments of a function or class by name; ``takes_any_name`` if it has ``**arguments`` or is not known."""

    arguments: dict[str, _Argument]
    takes_any_name: bool


def check_config(config: Mapping[str, Any], schema: type, typed: Collection[str] = ()) -> None:
    """Refuse a configuration with a key that nobody reads or a value of the wrong type or out of its range.

    ``config`` is plain: dicts, lists and scalars, interpolations resolved. ``schema`` is a dataclass: its
    fields are the keys of the top level, those without a default are required, and a field annotated with
    another dataclass describes a plain group. Every mapping with a ``_target_``, at any depth, is checked
    against the signature of its target; arguments that are absent may still be added by the entry point.
    Arguments without an annotation, or with one that cannot be resolved, accept everything. ``typed`` are the keys that
    the user gave, which are not all of those in ``config``.

    Raises ``InputError`` with the first problem, and the number of others. The top level comes first: its mistakes
    need not wait for the targets to be imported.
    """
    hints = _hints("", schema)
    _refuse([*_group_problems("", config, schema), *_values_to_give("", config), *_ignored(typed, hints)])
    _refuse([*_argument_problems_of_groups(config, hints), *_node_problems("", config, hints)])


def check_arguments(arguments: Mapping[str, Any], path: str, hint: Any) -> None:
    """Refuse arguments that the function or class at ``path`` does not take; ``hint`` annotates them like a node."""
    problems = [*_argument_problems("", {"_target_": path, **arguments}, hint), *_node_problems("", arguments, {})]
    _refuse([*problems, *_values_to_give("", arguments)])


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value of ``key`` that an annotation does not allow."""
    _refuse([*_value_problems(key, value, annotation)])


@cache
def find_signature(path: str) -> Signature:
    """The arguments that can be given by name to what a dotted path names.

    Raises InputError, with the nearest name, where nothing has that name, or where it names no class or function.
    """
    target = find_target(path)
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # compiled
        return Signature({}, takes_any_name=True)
    function: Any = inspect.unwrap(getattr(target, "__init__") if isinstance(target, type) else target)  # noqa: B009
    names = getattr(function, "__globals__", {})
    ranges = ranges_of(target)
    arguments = {
        parameter.name: _Argument(
            ranges.get(parameter.name) or _resolved(parameter.annotation, names), parameter.default
        )
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return Signature(arguments, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters))


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    """An annotation as an object; one by one, since a name that only type checkers know spoils no other."""
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        return eval(annotation, names) if isinstance(annotation, str) else annotation  # noqa: S307  # of the target
    except Exception:  # whatever a name or an operator raises here, it is not the user's
        return Any


def _hints(key: str, schema: type) -> dict[str, Any]:
    """The annotations of a dataclass and of the groups in it, by their keys."""
    found = {_join(key, name): hint for name, hint in typing.get_type_hints(schema, include_extras=True).items()}
    groups = ((name, _dataclass_in(hint)) for name, hint in found.items())
    return found | {k: h for name, group in groups if group is not None for k, h in _hints(name, group).items()}


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)


def _group_problems(key: str, config: Mapping[str, Any], schema: type) -> Iterator[str]:
    """Problems of a group whose keys are the fields of a dataclass."""
    hints = typing.get_type_hints(schema, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    for name, value in ((str(name), value) for name, value in config.items()):
        if name not in fields:
            yield f"{_join(key, name)}={_show(value)}: no such key; {did_you_mean(name, fields)}"
            continue
        group = _dataclass_in(hints[name])
        if group is not None and isinstance(value, Mapping):
            yield from _group_problems(_join(key, name), value, group)
        else:
            yield from _value_problems(_join(key, name), value, hints[name])
    for name, field in fields.items():
        defaults = {field.default, field.default_factory} - {dataclasses.MISSING}
        if name not in config and not defaults:
            yield _required(_join(key, name))


def _dataclass_in(hint: Any) -> type | None:
    kinds = (hint, *typing.get_args(hint))
    return next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def _argument_problems_of_groups(config: Mapping[str, Any], hints: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the groups that hold some arguments of a target which they do not name."""
    for name, value in config.items():
        if isinstance(value, Mapping) and "_target_" not in value:
            given = {str(child): child_value for child, child_value in value.items() if child_value is not None}
            for extra in _extras(hints.get(name), SomeArgumentsOf):
                yield from _argument_problems(name, {"_target_": extra.path, **given}, hints[name])


def _extras(hint: Any, kind: type[_Extra]) -> list[_Extra]:
    """What an ``Annotated`` adds to its type, of one kind; also where null is allowed beside it."""
    members = typing.get_args(hint) if typing.get_origin(hint) in {Union, types.UnionType} else [hint]
    return [extra for member in members for extra in getattr(member, "__metadata__", ()) if isinstance(extra, kind)]


def _ignored(typed: Collection[str], hints: Mapping[str, Any]) -> Iterator[str]:
    """The keys that the user gave and that nothing reads."""
    for group, hint in hints.items():
        for name, instead in (
            (name, to) for extra in _extras(hint, IgnoredHere) for name, to in extra.instead_by_name.items()
        ):
            key = f"{group}.{name}"
            yield from (f"{given}: not read here; {instead}" for given in typed if f"{given}.".startswith(f"{key}."))


def _values_to_give(key: str, value: Any) -> Iterator[str]:
    """The values, from here down, that are still to be given."""
    if isinstance(value, str) and value == _MISSING:
        yield _required(key)
    for path, child in _children(key, value):
        yield from _values_to_give(path, child)


def _node_problems(key: str, value: Any, hints: Mapping[str, Any]) -> Iterator[str]:
    """Problems of every node with a ``_target_`` from here down; ``hints`` annotate some by their keys."""
    if isinstance(value, Mapping) and "_target_" in value:
        yield from _argument_problems(key, value, hints.get(key))
        yield from _absent_arguments(key, value, hints.get(key))
    for path, child in _children(key, value):
        yield from _node_problems(path, child, hints)


def _absent_arguments(key: str, node: Mapping[str, Any], hint: Any) -> Iterator[str]:
    """The arguments that a node's target needs and neither the node nor the program gives."""
    if node.get("_partial_") or node.get("_args_") or not _is_target(node["_target_"]):
        return
    given = {*node, *(name for extra in _extras(hint, SetByProgram) for name in extra.instead_by_name)}
    for name, argument in find_signature(node["_target_"]).arguments.items():
        if argument.default is inspect.Parameter.empty and name not in given:
            yield _required(_join(key, name))


def _is_target(path: Any) -> bool:
    try:
        return isinstance(path, str) and bool(find_signature(path))
    except InputError:
        return False


def _children(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((_join(key, name), child) for name, child in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{key}[{index}]", child) for index, child in enumerate(value))


def _argument_problems(key: str, node: Mapping[str, Any], hint: Any) -> Iterator[str]:
    """Problems of one node's own arguments; of those nested in it only what its target's annotations say."""
    also_read = {name: type_ for extra in _extras(hint, AlsoReads) for name, type_ in extra.types_by_name.items()}
    set_here = {name: to for extra in _extras(hint, SetByProgram) for name, to in extra.instead_by_name.items()}
    path, types_of_others = node["_target_"], {**_HYDRA_KEYS, **also_read}
    if isinstance(path, str):
        try:
            arguments, takes_any_name = find_signature(path)
        except InputError as error:
            yield f"{_join(key, '_target_')}={path}: {error}"
            return
    else:
        arguments, takes_any_name = {}, True
    for name, value in ((str(name), value) for name, value in node.items()):
        where = _join(key, name)
        if name in set_here:
            yield f"{where}={_show(value)}: the program sets it; {set_here[name]}"
        elif name in types_of_others:
            yield from _value_problems(where, value, types_of_others[name])
        elif name in arguments:
            if value is not None or not arguments[name].may_be_none:
                yield from _value_problems(where, value, arguments[name].type)
        elif not takes_any_name:
            guess = did_you_mean(name, _HYDRA_KEYS if name.startswith("_") else {*arguments, *also_read} - {*set_here})
            yield f"{where}={_show(value)}: {path} has no argument {name}; {guess}"


def _value_problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    """What is wrong with a value: the innermost part that its annotation does not allow.

    A list stands for any sequence and for a tuple, since YAML has no other; an int for a float. Nothing else
    is converted, because Hydra converts nothing either.
    """
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(_checkable(annotation), config=_STRICT)
    except (pydantic.PydanticUserError, RecursionError):  # a type that pydantic has no schema of
        return
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError as invalid:
        found = [(_place(value, error["loc"]), error) for error in invalid.errors(include_url=False)]
        innermost = max((place for place, _ in found), key=len)
        inner_annotation = None if innermost else annotation
        words = dict.fromkeys(_words(error, inner_annotation) for place, error in found if place == innermost)
        null = {"null": None} if not innermost and types.NoneType in typing.get_args(annotation) else {}
        for step in innermost:
            key, value = (f"{key}[{step}]" if isinstance(step, int) else _join(key, step)), value[step]
        yield f"{key}={_show(value)}: must be {' or '.join({**words, **null})}"


def _place(value: Any, steps: Iterable[int | str]) -> tuple[int | str, ...]:
    """The steps of pydantic's that lead into the value itself; the others name members of a union."""
    place: list[int | str] = []
    for step in steps:
        inside = range(len(value)) if isinstance(value, list | tuple) else value if isinstance(value, dict) else ()
        if step in inside:
            place.append(step)
            value = value[step]
    return tuple(place)


def _words(error: Any, annotation: Any) -> str:
    """One error of pydantic's, for a value of this annotation, in the words of a configuration file."""
    if error["type"] in _WRONG_LISTS:
        return _list_words(annotation)
    message = str(error["msg"]).removeprefix("Value error, ")
    return _WORDS.get(error["type"]) or message.removeprefix("Input should be ")


def _list_words(annotation: Any) -> str:
    for kind in (annotation, *typing.get_args(annotation)):
        inside = (
            typing.get_args(inner)[0] if typing.get_origin(inner) is Annotated else inner
            for inner in typing.get_args(kind)
        )
        names = [getattr(inner, "__name__", str(inner)) for inner in inside]
        if names and typing.get_origin(kind) in _LISTS:
            fixed = typing.get_origin(kind) is tuple and names[-1] != "Ellipsis"
            return f"a list [{', '.join(names)}]" if fixed else f"a list of {names[0]}"
    return "a list"


def _checkable(annotation: Any) -> Any:
    """An annotation as pydantic is to see it: at every place a node or ``???`` is accepted, a list is any sequence."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    checked: Any = Any
    if origin is Annotated:
        if _NODE in arguments[1:]:
            checked = _made_by_a_target("")
        else:
            checked = Annotated[(_checkable(arguments[0]), *arguments[1:])]
    elif origin in {Union, types.UnionType}:
        checked = Union[tuple(map(_checkable, arguments))]  # noqa: UP007  # of objects
    elif origin is Literal or annotation in _PLAIN_TYPES or annotation is None:
        checked = annotation
    elif (origin or annotation) in _MAPPINGS:
        checked = dict[Any, _checkable(arguments[1]) if arguments else Any]  # type: ignore[misc]
    elif (origin or annotation) is tuple and arguments[1:] != (Ellipsis,):
        checked = Annotated[tuple[tuple(map(_checkable, arguments))] if arguments else list, pydantic.Strict(False)]  # type: ignore[misc]
    elif (origin or annotation) in _LISTS:
        checked = Annotated[list[_checkable(arguments[0]) if arguments else Any], pydantic.Strict(False)]  # type: ignore[misc]
    elif isinstance(origin or annotation, type) and not _may_be_plain(origin or annotation):
        checked = _made_by_a_target((origin or annotation).__name__)
    return Annotated[checked, pydantic.WrapValidator(_accept_nodes)]


def _may_be_plain(kind: type) -> bool:
    """Whether plain data can be of a class: a kind of str, a TypedDict, a protocol."""
    return issubclass(kind, (str, int, float, dict, list, tuple)) or getattr(kind, "_is_protocol", False)


def _accept_nodes(value: Any, check: Callable[[Any], Any]) -> Any:
    """What a target makes is not known before it is called, nor what is still to be given; others see to those."""
    is_node = isinstance(value, Mapping) and "_target_" in value
    return value if is_node or (isinstance(value, str) and value == _MISSING) else check(value)


def _made_by_a_target(name: str) -> Any:
    def refuse(_: Any) -> Any:
        raise PydanticCustomError("node", _NODE + (f" that makes {name}" if name else ""))

    return Annotated[Any, pydantic.PlainValidator(refuse)]


def _required(key: str) -> str:
    return f"{key} is required: give {key}=..."


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
