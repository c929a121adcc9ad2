"""Poses -> files: COCO results, and a tidy table with one row per keypoint. Both are written pose by pose."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.errors import InputError
from uniformer_pose.files import write_whole
from uniformer_pose.prediction.people import People

COLUMNS = ("file", "frame", "seconds", "person", "track", "keypoint", "x", "y", "score", "pose_score")
_WHOLE_NUMBERS = ("frame", "person", "track")
_ADVICE = "give output=<another folder>"


@dataclass(frozen=True)
class PosedPicture:
    """The people of one picture, or of one ``frame`` of a video at ``seconds``; ``image_id`` is its number."""

    file: str
    image_id: int
    people: People
    frame: int | None = None
    seconds: float | None = None


def write_coco_results(path: Path, pictures: Iterable[PosedPicture], category_id: int = DEFAULT_PERSON_CATEGORY) -> int:
    """Write a COCO results JSON (a list) and return how many poses it has.

    Beside COCO's entries, which its tools read, each pose has ``file_name``, and of videos ``frame`` and ``seconds``.
    """
    count = 0
    with write_whole(path, advice=_ADVICE) as part, part.open("w", encoding="utf-8") as file:
        file.write("[")
        for picture in pictures:
            more: dict[str, Any] = {"file_name": picture.file}
            if picture.frame is not None:
                more |= {"frame": picture.frame, "seconds": picture.seconds}
            for result in picture.people.to_coco(picture.image_id, category_id):
                file.write(("," if count else "") + "\n" + json.dumps(result | more, allow_nan=False))
                count += 1
        file.write("\n]\n")
    return count


def write_csv(path: Path, pictures: Iterable[PosedPicture]) -> None:
    """Write the table ``COLUMNS``: one row per keypoint, in image pixels; what does not apply is empty."""
    with write_whole(path, advice=_ADVICE) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for picture in pictures:
            writer.writerows(_rows(picture))


def write_parquet(path: Path, pictures: Iterable[PosedPicture]) -> None:
    """Write the same table as Parquet (needs the extra package pyarrow), by way of a CSV file beside it."""
    try:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise InputError("table=parquet needs the package pyarrow: pip install pyarrow; or table=csv") from error
    kinds = {name: pa.string() if name in ("file", "keypoint") else pa.float64() for name in COLUMNS}
    options = arrow_csv.ConvertOptions(column_types=kinds | dict.fromkeys(_WHOLE_NUMBERS, pa.int64()))
    with write_whole(path, advice=_ADVICE) as part:
        table = part.with_suffix(".csv")
        try:
            write_csv(table, pictures)
            rows = arrow_csv.open_csv(table, convert_options=options)
            with rows, parquet.ParquetWriter(part, rows.schema) as writer:
                for batch in rows:
                    writer.write_batch(batch)
        finally:
            table.unlink(missing_ok=True)


TABLES = {"csv": write_csv, "parquet": write_parquet}


def _rows(picture: PosedPicture) -> Iterator[list[Any]]:
    people = picture.people
    names, pose_scores = people.skeleton.keypoint_names, np.round(people.pose_scores, 6).tolist()
    points, scores = np.round(people.keypoints, 3).tolist(), np.round(people.scores, 6).tolist()
    tracks = [None] * len(people) if people.ids is None else people.ids.tolist()
    for person, (track, pose_score) in enumerate(zip(tracks, pose_scores, strict=True)):
        of_person = [picture.file, picture.frame, picture.seconds, person, track]
        for name, (x, y), score in zip(names, points[person], scores[person], strict=True):
            yield [*of_person, name, x, y, score, pose_score]
