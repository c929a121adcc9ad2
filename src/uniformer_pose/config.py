"""A composed configuration checked against the Python signatures that will receive it, before any work.

Hydra refuses an unknown key, but suggests adding it with ``+``, and then hands anything to anyone. Here the
signatures are the schema: the annotated fields of the entry point's dataclass for the top level, and the arguments of
each ``_target_`` below it, which is imported but not called. Pydantic judges the values, ranges in ``Annotated``
included; the few ranges of other libraries stand in ``ranges``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import types
import typing
from collections import abc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union

import pydantic
from pydantic_core import PydanticCustomError

from uniformer_pose.errors import InputError, place_in_users_code
from uniformer_pose.nearest_name import did_you_mean, nearest
from uniformer_pose.ranges import ranges_of

_NODE = "a config with a _target_"
Node = Annotated[dict[str, Any], _NODE]
"""Annotation of a field whose value must be a mapping with a ``_target_``."""


@dataclass(frozen=True, eq=False)
class Keys:
    """In ``Annotated[Node, Keys(...)]``: which keys of a mapping are more, or less, than its target's arguments.

    ``also_read``: types of keys that the entry point itself reads, beside the target's. ``set_by_program``: what the
    entry point itself gives the target; refused with these words, which say what to do instead. ``ignored``: what this
    entry point does not read; a file that several share may hold it, on the command line it is refused, also with what
    to do instead. ``some_of``: the path of a target of which a mapping without ``_target_`` holds some arguments, null
    where one is not given.
    """

    also_read: Mapping[str, Any] = field(default_factory=dict)
    set_by_program: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    some_of: str | None = None


class Argument(NamedTuple):
    """Annotation of an argument or a field, and whether it can be left out or be null."""

    type: Any
    is_required: bool
    is_none_by_default: bool = False


class Signature(NamedTuple):
    """Arguments of a function or class by name; ``takes_any_name`` if it has ``**arguments`` or is not known."""

    arguments: dict[str, Argument]
    takes_any_name: bool = False


def check_config(
    config: Mapping[str, Any],
    schema: type,
    typed: Collection[str] = (),
    before_targets: Callable[[], object] = lambda: None,
) -> None:
    """Refuse a configuration with a key that nobody reads or a value of the wrong type or out of its range.

    ``config`` is plain: dicts, lists and scalars, interpolations resolved. ``schema`` is a dataclass: its
    fields are the keys of the top level, those without a default are required, and a field annotated with
    another dataclass describes a plain group. Every mapping with a ``_target_``, at any depth, is checked
    against the signature of its target; arguments that are absent may still be added by the entry point.
    Arguments without an annotation, or with one that cannot be resolved, accept everything. ``typed`` are the keys that
    the user gave, which are not all of those in ``config``. ``before_targets`` is called when the targets are about to
    be imported.

    Raises ``InputError`` with the first problem, and the number of others. The top level comes first: its mistakes
    need not wait for the targets to be imported.
    """
    places = list(_places("", config, schema))
    _refuse(
        [
            *(problem for place in places for problem in _group_problems(*place)),
            *(_required(key) for key, value, _ in places if isinstance(value, str) and value == _MISSING),
            *(problem for key, _, hint in places for problem in _ignored(key, _keys(hint), typed)),
        ]
    )
    before_targets()
    _refuse([problem for place in places for problem in _target_problems(*place)])


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value of ``key`` that an annotation does not allow."""
    _refuse([*_value_problems(key, value, annotation)])


def check_arguments(target: type, values: Mapping[str, Any], key: str = "") -> None:
    """Refuse values that the annotations of a class's arguments do not allow, for who makes one without a config."""
    arguments = find_signature(f"{target.__module__}.{target.__qualname__}").arguments
    given = [(_join(key, name), value, arguments[name].type) for name, value in values.items() if name in arguments]
    _refuse([problem for each in given for problem in _value_problems(*each)])


_MISSING = "???"  # how OmegaConf writes a value that the user has to give
_HYDRA_KEYS: dict[str, Any] = {
    "_target_": str,
    "_partial_": bool,
    "_recursive_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_args_": list,
}


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)


