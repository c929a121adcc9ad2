"""What of a run is done, one line of JSON a picture or video, so that an interrupted run continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from uniformer_pose.errors import InputError

FILE_NAME = "journal.jsonl"


class Journal:
    """The finished items of one output folder, with the settings of the run that finished them.

    ``settings`` are what the poses depend on. A journal of the same settings is continued; with others, or one that is
    no journal, an InputError says what differs, unless ``overwrite``, which begins anew. A last line that was cut off
    by a crash counts as not written. A context manager: one process at a time holds it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path = folder / FILE_NAME
        self._settings = json.loads(json.dumps(settings))
        self._overwrite = overwrite
        self._finished: set[str] = set()
        self._begun: set[str] = set()
        self.finished_before = 0
        self._lock = FileLock(folder / f".{FILE_NAME}.lock")

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{self.path.parent}: another run is writing there; give output=<another folder>"
            ) from error
        except OSError as error:
            raise InputError(f"{self.path.parent}: cannot be written to ({error.strerror}); give output=") from error
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        self._stream = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        # In this order: a lock that is removed after its release may be another process's by then.
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def __contains__(self, name: str) -> bool:
        return name in self._finished

    def __len__(self) -> int:
        return len(self._finished)

    def begin(self, names: Iterable[str]) -> None:
        """Note that files of these items may be on disk from now on."""
        new = [name for name in names if name not in self._begun]
        if new:
            self._write({"begun": new})
            self._begun.update(new)

    def has_begun(self, name: str) -> bool:
        """Whether files of an item may be on disk that this run, or an interrupted one, has written."""
        return name in self._begun

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Note that an item is finished, once everything else of it is on disk."""
        self._write({"name": name, **record})
        self._finished.add(name)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every finished item's record in the order in which they were finished, read from disk one by one."""
        with self.path.open(encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                record = json.loads(line)
                if "name" in record:
                    yield record

    def _write(self, content: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(content) + "\n")
        self._stream.flush()

    def _begin(self) -> None:
        if self._overwrite or not self.path.exists() or self.path.stat().st_size == 0:
            self.path.write_text(json.dumps(self._settings) + "\n", encoding="utf-8")
            return
        with self.path.open("rb") as lines:
            settings = self._line(lines.readline())
            whole = lines.tell()
            if settings is None:
                raise InputError(f"{self.path}: not the journal of a run; give output=<another folder>")
            differing = [key for key in {**settings, **self._settings} if settings.get(key) != self._settings.get(key)]
            if differing and not lines.read(1):  # begun, and ended before anything was done
                self._overwrite = True
                self._begin()
                return
            if differing:
                described = ", ".join(_change(key, settings.get(key), self._settings.get(key)) for key in differing)
                raise InputError(
                    f"{self.path.parent}: holds poses of a run with other settings ({described}); give output=<another "
                    "folder>, or overwrite=true to begin anew"
                )
            for line in lines:
                record = self._line(line)
                if record is None:
                    break
                self._begun.update(record.get("begun", []))
                if "name" in record:
                    self._finished.add(record["name"])
                whole += len(line)
        with self.path.open("r+b") as file:
            file.truncate(whole)
        self.finished_before = len(self._finished)

    @staticmethod
    def _line(line: bytes) -> dict[str, Any] | None:
        try:
            content = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return None
        return content if isinstance(content, dict) else None


def _change(key: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) or isinstance(now, dict):
        return f"another {key}"
    return f"{key} was {before} and is {now}"
