"""What a user names weights by, a path or an address -> a local file, whole, and verified where its digest is known.

A download lies in a folder of its own, ``<cache>/<16 digits of the URL's sha256>/<name>``. The name appears in one
step, after the digest was found right: what an interruption leaves is never taken for the file. What comes from the
Hugging Face hub lies in the cache of ``huggingface_hub``.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urljoin

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from uniformer_pose.cache import ROOM_ADVICE, cache_folder, writing_to_cache
from uniformer_pose.errors import InputError, one_line, printable
from uniformer_pose.files import write_whole
from uniformer_pose.nearest_name import nearest
from uniformer_pose.progress import progress_bar
from uniformer_pose.web_address import checked_address, is_this_machine, shown_address, without_login
from uniformer_pose.weights.zoo import digest_in_name, released_address

DEFAULT_FILE = "model.safetensors"
"""The weights of a folder, or of a repository on the hub."""

_FORMS = "a path, https://host/file, zoo:<name> or hf://owner/repository/file"
_HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([^@\s\\?#*\[]+))?(?:@([\w./-]+))?", re.IGNORECASE)
_BY_HAND = "or download the file by hand and give its path"
_SCHEME = re.compile(r"([A-Za-z][\w+.-]+):/")  # two letters at least: one is a drive of Windows
# The commit of a training looks like a digest: only of these two servers' files do the digits surely begin the sha256.
_HOSTS_WITH_DIGESTS = ("download.openmmlab.com", "download.pytorch.org")
_RETRY = Retry(
    total=4,
    connect=2,
    other=0,
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),
    backoff_factor=1,
    retry_after_max=60,
    raise_on_status=False,
)
_TIMEOUTS = (10.0, 30.0)  # seconds to connect, and without a byte
_HEADERS = {"User-Agent": "uniformer-pose", "Accept-Encoding": "identity"}


def is_address(text: str) -> bool:
    """Whether the text means a file elsewhere (``zoo:``, ``hf://``, ``https://``, ``http://``), not a path."""
    return text.strip().lower().startswith(("zoo:", "hf://", "https://", "http://"))


def local_file(address: str | Path) -> Path:
    """The local file that ``address`` means, downloaded where it lies elsewhere.

    A path, with ``~`` for the home folder (of a folder its ``model.safetensors``); an https address (``download``);
    ``zoo:<name>``, a released file of ``zoo.yaml``; ``hf://owner/repository[@revision]/path`` on the Hugging Face hub.

    A download is kept, and not repeated. Raises InputError where there is no such file, for other forms of addresses,
    and for all that can go wrong on the way.
    """
    text = str(address).strip()
    if text.lower().startswith("zoo:"):
        return download(*released_address(text[4:].strip("/")))
    if text.lower().startswith("hf://"):
        return _hub_file(text)
    if is_address(text):
        return download(text)
    if not text or _SCHEME.match(text):
        raise InputError(f"weights {printable(text)!r}: cannot be read from there; give {_FORMS}")
    try:
        path = Path(text).expanduser()
        path = path / DEFAULT_FILE if path.is_dir() else path
        if path.is_file():
            return path
        alike = nearest(path.name, (file.name for file in path.parent.iterdir())) if path.parent.is_dir() else None
    except (OSError, RuntimeError) as error:  # no permission, a name too long; a home that is not known
        raise InputError(f"{text}: cannot be read ({getattr(error, 'strerror', error)}); give {_FORMS}") from error
    hint = f"give {_FORMS}" if alike is None else f"did you mean {path.with_name(alike)}?"
    raise InputError(f"no such file: {printable(str(path))}; {hint}")


def is_offline() -> bool:
    """Whether an environment variable forbids to use the network."""
    names = ("UNIFORMER_POSE_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on") for name in names)


