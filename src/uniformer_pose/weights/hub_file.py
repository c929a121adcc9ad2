"""``hf://owner/repository/file`` -> a local file, through ``huggingface_hub`` and its cache."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from uniformer_pose.errors import InputError, one_line

DEFAULT_FILE = "model.safetensors"
_FORM = "hf://owner/repository/folder/file, with @revision behind it or behind the repository"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([^@\s\\?#*\[]+))?(?:@([\w./-]+))?", re.IGNORECASE)


def is_offline() -> bool:
    """Whether an environment variable forbids to use the network."""
    names = ("UNIFORMER_POSE_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on") for name in names)


def hub_file(address: str) -> Path:
    """The file that ``hf://owner/repository[@revision]/path[@revision]`` means; without a path, ``model.safetensors``.

    The JSONs that may describe it, ``<stem>.json`` and ``config.json``, come along. A large file is held to the sha256
    under which the hub keeps it. Raises InputError for an address of another form, and for all that keeps the file from
    being there.
    """
    parts = _ADDRESS.fullmatch(address)
    name = PurePosixPath(parts[3] or DEFAULT_FILE) if parts else PurePosixPath()
    if parts is None or (parts[2] and parts[4]) or ".." in name.parts or not name.name:
        raise InputError(f"{address}: not understood; the form is {_FORM}")
    described_in = [name.with_suffix(".json"), name.with_name("config.json")]
    folder = _snapshot(address, parts[1], parts[2] or parts[4], [str(file) for file in (name, *described_in)])
    path = folder / name
    if not path.is_file():
        where = "the cache has" if is_offline() else "the repository has"
        raise InputError(f"{address}: {where} no such file; look for its name on the repository's page")
    kept_as = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", kept_as):
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != kept_as:
                raise InputError(f"{path.resolve()}: damaged, not what {address} is; delete it and try again")
    return path


def _snapshot(address: str, repository: str, revision: str | None, files: list[str]) -> Path:
    """The folder of one commit in the hub's cache, with those of the files that the repository has."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=files,
                endpoint=os.environ.get("HF_ENDPOINT"),  # huggingface_hub itself looks only when it is imported
                local_files_only=is_offline(),
            )
        )
    except errors.GatedRepoError:
        reason = "its owner gives access on request only; ask on the repository's page and log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "no such repository, or a private one; check its name, log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        reason = "the repository has no such revision; check it"
    except errors.LocalEntryNotFoundError:
        why = "the network is not to be used (offline)" if is_offline() else "the hub cannot be reached"
        reason = f"not in the cache, and {why}; check network, proxy and HF_ENDPOINT"
    except Exception as error:  # of several HTTP libraries, by release of huggingface_hub, and of the disk
        reason = f"{one_line(error)}; check it, and the folder HF_HOME"
    raise InputError(f"{address}: {reason}")
