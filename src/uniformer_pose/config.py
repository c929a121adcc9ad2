"""A composed configuration checked against the Python signatures that will receive it, before any work.

Hydra refuses an unknown key, but suggests adding it with ``+``, and then hands anything to anyone. Here the
signatures are the schema: that of the entry point's dataclass for the top level, and that of each ``_target_`` below
it, which is imported but not called. Pydantic judges the values, ranges in ``Annotated`` included; the few ranges of
other libraries stand in ``ranges``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
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
    """In ``Annotated[Node, Keys(...)]``: which keys of a config are more, or less, than its target's arguments.

    ``also_read``: types of keys that the entry point itself reads. ``set_by_program``: what the entry point gives the
    target, with the key that says so. ``ignored``: patterns of what this entry point does not read, with what to do
    instead; a file that several share may hold such a key, on the command line it is refused.
    """

    also_read: Mapping[str, Any] = field(default_factory=dict)
    set_by_program: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


class Signature(NamedTuple):
    """Types of the arguments of a function or class by name, and which of them must be given.

    ``takes_any_name``: it has ``**arguments``, or is not known.
    """

    arguments: dict[str, Any]
    required: Collection[str] = ()
    takes_any_name: bool = False


def check_config(
    config: Mapping[str, Any],
    schema: type,
    typed: Collection[str] = (),
    before_targets: Callable[[], object] = lambda: None,
) -> None:
    """Refuse a configuration with a key that nobody reads or a value of the wrong type or out of its range.

    ``config`` is plain: dicts, lists and scalars, interpolations resolved. ``schema`` is a dataclass: its fields are
    the keys of the top level, those without a default are required. Every mapping with a ``_target_``, at any depth, is
    checked against the signature of its target; with ``_partial_``, arguments may be absent. Arguments without an
    annotation, or with one that cannot be resolved, accept everything. ``typed`` are the keys that the user gave, which
    are not all of those in ``config``. ``before_targets`` is called when the targets are about to be imported.

    Raises ``InputError`` with the first problem, and the number of others. The top level comes first: its mistakes
    need not wait for the targets to be imported.
    """
    places, top = list(_places("", config)), _signature(schema)
    keys = {name: _keys(annotation) for name, annotation in top.arguments.items()}
    _refuse(
        [
            *_problems("", config, top, Keys(), "key"),
            *(_required(key) for key, value in places if isinstance(value, str) and value == _MISSING),
            *(problem for name in typed for problem in _ignored(name, keys)),
        ]
    )
    before_targets()
    nodes = [(key, value) for key, value in places[1:] if isinstance(value, Mapping) and "_target_" in value]
    _refuse([problem for key, node in nodes for problem in _node_problems(key, node, keys.get(key, Keys()))])


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value of ``key`` that an annotation does not allow."""
    _refuse([_required(key)] if value == _MISSING else [*_value_problems(key, value, annotation)])


def check_arguments(target: type, values: Mapping[str, Any], key: str = "") -> None:
    """Refuse values that the annotations of a class's arguments do not allow, for who makes one without a config."""
    arguments = _signature(target).arguments
    given = [(_join(key, name), value, arguments[name]) for name, value in values.items() if name in arguments]
    _refuse([problem for each in given for problem in _value_problems(*each)])


def check_changes(target: type, changes: Mapping[str, Any], key: str) -> None:
    """Refuse changes of some of a class's arguments, below ``key``: names that it does not have, values not allowed."""
    of = _signature(target)._replace(required=())
    _refuse([*_problems(key, changes, of, Keys(), f"argument of {target.__name__}")])


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


