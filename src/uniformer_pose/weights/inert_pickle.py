"""What lies beside the weights in other people's files, read without importing or running any of it.

MMEngine keeps loss histories beside the weights, DeiT's training script an ``argparse.Namespace``, many a project its
config object. ``weights_only`` loading stops at each of them. Here every such class is known by name alone: its objects
become empty shells or plain containers, whatever the class would do, so the tensors can be had and nothing runs. A name
that is not listed stays unknown to torch's unpickler, which then refuses the file.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Global = Callable[..., Any] | tuple[Callable[..., Any], str]
"""What a pickle may refer to, with its name there where that is another: as ``safe_globals`` of torch takes it."""

# Magic number, protocol version, system information and the saved object itself: the pickles before the raw numbers.
_PICKLES_OF_A_LEGACY_FILE = 4
_MODERN = {"__builtin__": "builtins", "copy_reg": "copyreg"}

# Dict-like classes. Their pickled items are set one by one, which torch's unpickler does for three types only.
_MAPPINGS = re.compile(
    r"collections\.defaultdict|addict\.(?:addict\.)?Dict|easydict\.EasyDict|(?:fvcore\.common|yacs)\.config\.CfgNode"
    r"|(?:lightning\.fabric|lightning_fabric|pytorch_lightning)\.utilities\.\w+\.AttributeDict"
    r"|(?:mmcv\.utils|mmengine\.config)\.config\.ConfigDict"
)
# Builtin types, and classes (a capital letter) of packages whose objects are settings, records or counters when found
# beside weights.
_OBJECTS = re.compile(
    r"(?:mmengine|mmcv|mmpose|mmcls|mmpretrain|mmdet|omegaconf|ml_collections|timm|yacs)(?:\.\w+)*\.[A-Z]\w*"
    r"|builtins\.(?:object|dict|list|tuple|int|float|complex|str|bool|bytes|bytearray|frozenset|range|slice)"
    r"|pathlib(?:\._local)?\.(?:Pure)?(?:Posix|Windows)?Path"
    r"|datetime\.(?:date|datetime|time|timedelta|timezone)"
    r"|argparse\.Namespace|types\.SimpleNamespace|typing\.Any|uuid\.UUID|decimal\.Decimal|fractions\.Fraction"
    r"|torch\.torch_version\.TorchVersion"
)


class _Shell:
    """An object of a foreign class without anything in it; whatever is done to build one leaves it as it is."""

    def __new__(cls, *_arguments: Any) -> _Shell:
        return super().__new__(cls)

    def __init__(self, *_arguments: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


class _Mapping:
    """Stands for a dict-like class; an object of it is an OrderedDict, which torch's unpickler fills itself."""

    def __new__(cls, *_arguments: Any) -> Any:
        return OrderedDict()


def _sequence(*_arguments: Any) -> list[Any]:
    return []


def _attribute(owner: Any, _name: str) -> _Shell:
    """Stands for ``getattr``, with which pickle names a method: inert, and only of what is inert itself."""
    if owner is _Shell or isinstance(owner, _Shell):
        return _Shell()
    raise pickle.UnpicklingError("asks for an attribute of something that is not inert")


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.deque": _sequence,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _Shell,  # with which old pickles make objects
}


def inert_globals(names: set[str]) -> list[Global]:
    """Stand-ins for those ``names`` (``module.name``) that are known to be harmless; the rest stays refused."""
    stand_ins: list[Global] = []
    for name in sorted(names):
        module, _, attribute = name.rpartition(".")
        # Pickle protocol 2 writes the names of Python 2, which torch's unpickler translates before it looks them up.
        modern = f"{_MODERN.get(module, module)}.{'int' if attribute == 'long' else attribute}"
        shell = _Mapping if _MAPPINGS.fullmatch(modern) else _Shell if _OBJECTS.fullmatch(modern) else None
        stand_in: Callable[..., Any] | None = shell or _FUNCTIONS.get(modern)
        if stand_in is not None:
            stand_ins += [(stand_in, spelling) for spelling in {name, modern}]
    return [*stand_ins, *_numpy_arrays()]


def _numpy_arrays() -> list[Global]:
    """What rebuilds numpy's arrays and scalars, which are data: MMPose keeps its dataset's sigmas and colours so."""
    numbers = [np.dtype(name) for name in ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")]
    rebuild_array: Any = np.zeros(1).__reduce__()[0]
    rebuild_scalar: Any = np.float64().__reduce__()[0]
    numpy_1 = "numpy.core.multiarray"  # where it had them
    by_old_names = [(rebuild_array, f"{numpy_1}._reconstruct"), (rebuild_scalar, f"{numpy_1}.scalar")]
    return [np.ndarray, np.dtype, *map(type, numbers), rebuild_array, rebuild_scalar, *by_old_names]


def global_names(path: Path) -> set[str]:
    """``module.name`` of everything that the pickles of a ``torch.save`` file refer to, found without running them.

    Raises ValueError, or whatever ``zipfile`` raises, for a file that is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError(f"{len(pickles)} pickles in the archive instead of 1")
            with archive.open(pickles[0]) as stream:
                return _names_in(stream)  # type: ignore[arg-type]
    with path.open("rb") as stream:
        return {name for _ in range(_PICKLES_OF_A_LEGACY_FILE) for name in _names_in(stream)}


def _names_in(stream: BinaryIO) -> set[str]:
    opcodes = pickletools.genops(stream)
    return {str(argument).replace(" ", ".", 1) for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
