"""Poses -> files: COCO results, and a tidy table with one row per keypoint. Both are written pose by pose."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.people import PERSON_CATEGORY_ID, People

COLUMNS = ("file", "frame", "seconds", "person", "track", "keypoint", "x", "y", "score", "pose_score")
_ROWS_PER_GROUP = 100_000


@dataclass(frozen=True)
class PosedPicture:
    """The people of one picture, or of one ``frame`` of a video at ``seconds``; ``image_id`` is its number."""

    file: str
    image_id: int
    people: People
    frame: int | None = None
    seconds: float | None = None


def write_coco_results(path: Path, pictures: Iterable[PosedPicture], category_id: int = PERSON_CATEGORY_ID) -> int:
    """Write a COCO results JSON (a list) and return how many poses it has.

    Beside COCO's entries, which its tools read, each pose has ``file_name``, and of videos ``frame`` and ``seconds``.
    """
    count = 0
    with _whole(path) as file:
        file.write("[")
        for picture in pictures:
            for result in picture.people.to_coco(picture.image_id, category_id):
                result["file_name"] = picture.file
                if picture.frame is not None:
                    result |= {"frame": picture.frame, "seconds": picture.seconds}
                file.write(("," if count else "") + "\n" + json.dumps(result, allow_nan=False))
                count += 1
        file.write("\n]\n")
    return count


def write_csv(path: Path, pictures: Iterable[PosedPicture]) -> None:
    """Write the table ``COLUMNS``: one row per keypoint, in image pixels; what does not apply is empty."""
    with _whole(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for picture in pictures:
            writer.writerows(_rows(picture))


def write_parquet(path: Path, pictures: Iterable[PosedPicture]) -> None:
    """Write the same table as Parquet (needs the extra package pyarrow), in groups of 100,000 rows."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise InputError("table=parquet needs the package pyarrow: pip install pyarrow; or table=csv") from error
    kinds: list[Callable[[], Any]] = [
        pa.string, pa.int64, pa.float64, pa.int64, pa.int64, pa.string, pa.float64, pa.float64, pa.float64, pa.float64,
    ]  # fmt: skip
    schema = pa.schema([(name, kind()) for name, kind in zip(COLUMNS, kinds, strict=True)])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    waiting: list[list[Any]] = []
    try:
        with pq.ParquetWriter(temporary, schema) as writer:

            def flush() -> None:
                columns: list[Any] = list(zip(*waiting, strict=True)) if waiting else [[] for _ in COLUMNS]
                writer.write_table(pa.table(dict(zip(COLUMNS, map(list, columns), strict=True)), schema=schema))
                waiting.clear()

            for picture in pictures:
                waiting.extend(_rows(picture))
                if len(waiting) >= _ROWS_PER_GROUP:
                    flush()
            flush()
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); give output=") from error
    finally:
        temporary.unlink(missing_ok=True)


TABLES = {"csv": write_csv, "parquet": write_parquet}


def _rows(picture: PosedPicture) -> Iterator[list[Any]]:
    people = picture.people
    names, pose_scores = people.skeleton.keypoint_names, np.round(people.pose_scores, 6).tolist()
    points, scores = np.round(people.keypoints, 3).tolist(), np.round(people.scores, 6).tolist()
    tracks = [None] * len(people) if people.ids is None else people.ids.tolist()
    for person in range(len(people)):
        for name, (x, y), score in zip(names, points[person], scores[person], strict=True):
            yield [
                picture.file, picture.frame, picture.seconds, person, tracks[person], name, x, y, score,
                pose_scores[person],
            ]  # fmt: skip


@contextmanager
def _whole(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """A file to write that gets its name when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline=newline) as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); give output=") from error
    finally:
        temporary.unlink(missing_ok=True)