def _places(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value from here down, with its dotted key."""
    yield key, value
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from _places(_join(key, name), child)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _places(f"{key}[{index}]", child)


def _ignored(typed: str, keys: Mapping[str, Keys]) -> Iterator[str]:
    """Whether a key that the user gave is one that nothing reads."""
    top, *below = typed.split(".")
    for pattern, instead in keys[top].ignored.items() if top in keys and below else ():
        if re.fullmatch(pattern, below[0]):
            yield f"{typed}: not read here; {instead}"


def _node_problems(key: str, node: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    """Problems of the arguments of a target; of those nested in them only what its annotations say."""
    path = node["_target_"]
    try:
        signature = find_signature(path) if isinstance(path, str) else Signature({}, takes_any_name=True)
    except InputError as error:
        yield f"{_join(key, '_target_')}={path}: {error}"
    else:
        also = signature._replace(arguments={**signature.arguments, **_HYDRA_KEYS, **keys.also_read})
        yield from _problems(key, node, also, keys, f"argument of {path}")


def _problems(key: str, given: Mapping[Any, Any], of: Signature, keys: Keys, what: str) -> Iterator[str]:
    """Wrong, unknown and absent keys of one mapping."""
    for name, value in given.items():
        where = _join(key, name)
        if name in keys.set_by_program:
            instead = keys.set_by_program[name]
            yield f"{where}={_show(value)}: the program sets it; {f'give {instead}=...' if instead else 'leave it out'}"
        elif name in of.arguments:
            yield from _value_problems(where, value, of.arguments[name])
        elif not of.takes_any_name:
            special = str(name).startswith("_")
            names = {n for n in of.arguments if n.startswith("_") == special} - {*keys.set_by_program}
            yield f"{where}={_show(value)}: no such {what}; {did_you_mean(str(name), names)}"
    if not given.get("_partial_") and not given.get("_args_"):
        yield from (_required(_join(key, name)) for name in of.required if name not in {*given, *keys.set_by_program})


def _keys(annotation: Any) -> Keys:
    """What an annotation says of a mapping's keys."""
    return next((extra for extra in getattr(annotation, "__metadata__", ()) if isinstance(extra, Keys)), Keys())


def find_signature(path: str) -> Signature:
    """The arguments that can be given by name to what a dotted path names; InputError as ``find_target``."""
    return _signature(find_target(path))


@cache
def _signature(target: Callable[..., Any]) -> Signature:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # compiled
        return Signature({}, takes_any_name=True)
    function: Any = inspect.unwrap(getattr(target, "__init__") if isinstance(target, type) else target)  # noqa: B009
    names, arguments, required = getattr(function, "__globals__", {}), {}, []
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            annotation = _resolved(parameter.annotation, names)
            # `x: int = None` is an old way to write an optional argument.
            arguments[parameter.name] = annotation if parameter.default is not None else Union[annotation, None]  # noqa: UP007
            required += [parameter.name] if parameter.default is parameter.empty else []
    arguments |= {name: annotation for name, annotation in ranges_of(target).items() if name in arguments}
    return Signature(arguments, required, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters))


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
    found: Any = None
    names = path.split(".")
    if "" in names:
        raise InputError("name a class or a function, such as torch.optim.AdamW")
    for place, name in enumerate(names):
        owner, full_name = found, ".".join(names[: place + 1])
        try:
            found = getattr(owner, name) if hasattr(owner, name) else importlib.import_module(full_name)
        except ModuleNotFoundError as error:
            if not f"{full_name}.".startswith(f"{error.name}."):
                raise _broken(full_name, error) from error
            modules = pkgutil.iter_modules(None if owner is None else getattr(owner, "__path__", ()))
            options = [n for n in [*dir(owner), *(module.name for module in modules)] if not n.startswith("_")]
            guess = did_you_mean(name, options) if owner or nearest(name, options) else "is its folder in PYTHONPATH?"
            where = ".".join(names[:place]) or "this Python"
            raise InputError(f"there is no {name} in {where}; {guess}") from None
        except Exception as error:
            raise _broken(full_name, error) from error
    if isinstance(found, types.ModuleType) or not callable(found):
        raise InputError(f"this is of type {type(found).__name__}; name a class or a function")
    return found  # type: ignore[no-any-return]


def _broken(module: str, error: Exception) -> InputError:
    return InputError(f"importing {module} fails: {type(error).__name__}: {error}{place_in_users_code(error)}")


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
        errors = [error for place, error in found if place == innermost]
        for step in innermost:
            key, value = (f"{key}[{step}]" if isinstance(step, int) else _join(key, step)), value[step]
        words = dict.fromkeys(_WORDS.get(error["type"], error["msg"]) for error in errors)
        text = " or ".join(word.removeprefix("Value error, ").removeprefix("Input should be ") for word in words)
        told = "no such key; allowed:" if errors[0]["loc"][-1:] == ("[key]",) else "must be"
        yield f"{key}={_show(value)}: {told} {text}"


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
    kind: Any = origin or annotation
    checked: Any = Any
    if origin is Annotated:
        is_node = _NODE in arguments[1:]
        checked = _made_by_a_target("") if is_node else Annotated[_checkable(arguments[0]), *arguments[1:]]
    elif origin in {Union, types.UnionType}:
        checked = Union[tuple(map(_checkable, arguments))]  # noqa: UP007  # of objects
    elif origin is Literal or annotation in _PLAIN_TYPES or annotation is None:
        checked = annotation
    elif kind in _MAPPINGS:
        checked = dict[tuple(map(_checkable, arguments or (Any, Any)))]  # type: ignore[misc]
    elif kind is tuple and arguments and arguments[1:] != (Ellipsis,):
        checked = Annotated[tuple[tuple(map(_checkable, arguments))], pydantic.Strict(False)]  # type: ignore[misc]
    elif kind in _LISTS:
        checked = Annotated[list[_checkable(arguments[0]) if arguments else Any], pydantic.Strict(False)]  # type: ignore[misc]
    elif isinstance(kind, type) and not issubclass(kind, (str, int, float, dict, list, tuple)):
        checked = Any if getattr(kind, "_is_protocol", False) else _made_by_a_target(kind.__name__)
    return Annotated[checked, pydantic.WrapValidator(_accept_nodes)]


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
