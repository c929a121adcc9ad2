"""Dotted paths followed to where a class or function is defined, in source files, without importing them.

Packages, sub-modules, ``from x import y`` (inside ``if`` and ``try`` too), star imports and assignments of one name to
another are followed. The standard library is imported, which is quick. What cannot be known from source (compiled
modules, names made at run time) is ``UNKNOWN``.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean, nearest

Function = ast.FunctionDef | ast.AsyncFunctionDef
_IMPORTED = sys.stdlib_module_names | {"typing_extensions"}


class _Unknown(Enum):
    UNKNOWN = "unknown"


UNKNOWN = _Unknown.UNKNOWN
"""Something that is known only at run time."""


@dataclass(frozen=True)
class Module:
    """A module: the file with its code and the folders with its sub-modules; no file if it is compiled or a folder."""

    name: str
    file: Path | None
    folders: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Definition:
    """What a name in a module stands for: a class, a function, or the expression assigned to it."""

    module: Module
    name: str
    node: ast.ClassDef | Function | ast.expr
    owner: ast.ClassDef | None = None  # the class around a method


class Real(NamedTuple):
    """An object of the standard library."""

    value: Any


Found = Module | Definition | Real | _Unknown
_Binding = tuple[str, str] | ast.ClassDef | Function | ast.expr | None
"""An imported (module, name), where "" names the module itself; what is defined or assigned; None: not known."""


def find(path: str) -> Found:
    """What a dotted path names; InputError, with the nearest name, where it is certain that nothing has that name."""
    if "" in path.split("."):
        raise InputError("name a class or a function, such as torch.optim.AdamW")
    walked, *rest = path.split(".")
    found: Found = _top_level(walked)
    for name in rest:
        inside, walked = walked, f"{walked}.{name}"
        member = _member(found, name)
        if member is None:
            guess = did_you_mean(name, _public_names(found))
            is_package = isinstance(found, Module) and found.folders
            raise InputError(
                f"there is no {name} in {inside}; {guess}" if is_package else f"{inside} has no {name}; {guess}"
            )
        found = member
    return found


def _top_level(name: str) -> Found:
    if name in _IMPORTED:
        return Real(importlib.import_module(name))
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module made by hand
        return UNKNOWN
    if spec is None:
        guess = did_you_mean(name, [module.name for module in pkgutil.iter_modules()])
        raise InputError(f"there is no {name} in this Python; {guess}")
    folders = tuple(map(Path, spec.submodule_search_locations or ()))
    if spec.origin and spec.origin.endswith(".py"):
        return Module(name, Path(spec.origin), folders)
    return Module(name, None, folders) if folders else UNKNOWN


@cache
def _module(name: str) -> Found | None:
    """The module with this full name; None if there is none."""
    parent, _, last = name.rpartition(".")
    try:
        found = _module(parent) if parent else _top_level(name)
    except (InputError, ImportError):
        return None
    return _submodule(found, last) if parent and found is not None else found


def _submodule(package: Found, name: str) -> Found | None:
    if isinstance(package, Real):
        try:
            return Real(importlib.import_module(f"{package.value.__name__}.{name}"))
        except (ImportError, AttributeError):
            return None
    if not isinstance(package, Module):
        return UNKNOWN
    full_name = f"{package.name}.{name}"
    for folder in package.folders:
        if (folder / name / "__init__.py").is_file():
            return Module(full_name, folder / name / "__init__.py", (folder / name,))
        if (folder / f"{name}.py").is_file():
            return Module(full_name, folder / f"{name}.py", ())
        if any((folder / f"{name}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
            return UNKNOWN
        if (folder / name).is_dir():
            return Module(full_name, None, (folder / name,))
    return None


class _Contents(NamedTuple):
    """What the top level of a module binds, later bindings last."""

    bindings: dict[str, list[_Binding]]
    stars: list[str]  # modules of which everything is imported
    texts: frozenset[str]  # all strings in a module that makes names at run time: it lists them somewhere


@cache
def _contents(module: Module) -> _Contents | None:
    """None if the source cannot be parsed."""
    if module.file is None:
        return _Contents({}, [], frozenset())
    try:
        tree = ast.parse(module.file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    bindings: dict[str, list[_Binding]] = {}
    stars: list[str] = []
    for statement in _statements(tree.body):
        for name, binding in _bound(statement, module):
            if name == "*" and isinstance(binding, tuple):
                stars.append(binding[0])
            else:
                bindings.setdefault(name, []).append(binding)
    texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return _Contents(bindings, stars, frozenset(texts if "__getattr__" in bindings else ()))


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, those inside ``if``, ``try`` and ``with`` too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            handlers = (handler.body for handler in getattr(statement, "handlers", ()))
            parts = (getattr(statement, part, ()) for part in ("orelse", "finalbody"))
            for part in (statement.body, *handlers, *parts):
                yield from _statements(part)


def _bound(statement: ast.stmt, module: Module) -> Iterator[tuple[str, _Binding]]:
    """The names that a statement binds; the name is ``*`` if it imports everything from a module."""
    match statement:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            yield statement.name, statement
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                unpacked = target.elts if isinstance(target, ast.Tuple | ast.List) else []
                yield from ((name.id, None) for name in unpacked if isinstance(name, ast.Name))
                if isinstance(target, ast.Name):
                    yield target.id, value
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            yield name, value
        case ast.Import(names=aliases):
            for alias in aliases:
                first = alias.name.partition(".")[0]
                yield (alias.asname, (alias.name, "")) if alias.asname else (first, (first, ""))
        case ast.ImportFrom(names=aliases):
            source = _imported_from(module, statement)
            yield from ((alias.asname or alias.name, (source, alias.name)) for alias in aliases)
        case _:
            pass


def _imported_from(module: Module, statement: ast.ImportFrom) -> str:
    """The full name of the module that ``from ... import`` names, relative or not."""
    if not statement.level:
        return statement.module or ""
    is_package = module.file is not None and module.file.name == "__init__.py"
    parents = module.name.split(".")
    parents = parents[: len(parents) - statement.level + is_package]
    return ".".join([*parents, statement.module] if statement.module else parents)


def _member(found: Found, name: str) -> Found | None:
    """What ``found.name`` is; None where it is certain that there is no such thing."""
    match found:
        case Real(value):
            return Real(getattr(value, name)) if hasattr(value, name) else _submodule(found, name)
        case Module():
            return _member_of_module(found, name)
        case Definition(node=ast.ClassDef()):
            return _member_of_class(found, name)
    return UNKNOWN


@cache
def _member_of_module(module: Module, name: str) -> Found | None:
    contents = _contents(module)
    if contents is None:
        return UNKNOWN
    if name in contents.bindings:
        return _likeliest(_follow(module, name, binding) for binding in reversed(contents.bindings[name]))
    submodule = _submodule(module, name)
    if submodule is not None:
        return submodule
    origins = (_module(source) for source in contents.stars)
    through_stars = (_member(origin, name) for origin in origins if origin is not None)
    candidates = [found for found in through_stars if found is not None]
    if candidates:
        return _likeliest(candidates)
    # A module that makes names at run time lists them, or else a name near to none of its others may be one.
    is_made = "__getattr__" in contents.bindings and (
        name in contents.texts or nearest(name, _public_names(module)) is None
    )
    return UNKNOWN if is_made else None


def _likeliest(candidates: Iterable[Found]) -> Found:
    """Of several meanings (``try: import ...``, overloads): a definition, the unknown, or else the value assigned."""

    def rank(found: Found) -> int:
        if found is UNKNOWN:
            return 1
        return 2 if isinstance(found, Definition) and isinstance(found.node, ast.expr) else 0

    return min(candidates, key=rank)


def _follow(module: Module, name: str, binding: _Binding) -> Found:
    """What a binding stands for, through imports and assignments of one name to another."""
    match binding:
        case (source, imported):
            origin = _module(source)
            if origin is None:  # not installed
                return UNKNOWN
            if not imported:
                return origin
            if origin == module:  # `from . import x` in a package
                return _submodule(module, imported) or UNKNOWN
            return _member(origin, imported) or UNKNOWN
        case ast.Name(id=other) if other == name:
            return UNKNOWN
        case ast.Name() | ast.Attribute():
            return named(module, binding)
        case ast.AST():
            return Definition(module, name, binding)
    return UNKNOWN


def named(module: Module, node: ast.expr) -> Found:
    """What a name, dotted or not, stands for in a module."""
    match node:
        case ast.Attribute(value=owner, attr=name):
            return _member(named(module, owner), name) or UNKNOWN
        case ast.Name(id=name):
            found = _member_of_module(module, name)
            if found is None and hasattr(builtins, name):
                return Real(getattr(builtins, name))
            return found or UNKNOWN
    return UNKNOWN


def _public_names(found: Found) -> set[str]:
    names: Iterable[str] = ()
    match found:
        case Real(value):
            names = dir(value)
        case Definition(module=module, node=ast.ClassDef(body=body)):
            names = (name for statement in body for name, _ in _bound(statement, module))
        case Module(folders=folders):
            contents = _contents(found)
            submodules = (module.name for module in pkgutil.iter_modules(map(str, folders)))
            names = {*(contents.bindings if contents else ()), *submodules}
    return {name for name in names if not name.startswith("_")}


def lineage_of(found: Found) -> Iterator[Found]:
    """A class and its bases, depth first."""
    yield found
    if isinstance(found, Definition) and isinstance(found.node, ast.ClassDef):
        for base in found.node.bases:
            yield from lineage_of(named(found.module, base.value if isinstance(base, ast.Subscript) else base))


def own_member(owner: Definition, name: str) -> _Binding:
    """What a class itself binds to a name in its body, its bases left aside; None if nothing."""
    body = owner.node.body if isinstance(owner.node, ast.ClassDef) else []
    bound = [b for statement in _statements(body) for own, b in _bound(statement, owner.module) if own == name]
    return bound[-1] if bound else None


def _member_of_class(found: Definition, name: str) -> Found | None:
    for owner in lineage_of(found):
        if isinstance(owner, Definition) and isinstance(owner.node, ast.ClassDef):
            member = own_member(owner, name)
            if isinstance(member, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                return Definition(owner.module, name, member, owner=owner.node)
            if member is not None:
                return UNKNOWN
        elif not isinstance(owner, Real) or hasattr(owner.value, name):
            return UNKNOWN
    return None
