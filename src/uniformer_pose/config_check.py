"""A composed configuration checked against the Python signatures that will receive it, before any work.

Hydra refuses an unknown key, but suggests adding it with ``+``, and then hands anything to anyone. Here the
signatures are the schema: the annotated fields of the entry point's dataclass for the top level, and the
arguments of each ``_target_`` below it. Targets are imported, never called.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import sys
import types
import typing
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union

from uniformer_pose.errors import InputError

_NODE = "a node with a _target_"
Node = Annotated[dict[str, Any], _NODE]
"""Annotation of a field whose value must be a mapping with a ``_target_``."""

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
_LISTED_OPTIONS = 50
_SHOWN_CHARACTERS = 80


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

    Raises ``InputError`` with the first problem, and the number of others. The targets are looked at only when the
    top level is in order: importing them takes seconds, and a misspelt key should not have to wait.
    """
    problems = [*_dataclass_problems("", config, schema)] or [*_node_problems("", config)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """The option spelt most like ``name`` as a question; where none is near, the options there are."""
    options = sorted(set(options))
    by_lower_case = {option.lower(): option for option in reversed(options)}  # AdamW rather than the module adamw
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    longer = [option for option in by_lower_case if option.startswith(name.lower())]
    if nearest or longer:
        return f"did you mean {by_lower_case[(nearest or longer)[0]]}?"
    if not options:
        return "nothing is allowed here"
    more = f", ... ({len(options) - _LISTED_OPTIONS} more)" if len(options) > _LISTED_OPTIONS else ""
    return f"allowed: {', '.join(options[:_LISTED_OPTIONS])}{more}"


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
    for name, field in fields.items():
        defaults = {field.default, field.default_factory} - {dataclasses.MISSING}
        if name not in config and not defaults:
            yield _required(_join(key, name))


def _node_problems(key: str, value: Any) -> Iterator[str]:
    """Problems of every node with a ``_target_``, and every value still to be given, from here down."""
    if isinstance(value, str) and value == _MISSING:
        yield _required(key)
    elif isinstance(value, Mapping):
        if "_target_" in value:
            yield from _argument_problems(key, value)
        for name, child in value.items():
            yield from _node_problems(_join(key, name), child)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _node_problems(f"{key}[{index}]", child)


def _argument_problems(key: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Problems of one node's own arguments; of those nested in it only what its target's annotations say."""
    for name in node.keys() & _HYDRA_KEYS.keys():
        yield from _value_problems(_join(key, name), node[name], _HYDRA_KEYS[name])
    path = node["_target_"]
    if not isinstance(path, str) or path == _MISSING:
        return
    try:
        target = _find_target(path)
    except InputError as error:
        yield f"{_join(key, '_target_')}={path}: {error}"
        return
    parameters = _parameters(target)
    if parameters is None:
        return
    takes_any_name = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    by_name = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    }
    for name, value in ((str(name), value) for name, value in node.items() if name not in _HYDRA_KEYS):
        if name in by_name:
            # `x: int = None` is an old way to write an optional argument.
            if value is not None or by_name[name].default is not None:
                yield from _value_problems(_join(key, name), value, by_name[name].annotation)
        elif not takes_any_name:
            nearest = did_you_mean(name, _HYDRA_KEYS if name.startswith("_") else by_name)
            yield f"{_join(key, name)}={_show(value)}: {path} has no argument {name}; {nearest}"


def _find_target(path: str) -> Any:
    """The class or function that a dotted path names; its modules are imported on the way."""
    first, *rest = path.split(".")
    walked, found = first, _import(first)
    for name in rest:
        inside, walked = walked, f"{walked}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError:
            if not hasattr(found, "__path__"):  # no package, so no module of it can be waiting to be imported
                raise InputError(f"{inside} has no {name}; {did_you_mean(name, _public(found))}") from None
            found = _import(walked)
    if not callable(found):
        raise InputError(f"this is of type {type(found).__name__}; name a class or a function")
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # importing runs foreign code, which may fail in any way
        if not (isinstance(error, ModuleNotFoundError) and error.name == name):
            reason = " ".join(str(error).split())
            raise InputError(f"importing {name} failed ({type(error).__name__}: {reason})") from error
        package, _, last = name.rpartition(".")
        parent = sys.modules.get(package)
        modules = [module.name for module in pkgutil.iter_modules(parent.__path__ if parent else None)]
        nearest = did_you_mean(last, modules + (_public(parent) if parent else []))
        raise InputError(f"there is no {last} in {package or 'this Python'}; {nearest}") from error


def _public(container: Any) -> list[str]:
    return [name for name in dir(container) if not name.startswith("_")]


def _parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    """A target's parameters, annotations as objects, ``Any`` where there is none; None if not to be known."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # some classes written in C
        return None
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    names = getattr(function, "__globals__", {})
    return {name: p.replace(annotation=_resolve(p.annotation, names)) for name, p in parameters.items()}


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    """An annotation as an object; ``Any`` where its names exist only for the type checker."""
    if annotation is inspect.Parameter.empty:
        return Any
    # One at a time: get_type_hints on a whole function gives up on all for one that does not resolve.
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["it"]
    except Exception:  # evaluating a string that was never meant to run may fail in any way
        return Any


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
