"""What a user names weights by, a path or an address -> a local file."""

from __future__ import annotations

import re
from pathlib import Path

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import nearest
from uniformer_pose.weights import hub_file
from uniformer_pose.weights.download import download
from uniformer_pose.weights.published_models import published_file
from uniformer_pose.weights.web_address import printable

ZOO = "zoo:"
_FORMS = "a path, https://host/file, zoo:<name> or hf://owner/repository/file"
_SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")

# Not a drive of Windows: two letters at least. One slash is what a path library leaves of two.
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>/{1,2})")


def is_address(text: str) -> bool:
    """Whether the text means a file elsewhere (``zoo:``, ``hf://``, ``https://``, ``http://``), not a path."""
    return text.strip().lower().startswith((ZOO, hub_file.SCHEME, "https://", "http://"))


def local_file(address: str | Path) -> Path:
    """The local file that ``address`` means, downloaded where it lies elsewhere.

    - A path, with ``~`` for the home folder; of a folder its ``model.safetensors``.
    - ``https://host/file.pth``, with ``#sha256=<digits>`` behind it or not (``download``).
    - ``zoo:<name>``, a released file of ``published_models``.
    - ``hf://owner/repository/file`` with ``@revision`` or not (``hub_file``).

    A download is kept, and not repeated. Raises InputError where there is no such file, with the nearest name if one is
    alike, for other forms of addresses, and for all that can go wrong on the way.
    """
    text = str(address).strip()
    if not text:
        raise InputError(f"no weights file: the address is empty; give {_FORMS}")
    lower = text.lower()
    if lower.startswith(ZOO):
        url, sha256 = published_file(text[len(ZOO) :].strip("/"))
        return download(url, sha256=sha256)
    found = _SCHEME.match(text)
    if found is not None:
        scheme = found["scheme"].lower()
        if scheme in ("http", "https", "hf") and found["slashes"] == "//":
            rest = text[found.end() :]
            return hub_file.hub_file(f"hf://{rest}") if scheme == "hf" else download(f"{scheme}://{rest}")
        if scheme in ("http", "https", "hf"):
            raise InputError(
                f"{printable(text)}: one slash is missing; write {scheme}://{printable(text[found.end() :])}"
            )
        raise InputError(f"{printable(text)}: {scheme}:// is not read; give {_FORMS}")
    if re.match(r"[\w.-]+@[\w.-]+:", text):
        raise InputError(f"{printable(text)}: a git or ssh address is not read; give {_FORMS}")
    return _existing(str(address))


def _existing(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return path
        if path.is_dir():
            return _of_folder(path)
        if path.exists():
            raise InputError(f"{path}: neither a file nor a folder; give {_FORMS}")
        raise InputError(f"no such file: {printable(str(path))}; {_hint(path)}")
    except (OSError, RuntimeError) as error:  # no permission, a name too long; a home that is not known
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"{printable(text)}: cannot be read ({reason}); give {_FORMS}") from error


def _of_folder(folder: Path) -> Path:
    path = folder / hub_file.DEFAULT_FILE
    if path.is_file():
        return path
    candidates = sorted(
        file for place in (folder, folder / "checkpoints") for file in place.glob("*") if file.suffix in _SUFFIXES
    )
    if candidates:
        raise InputError(
            f"{folder}: a folder without {hub_file.DEFAULT_FILE}; did you mean {', '.join(map(str, candidates[:3]))}?"
        )
    raise InputError(f"{folder}: a folder without {hub_file.DEFAULT_FILE} or any other weights file; give {_FORMS}")


def _hint(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"nor is there a folder {printable(str(folder))}; give {_FORMS}"
    alike = nearest(path.name, (file.name for file in folder.iterdir()))
    return f"give {_FORMS}" if alike is None else f"did you mean {printable(str(folder / alike))}?"
