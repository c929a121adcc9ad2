"""``hf://owner/repository/file`` -> a local file, through ``huggingface_hub`` and its cache."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from uniformer_pose.errors import InputError
from uniformer_pose.weights.download import offline_variable
from uniformer_pose.weights.download_progress import say
from uniformer_pose.weights.transfer import sha256_and_size
from uniformer_pose.weights.web_address import printable

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"

_FORM = "hf://owner/repository/folder/file, with @revision behind it or behind the repository"
_BY_HAND = "or download the file by hand and give its path"


@dataclass(frozen=True)
class HubAddress:
    """A file of a model repository; ``revision`` is a branch, tag or commit, None for the repository's main one."""

    repository: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}/{self.file}" + (f"@{self.revision}" if self.revision else "")


def hub_address(text: str) -> HubAddress:
    """The parts of ``hf://owner/repository[@revision]/path[@revision]``; without a path, ``model.safetensors``.

    Raises InputError for any other form.
    """
    owner, _, rest = text.strip().removeprefix(SCHEME).partition("/")
    repository, _, path = rest.partition("/")
    repository, _, revision = repository.partition("@")
    path, at, revision_behind = path.partition("@")
    parts = path.split("/") if path else [DEFAULT_FILE]
    names = (owner, repository, *parts)
    if owner in ("datasets", "spaces", "models", "buckets"):
        raise InputError(f"{printable(text)}: only model repositories hold weights; the form is {_FORM}")
    if (
        not all(re.fullmatch(r"[^\s\\?#]+", name) and name not in (".", "..") and name.isprintable() for name in names)
        or (revision and at)
        or not re.fullmatch(r"[\w./-]*", revision or revision_behind)
        or (at and not revision_behind)
    ):
        raise InputError(f"{printable(text)}: not understood; the form is {_FORM}")
    return HubAddress(f"{owner}/{repository}", "/".join(parts), revision or revision_behind or None)


def hub_file(text: str) -> Path:
    """The file that an ``hf://`` address means, in the snapshot folder of ``huggingface_hub``'s cache.

    For a ``.safetensors`` file the JSONs that may describe it come too, where the repository has them: of the same
    commit, in the same folder, ``<stem>.json`` and ``config.json``. A large file is held to the sha256 under which the
    hub keeps it, and fetched again if it was damaged.

    Raises InputError for an address of another form, and for all that keeps the file from being there.
    """
    address = hub_address(text)
    path = _fetched(address)
    if path is None:
        raise InputError(
            f"{address}: the repository has no such file; look for its name on the repository's page, {_BY_HAND}"
        )
    if _is_damaged(path):
        path = _fetched_anew(address, path)
    if path.suffix == ".safetensors" and offline_variable() is None:
        file = PurePosixPath(address.file)
        commit = path.parents[len(file.parts) - 1].name  # that of the weights: a branch may have moved on since
        for name in (file.with_suffix(".json"), file.with_name("config.json")):
            _fetched(HubAddress(address.repository, str(name), commit))
    return path


def _fetched_anew(address: HubAddress, damaged: Path) -> Path:
    offline = offline_variable()
    if offline is not None:
        raise InputError(f"{damaged}: is damaged, and {offline} forbids to fetch it; unset that, {_BY_HAND}")
    say(f"{damaged}: is damaged")
    path = _fetched(address, anew=True)
    if path is None or _is_damaged(path):
        raise InputError(f"{address}: what came does not have the sha256 that the hub states; try again, {_BY_HAND}")
    return path


def _is_damaged(path: Path) -> bool:
    """Whether a large file is not what the hub keeps: it lies under its sha256, and the snapshot has a link to it."""
    digest = path.readlink().name if path.is_symlink() else ""
    return re.fullmatch(r"[0-9a-f]{64}", digest) is not None and sha256_and_size(path)[0].hexdigest() != digest


def _fetched(address: HubAddress, *, anew: bool = False) -> Path | None:
    """The file in the hub's cache; None where the repository has none of that name."""
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    offline = offline_variable()
    try:
        cached = try_to_load_from_cache(address.repository, address.file, revision=address.revision)
        if offline is None and cached is not None and not isinstance(cached, str) and _is_commit(address.revision):
            return None  # known from before, and a commit does not change
        if offline is None and (cached is None or anew):
            say(f"{address}: downloading")
        return Path(
            hf_hub_download(
                address.repository,
                address.file,
                revision=address.revision,
                endpoint=os.environ.get("HF_ENDPOINT"),  # huggingface_hub itself looks only when it is imported
                force_download=anew,
                local_files_only=offline is not None,
            )
        )
    except errors.GatedRepoError as error:
        raise InputError(
            f"{address}: its owner gives access on request only; ask for it on the repository's page and log in with "
            f"`hf auth login`, {_BY_HAND}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{address}: no such repository, or a private one; check its name, log in with `hf auth login`, {_BY_HAND}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{address}: the repository has no such revision; check it, {_BY_HAND}") from error
    except errors.LocalEntryNotFoundError as error:
        if offline is not None:
            raise InputError(
                f"{address}: not in the cache, and {offline} forbids to fetch it; unset that, {_BY_HAND}"
            ) from error
        raise InputError(
            f"{address}: not in the cache, and {_reason(error.__cause__)}; check network, proxy and HF_ENDPOINT, "
            f"{_BY_HAND}"
        ) from error
    except errors.EntryNotFoundError:
        return None
    except Exception as error:  # of several HTTP libraries, by release of huggingface_hub, and of the disk
        raise InputError(f"{address}: {_reason(error)}; try again, {_BY_HAND}") from error


def _is_commit(revision: str | None) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision or "") is not None


def _reason(error: BaseException | None) -> str:
    """Half a sentence on why the hub gave nothing."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the hub answers HTTP {status}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space is left in the cache of huggingface_hub (HF_HOME)"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"the cache of huggingface_hub (HF_HOME) cannot be used ({error.strerror.lower()})"
    return f"the hub cannot be reached ({type(error).__name__})"
