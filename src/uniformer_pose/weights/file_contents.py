"""A weight file -> what was saved in it, checked to be whole, and without running anything that it holds.

Three containers: the zip archive that ``torch.save`` writes, the file it wrote before version 1.6 (MMPose publishes
in it still), and safetensors with a JSON beside it. Which one is seen from the first bytes, not from the name.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.saved_model import RECORD_KEY
from uniformer_pose.weights.inert_pickle import global_names, inert_globals
from uniformer_pose.weights.zoo import digest_in_name

WEIGHTS_DIGEST_KEY = "weights_sha256"
"""Entry of the JSON beside a safetensors file, which has no checksums of its own."""

# A pickle of torch's magic number, which every file of the old format begins with.
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LARGEST_SAFETENSORS_HEADER = 100_000_000  # the format's own limit
# More bytes of tensors than the file has: made to exhaust memory. The slack is for alignment.
_SLACK_BYTES = 1_000_000
_OTHER_FILES = (
    (re.compile(rb"$"), "an empty file"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, to be replaced by its file with git lfs pull"),
    (re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE), "a web page, perhaps an error message saved in its place"),
)


@dataclass(frozen=True)
class FileContents:
    """What a weight file holds. ``contents`` is the saved object; of safetensors the tensors under ``state_dict``,
    beside what this project keeps in the JSON.

    ``sha256`` is that of the whole file. ``is_checked``: a checksum or a digest would have told a damaged file.
    """

    path: Path
    sha256: str
    is_checked: bool
    contents: dict[str, Any]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the name of a file before the messages of InputErrors that do not begin with it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def read_weight_file(path: str | Path) -> FileContents:
    """The contents of a weight file, tensors on the CPU.

    Raises InputError, naming the file, when it is missing, no weight file, cut short or damaged, or made of anything
    but tensors and plain data; foreign settings objects beside the weights are read as empty shells.
    """
    path = Path(path).expanduser()
    with naming(path):
        try:
            with path.open("rb") as stream:
                start = stream.read(4096)
                stream.seek(0)
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}); give a .ckpt, .pth or .safetensors file") from error
        if start.startswith(b"PK"):
            _check_archive(path)
            contents, is_checked = _read_pickled(path), True
        elif start.startswith(_OLD_TORCH):
            contents, is_checked = _read_pickled(path), sha256.startswith(digest_in_name(path.name) or "none")
        elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LARGEST_SAFETENSORS_HEADER:
            contents, is_checked = _read_safetensors(path, sha256)
        else:
            found = next((what for pattern, what in _OTHER_FILES if pattern.match(start)), "something else")
            raise InputError(f"not a weight file but {found}; give a .ckpt, .pth or .safetensors file")
        claimed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(contents))
        if claimed > (size := path.stat().st_size) + _SLACK_BYTES:
            raise InputError(f"claims {claimed} bytes of tensors in a file of {size}; no such file is loaded")
    return FileContents(path, sha256, is_checked, contents)


def _check_archive(path: Path) -> None:
    """Compare every byte with the archive's checksums: torch itself reads a file with a flipped bit without a word."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise InputError("a compressed zip archive, which torch.save never writes; it is not loaded")
            damaged = archive.testzip()
    except InputError:
        raise
    except Exception as error:  # zipfile raises nearly anything on a damaged file
        raise InputError(f"not a whole weight file ({one_line(error)}); copy or fetch it again") from error
    if damaged is not None:
        raise InputError(f"damaged at {damaged!r} (checksum); copy or fetch it again, or use an older one")


def _read_pickled(path: Path) -> dict[str, Any]:
    try:
        names = global_names(path)
        # An open file, because torch goes by the ending of a name.
        with torch.serialization.safe_globals(inert_globals(names)), path.open("rb") as stream:
            contents = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{blocked[1]}, which loading it would run" if blocked else "more than tensors and plain data"
        raise InputError(f"refused, because it holds {what}; give a file of tensors and plain values") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"not a whole weight file ({one_line(error)}); it may be cut short, so copy or fetch it again"
        ) from error
    if not isinstance(contents, dict):
        raise InputError(f"holds a {type(contents).__name__}, not names and tensors; give a state dict")
    return dict(contents)


def _read_safetensors(path: Path, sha256: str) -> tuple[dict[str, Any], bool]:
    """Tensors and our entry of the JSON beside them, if it is ours, and whether it has their digest."""
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"not a whole safetensors file ({one_line(error)}); copy or fetch it again") from error
    candidates = (_our_entries(path.with_suffix(".json")), _our_entries(path.with_name("config.json")))
    entries: dict[str, Any] = next(filter(None, candidates), {})
    digest = entries.pop(WEIGHTS_DIGEST_KEY, None)
    if digest not in (None, sha256):
        raise InputError(
            f"damaged or replaced: the JSON beside it says sha256 {digest!s:.8}, the file has {sha256[:8]}; copy both "
            "again"
        )
    return {**entries, "state_dict": tensors}, digest is not None


def _our_entries(path: Path) -> dict[str, Any]:
    """What this project keeps in a JSON file; nothing where there is none, or one of another program."""
    try:
        entries = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.name} beside it is not valid JSON ({one_line(error)}); copy both again") from error
    ours = (WEIGHTS_DIGEST_KEY, RECORD_KEY)
    return {key: entries[key] for key in ours if isinstance(entries, dict) and key in entries}


def _tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple) and depth < 10:  # deeper than any known layout by far
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _tensors(entry, depth + 1)
