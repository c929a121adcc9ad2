"""Dotted paths of a configuration to the classes and functions that they name."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean, nearest

_OURS = str(Path(__file__).parent)


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


def place_in_users_code(error: BaseException) -> str:
    """`` (file, line)`` of an error that came out of the user's own code; "" if it came out of packages alone."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_installed(frame.filename)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def is_refusal_of_library(error: BaseException) -> bool:
    """Whether another library's code refuses the arguments that it was given."""
    refused = isinstance(error, TypeError | ValueError) or type(error).__name__ == "MisconfigurationException"
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return refused and all(_is_installed(file) and not file.startswith(_OURS) for file in files)


def _is_installed(file: str) -> bool:
    return any(part in file for part in ("<frozen", "site-packages", "dist-packages", _OURS, importlib.__path__[0]))


def _member(found: Any, walked: list[str], name: str) -> Any:
    """What ``found.name`` is, an attribute or a sub-module; ``found`` is None at the beginning of a path."""
    inside, full_name = ".".join(walked), ".".join([*walked, name])
    try:
        if hasattr(found, name):
            return getattr(found, name)
        if found is None or isinstance(found, types.ModuleType):
            return importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{full_name}.".startswith(f"{error.name}."):
            raise _not_importable(full_name, error) from error
    except Exception as error:
        raise _not_importable(full_name, error) from error
    if found is None:
        alike = nearest(name, [module.name for module in pkgutil.iter_modules()])
        advice = "is its folder in PYTHONPATH?" if alike is None else f"did you mean {alike}?"
        raise InputError(f"there is no {name} in this Python; {advice}")
    names = [*dir(found), *(module.name for module in pkgutil.iter_modules(getattr(found, "__path__", None) or []))]
    guess = did_you_mean(name, [name for name in names if not name.startswith("_")])
    raise InputError(f"there is no {name} in {inside}; {guess}")


def _not_importable(module: str, error: Exception) -> InputError:
    return InputError(f"importing {module} fails: {type(error).__name__}: {error}{place_in_users_code(error)}")