def _places(key: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every value from here down, with its dotted key and what annotates it: of a plain group its dataclass."""
    yield key, value, hint
    if isinstance(value, Mapping):
        group = None if "_target_" in value else _group_in(hint)
        hints = group.arguments if group else {}
        for name, child in value.items():
            yield from _places(_join(key, name), child, hints[name].type if name in hints else None)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _places(f"{key}[{index}]", child, None)


def _ignored(key: str, keys: Keys, typed: Collection[str]) -> Iterator[str]:
    """The keys that the user gave and that nothing reads."""
    for name, instead in keys.ignored.items():
        where = _join(key, name)
        yield from (f"{given}: not read here; {instead}" for given in typed if f"{given}.".startswith(f"{where}."))


def _group_problems(key: str, value: Any, hint: Any) -> Iterator[str]:
    """Problems of a plain group, whose keys are the fields of a dataclass."""
    group = _group_in(hint)
    if group and isinstance(value, Mapping) and "_target_" not in value:
        yield from _key_problems(key, value, group, Keys(), "key")


def _target_problems(key: str, value: Any, hint: Any) -> Iterator[str]:
    """Problems of the arguments of a target; of those nested in them only what its annotations say."""
    keys = _keys(hint)
    if isinstance(value, Mapping) and "_target_" not in value and keys.some_of:
        given = {name: child for name, child in value.items() if child is not None}
        value = {"_target_": keys.some_of, "_partial_": True, **given}
    if not isinstance(value, Mapping) or "_target_" not in value:
        return
    path = value["_target_"]
    try:
        signature = find_signature(path) if isinstance(path, str) else Signature({}, takes_any_name=True)
    except InputError as error:
        yield f"{_join(key, '_target_')}={path}: {error}"
    else:
        yield from _key_problems(key, value, signature, keys, f"argument of {path}")


def _key_problems(key: str, value: Mapping[Any, Any], of: Signature, keys: Keys, what: str) -> Iterator[str]:
    """Wrong, unknown and absent keys of one mapping."""
    others = {**_HYDRA_KEYS, **keys.also_read}
    for name, child in value.items():
        where = _join(key, name)
        if name in keys.set_by_program:
            yield f"{where}={_show(child)}: the program sets it; {keys.set_by_program[name]}"
        elif name in others and what != "key":
            yield from _value_problems(where, child, others[name])
        elif name in of.arguments:
            argument = of.arguments[name]
            is_group = what == "key" and isinstance(child, Mapping) and _group_in(argument.type) is not None
            if not is_group and not (child is None and argument.is_none_by_default):
                yield from _value_problems(where, child, argument.type)
        elif not of.takes_any_name:
            names = {*of.arguments, *keys.also_read} - {*keys.set_by_program}
            guess = did_you_mean(str(name), _HYDRA_KEYS if str(name).startswith("_") else names)
            yield f"{where}={_show(child)}: no such {what}; {guess}"
    if not value.get("_partial_") and not value.get("_args_"):
        given = {*value, *keys.set_by_program}
        absent = (name for name, argument in of.arguments.items() if argument.is_required and name not in given)
        yield from (_required(_join(key, name)) for name in absent)


@cache
def _group_in(hint: Any) -> Signature | None:
    """The fields of the dataclass in an annotation, if there is one."""
    kinds = (hint, *typing.get_args(hint))
    group = next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)
    if group is None:
        return None
    hints = typing.get_type_hints(group, include_extras=True)
    return Signature(
        {
            each.name: Argument(hints[each.name], each.default is each.default_factory is dataclasses.MISSING)
            for each in dataclasses.fields(group)
        }
    )


def _keys(hint: Any) -> Keys:
    """What an annotation says of a mapping's keys; also where null is allowed beside it."""
    members = typing.get_args(hint) if typing.get_origin(hint) in {Union, types.UnionType} else [hint]
    found = (extra for kind in members for extra in getattr(kind, "__metadata__", ()) if isinstance(extra, Keys))
    return next(found, Keys())


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
    names, ranges = getattr(function, "__globals__", {}), ranges_of(target)
    arguments = {
        parameter.name: Argument(
            ranges.get(parameter.name) or _resolved(parameter.annotation, names),
            parameter.default is parameter.empty,
            parameter.default is None,  # `x: int = None` is an old way to write an optional argument
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


def find_target(path: str) -> Callable[..., Any]:
    """Import the class or function that a dotted path names.

    Raises InputError: with the nearest name where nothing has that name, with file and line where a module that is
    there cannot be imported.
    """
    if "" in path.split("."):
        raise InputError("name a class or a function, such as torch.optim.AdamW")
    found: Any = None
    walked: list[str] = []
    for name in path.split("."):
        found = _member(found, walked, name)
        walked.append(name)
    if isinstance(found, types.ModuleType) or not callable(found):
        raise InputError(f"this is of type {type(found).__name__}; name a class or a function")
    return found  # type: ignore[no-any-return]


def _member(found: Any, walked: list[str], name: str) -> Any:
    """What ``found.name`` is, an attribute or a sub-module; ``found`` is None at the beginning of a path."""
    full_name = ".".join([*walked, name])
    try:
        if hasattr(found, name):
            return getattr(found, name)
        if found is None or isinstance(found, types.ModuleType):
            return importlib.import_module(full_name)
    except Exception as error:
        is_absent = isinstance(error, ModuleNotFoundError) and f"{full_name}.".startswith(f"{error.name}.")
        if not is_absent:
            line = f"importing {full_name} fails: {type(error).__name__}: {error}{place_in_users_code(error)}"
            raise InputError(line) from error
    if found is None:
        alike = nearest(name, [module.name for module in pkgutil.iter_modules()])
        advice = "is its folder in PYTHONPATH?" if alike is None else f"did you mean {alike}?"
        raise InputError(f"there is no {name} in this Python; {advice}")
    names = [*dir(found), *(module.name for module in pkgutil.iter_modules(getattr(found, "__path__", None) or []))]
    guess = did_you_mean(name, [name for name in names if not name.startswith("_")])
    raise InputError(f"there is no {name} in {'.'.join(walked)}; {guess}")


_WORDS = {
    "none_required": "null",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "missing": "a longer list",
    "too_long": "a shorter list",
}
_PLAIN_TYPES = (Any, int, float, str, bool, types.NoneType, object)
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}
_LISTS = {list, tuple, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable}
_SHOWN_CHARACTERS = 80


def _value_problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    """What is wrong with a value: the innermost part that its annotation does not allow.

    A list stands for any sequence and for a tuple, since YAML has no other; an int for a float. Nothing else
    is converted, because Hydra converts nothing either.
    """
    try:
        _adapter(annotation).validate_python(value)
    except pydantic.ValidationError as invalid:
        found = [(_place(value, error["loc"]), error) for error in invalid.errors(include_url=False)]
        innermost = max((place for place, _ in found), key=len)
        words = dict.fromkeys(_WORDS.get(error["type"], error["msg"]) for place, error in found if place == innermost)
        for step in innermost:
            key, value = (f"{key}[{step}]" if isinstance(step, int) else _join(key, step)), value[step]
        text = " or ".join(word.removeprefix("Value error, ").removeprefix("Input should be ") for word in words)
        yield f"{key}={_show(value)}: must be {text}"


@cache
def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(_checkable(annotation), config=pydantic.ConfigDict(strict=True))
    except (pydantic.PydanticUserError, RecursionError):  # a type that pydantic has no schema of
        return pydantic.TypeAdapter(Any)


def _place(value: Any, steps: Iterable[int | str]) -> tuple[int | str, ...]:
    """The steps of pydantic's that lead into the value itself; the others name members of a union."""
    place: list[int | str] = []
    for step in steps:
        inside = range(len(value)) if isinstance(value, list | tuple) else value if isinstance(value, dict) else ()
        if step in inside:
            place.append(step)
            value = value[step]
    return tuple(place)


def _checkable(annotation: Any) -> Any:
    """An annotation as pydantic is to see it: at every place a node or ``???`` is accepted, a list is any sequence."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    kind = origin or annotation
    checked: Any = Any
    if origin is Annotated:
        inner = _checkable(arguments[0])
        checked = _made_by_a_target("") if _NODE in arguments[1:] else Annotated[(inner, *arguments[1:])]
    elif origin in {Union, types.UnionType}:
        checked = Union[tuple(map(_checkable, arguments))]  # noqa: UP007  # of objects
    elif origin is Literal or annotation in _PLAIN_TYPES or annotation is None:
        checked = annotation
    elif kind in _MAPPINGS:
        checked = dict[Any, _checkable(arguments[1]) if arguments else Any]  # type: ignore[misc]
    elif kind is tuple and arguments[1:] != (Ellipsis,):
        checked = Annotated[tuple[tuple(map(_checkable, arguments))] if arguments else list, pydantic.Strict(False)]  # type: ignore[misc]
    elif kind in _LISTS:
        checked = Annotated[list[_checkable(arguments[0]) if arguments else Any], pydantic.Strict(False)]  # type: ignore[misc]
    elif isinstance(kind, type) and not _may_be_plain(kind):
        checked = _made_by_a_target(kind.__name__)
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