def download(url: str, sha256: str | None = None) -> Path:
    """The file behind ``url`` as a local file, fetched unless the cache holds it.

    ``sha256`` is the digest that the file must have, or its first 8 or more hexadecimal digits. Without it, it is taken
    from the end of the URL (``#sha256=...``), else on OpenMMLab's and PyTorch's servers from the file name.

    Only https, and http from this very machine; the same for every redirection. Several processes may ask at once: one
    downloads, the others wait.

    Raises InputError for everything that keeps the file from being there: an address that cannot be, a server that
    refuses or is out of reach, a web page in place of the file, a wrong digest, a cache that cannot be written.
    """
    parts = checked_address(url, _BY_HAND)
    shown, name = shown_address(parts), _safe_name(unquote(parts.path))
    if sha256 is None and parts.fragment:
        sha256 = parts.fragment.removeprefix("sha256=").lower()
    elif sha256 is None and parts.hostname in _HOSTS_WITH_DIGESTS:
        sha256 = digest_in_name(name)
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise InputError(f"{shown}: only #sha256=<8 to 64 hexadecimal digits> may stand behind an address")
    parts = parts._replace(fragment="")
    path = cache_folder() / hashlib.sha256(without_login(parts).geturl().encode()).hexdigest()[:16] / name
    if _is_there(path, sha256):
        return path
    if is_offline():
        raise InputError(f"{shown}: not in the cache ({path}), and the network is not to be used (offline); {_BY_HAND}")
    with writing_to_cache(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{name}.lock")):  # the operating system frees it when its holder dies
            if not _is_there(path, sha256):  # another process may just have fetched it
                with write_whole(path, part=path.with_name(f"{name}.part"), advice=ROOM_ADVICE) as part:
                    _fetch(parts, part, name, sha256)
    return path


def _is_there(path: Path, sha256: str | None) -> bool:
    if sha256 is None or not path.is_file():
        return path.is_file()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(sha256)


def _fetch(url: SplitResult, part: Path, name: str, sha256: str | None) -> None:
    """The body of ``url`` in the file ``part``; InputError if it cannot be had or has another digest."""
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
        session.hooks["response"].append(_refuse_insecure_redirection)
        session.trust_env = not is_this_machine(url)  # proxies are for other machines
        try:
            with session.get(url.geturl(), headers=_HEADERS, stream=True, timeout=_TIMEOUTS) as response:
                is_page = "html" in response.headers.get("Content-Type", "").lower()
                if response.status_code != 200 or is_page:
                    said = "with a web page" if is_page else f"HTTP {response.status_code} {response.reason or ''}"
                    raise InputError(
                        f"{shown_address(url)}: the server answers {said}; it may need a login, {_BY_HAND}"
                    )
                found = _save(response, part, name)
        except requests.RequestException as error:  # by its name alone: its message holds the URL with its secrets
            reason = f"cannot be reached, or the connection broke ({type(error).__name__})"
            raise InputError(f"{shown_address(url)}: {reason}; check address, network and proxy, {_BY_HAND}") from error
    if not part.stat().st_size or not found.startswith(sha256 or ""):
        raise InputError(
            f"{shown_address(url)}: what came is empty, damaged or another file and is not kept (sha256 {found}, "
            f"expected {sha256}): try again, {_BY_HAND}"
        )


def _save(response: requests.Response, part: Path, name: str) -> str:
    """Write the body; its sha256. The libraries raise where fewer bytes come than were announced."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
    hasher, arrived = hashlib.sha256(), 0
    with part.open("wb") as file, progress_bar(name, unit="bytes") as report:
        for chunk in response.iter_content(2**16):
            file.write(chunk)
            hasher.update(chunk)
            arrived += len(chunk)
            report(arrived, total)
    return hasher.hexdigest()


def _refuse_insecure_redirection(response: requests.Response, **_: object) -> None:
    """Called for every answer, before requests follows it elsewhere."""
    if response.is_redirect:
        checked_address(urljoin(response.url, response.headers["location"]), _BY_HAND)


def _safe_name(path: str) -> str:
    """The last part of a path as a file name that stays in its folder; of a long one the end, with the suffix."""
    last = re.sub(r"[^A-Za-z0-9._+-]", "_", re.split(r"[/\\]", path)[-1])
    return last[-120:].lstrip(".-") or "file"


def _hub_file(address: str) -> Path:
    """The file that ``hf://owner/repository[@revision]/path[@revision]`` means; without a path, ``model.safetensors``.

    The JSONs that may describe it, ``<stem>.json`` and ``config.json``, come along. A large file is held to the sha256
    under which the hub keeps it.
    """
    from huggingface_hub import snapshot_download

    parts = _HUB.fullmatch(address)
    name = PurePosixPath(parts[3] or DEFAULT_FILE) if parts else PurePosixPath()
    if parts is None or (parts[2] and parts[4]) or ".." in name.parts or not name.name:
        raise InputError(f"{address}: not understood; the form is hf://owner/repository[@revision]/folder/file")
    try:
        folder = snapshot_download(
            parts[1],
            revision=parts[2] or parts[4],
            allow_patterns=[str(name), str(name.with_suffix(".json")), str(name.with_name("config.json"))],
            endpoint=os.environ.get("HF_ENDPOINT"),  # huggingface_hub itself looks only when it is imported
            local_files_only=is_offline(),
        )
    except Exception as error:  # of several HTTP libraries, by release of huggingface_hub, and of the disk
        advice = "check its name, the network and the folder HF_HOME; a private one needs `hf auth login`"
        raise InputError(f"{address}: neither on the hub nor in the cache ({one_line(error)}); {advice}") from error
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"{address}: no such file in the repository, or offline in the cache; look for its name there")
    kept_as = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", kept_as) and not _is_there(path, kept_as):
        raise InputError(f"{path.resolve()}: damaged, not what {address} is; delete it and try again")
    return path
