"""Signatures of functions and classes read from their source files, without importing them.

Importing torch and Lightning takes seconds; parsing the few files that a signature depends on takes a tenth of one. An
annotation becomes an object of ``typing``; a class that is not in the standard library is represented in it by an empty
class of the same name. What cannot be known from source takes any arguments and is of any type.
"""

from __future__ import annotations

import ast
import types
from functools import cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, Union

from uniformer_pose.errors import InputError
from uniformer_pose.static_names import (
    UNKNOWN,
    Definition,
    Found,
    Function,
    Module,
    Real,
    find,
    lineage_of,
    named,
    own_member,
)

_PLAIN_DATA = (str, int, float, dict, list, tuple)
_ATTRS_DECORATORS = {"define", "frozen", "mutable", "attrs", "s"}


class Argument(NamedTuple):
    """One argument that can be given by name: its annotation and default, as they stand in its module."""

    module: Module
    annotation: ast.expr | None
    default: ast.expr | None

    @property
    def type(self) -> Any:
        """The annotation as an object of ``typing``; ``Any`` where there is none or it cannot be known."""
        try:
            return Any if self.annotation is None else _type_of(self.module, self.annotation)
        except RecursionError:  # a type that is defined by itself, such as JSON values
            return Any

    @property
    def may_be_none(self) -> bool:
        """Whether the default is None: ``x: int = None`` is an old way to write an optional argument."""
        return isinstance(self.default, ast.Constant) and self.default.value is None


class Signature(NamedTuple):
    """Arguments of a function or class by name; ``takes_any_name`` if it has ``**arguments`` or is not known."""

    arguments: dict[str, Argument]
    takes_any_name: bool


_ANYTHING = Signature({}, takes_any_name=True)


def find_signature(path: str) -> Signature:
    """The signature of the class or function that a dotted path names.

    Raises InputError, with the nearest name, where nothing has that name, or where it names no class or function.
    """
    try:
        found = find(path)
        if isinstance(found, Definition) and isinstance(found.node, ast.Constant):
            found = Real(found.node.value)
        if isinstance(found, Module) or (isinstance(found, Real) and not callable(found.value)):
            kind = "module" if isinstance(found, Module) else type(found.value).__name__
            raise InputError(f"this is of type {kind}; name a class or a function")
        return _signature(found)
    except RecursionError:  # modules that import everything from each other
        return _ANYTHING


def _signature(found: Found) -> Signature:
    match found:
        case Definition(module=module, node=(ast.FunctionDef() | ast.AsyncFunctionDef()) as node, owner=owner):
            is_classmethod = owner is not None and "classmethod" in _decorators(node)
            return _function_signature(module, node, skip_first=is_classmethod)
        case Definition(node=ast.ClassDef()):
            return _class_signature(found)
    return _ANYTHING


def _class_signature(found: Definition) -> Signature:
    """The signature of the first class that has a constructor, of the class itself and its bases in order."""
    lineage = list(lineage_of(found))
    for position, owner in enumerate(lineage):
        if isinstance(owner, Real):
            if not _has_plain_constructor(owner.value):
                return _ANYTHING
            continue
        if not isinstance(owner, Definition) or not isinstance(owner.node, ast.ClassDef):
            return _ANYTHING
        for constructor in ("__init__", "__new__"):
            method = own_member(owner, constructor)
            if isinstance(method, ast.FunctionDef):
                return _function_signature(owner.module, method, skip_first=True)
        if _decorators(owner.node) & _ATTRS_DECORATORS:
            return _ANYTHING
        if _makes_fields(owner):
            return _dataclass_signature(lineage[position:])
    return Signature({}, takes_any_name=False)


def _has_plain_constructor(value: Any) -> bool:
    if value in (Generic, Protocol):
        return True
    own = [getattr(value, name, None) == getattr(object, name) for name in ("__init__", "__new__")]
    return isinstance(value, type) and all(own)


def _function_signature(module: Module, node: Function, *, skip_first: bool) -> Signature:
    """A decorator is taken to keep the signature, as ``functools.wraps`` does."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    pairs = list(zip(positional, defaults, strict=True))[len(given.posonlyargs) or int(skip_first) :]
    pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
    arguments = {argument.arg: Argument(module, argument.annotation, default) for argument, default in pairs}
    return Signature(arguments, takes_any_name=given.kwarg is not None)


def _dataclass_signature(lineage: list[Found]) -> Signature:
    """The fields of a dataclass or named tuple, whose bases come after it in ``lineage``."""
    arguments: dict[str, Argument] = {}
    for owner in reversed(lineage):
        if isinstance(owner, Definition) and isinstance(owner.node, ast.ClassDef) and _makes_fields(owner):
            for statement in owner.node.body:
                match statement:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=default):
                        if "ClassVar" not in ast.unparse(annotation) and not _is_left_out(default):
                            arguments[name] = Argument(owner.module, annotation, default)
    return Signature(arguments, takes_any_name=UNKNOWN in lineage)


def _makes_fields(owner: Definition) -> bool:
    if not isinstance(owner.node, ast.ClassDef):
        return False
    return "dataclass" in _decorators(owner.node) or "NamedTuple" in map(_last_name, owner.node.bases)


def _is_left_out(default: ast.expr | None) -> bool:
    """Whether it is ``field(init=False)``."""
    return isinstance(default, ast.Call) and any(
        keyword.arg == "init" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        for keyword in default.keywords
    )


def _decorators(node: ast.ClassDef | Function) -> set[str]:
    return {_last_name(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list}


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _type_of(module: Module, node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return types.NoneType
        case ast.Constant(value=str(text)):
            try:
                return _type_of(module, ast.parse(text, mode="eval").body)
            except SyntaxError:
                return Any
        case ast.Constant(value=value) if value is ...:
            return ...
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_type_of(module, left), _type_of(module, right)]  # noqa: UP007  # of objects
        case ast.List(elts=elements):  # the arguments of a Callable
            return [_type_of(module, element) for element in elements]
        case ast.Subscript(value=value, slice=inner):
            return _subscripted(
                module, _type_of(module, value), inner.elts if isinstance(inner, ast.Tuple) else [inner]
            )
        case ast.Name() | ast.Attribute():
            return _type_of_found(named(module, node))
    return Any


def _subscripted(module: Module, origin: Any, arguments: list[ast.expr]) -> Any:
    if origin is Annotated:
        return _type_of(module, arguments[0])
    try:
        if origin is Literal:
            return Literal[tuple(ast.literal_eval(argument) for argument in arguments)]
        inner = tuple(_type_of(module, argument) for argument in arguments)
        return origin[inner if len(inner) > 1 else inner[0]]
    except ValueError:  # a literal that is no constant
        return Any
    except TypeError:  # the stand-in of a generic class
        return origin


def _type_of_found(found: Found) -> Any:
    match found:
        case Real(value):
            return value
        case Definition(node=ast.ClassDef()):
            return _stand_in(found)
        case Definition(module=module, node=ast.expr() as node):
            return _type_of(module, node)
    return Any


@cache
def _stand_in(found: Definition) -> Any:
    """An empty class of the same name; ``Any`` for one that plain data can be, such as a TypedDict or a kind of str."""
    for base in lineage_of(found):
        if isinstance(base, Real):
            is_class = isinstance(base.value, type) and base.value is not Protocol
            if not is_class or issubclass(base.value, _PLAIN_DATA):
                return Any
    return type(found.name, (), {})
