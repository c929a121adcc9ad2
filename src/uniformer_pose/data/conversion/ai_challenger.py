"""AI Challenger's human keypoints as the challenge published them, to a ``Source``: a JSON list of images.

An image is its ``image_id``, the file's name without .jpg, with ``keypoint_annotations`` and ``human_annotations``: by
the names of its people (human1, ...) 14 x (x, y, visibility), and the corners x1, y1, x2, y2 of a box. A visibility is
1 visible, 2 hidden, 3 not labelled, where COCO's are 2, 1 and 0.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from uniformer_pose.data.coco import existing_folder
from uniformer_pose.data.coco_json import each_record, read_json
from uniformer_pose.data.conversion.source import (
    FloatArray,
    Log,
    Settings,
    Source,
    SourceImage,
    SourcePerson,
    find_inside,
)
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

_POINTS = 14
_VISIBILITY = {1: 2, 2: 1, 3: 0}


class _Image(msgspec.Struct):
    image_id: str
    keypoint_annotations: dict[str, list[float]]
    human_annotations: dict[str, tuple[float, float, float, float]] = {}


def read_ai_challenger(source: Path, settings: Settings, log: Log) -> Source:
    """The images of a list, and of ``val_source`` for validation; InputError where a file is none."""
    files = settings.annotation_files(source).items()
    splits = {split: _images(file, images or file.parent, log) for split, (file, images) in files}
    return Source(load_skeleton("aic_14").keypoint_names, "person", splits, orientation="stored")


def _images(file: Path, images: Path, log: Log) -> list[SourceImage]:
    folder, content = existing_folder(images), read_json(file)
    if not isinstance(content, list) or not content:
        raise InputError(f"{file}: is no list of images; give the challenge's keypoint_train_annotations and the like")
    records, problems = each_record(content, _Image)
    found = []
    for number, record in enumerate(records):
        with log.leaving_out(f"{file}: image number {number}"):
            if record is None:
                raise InputError(problems[number])
            path = find_inside(folder, f"{record.image_id}.jpg", log)
            found.append(SourceImage(path, path.relative_to(folder).as_posix(), _people(record, file, log)))
    return found


def _people(record: _Image, file: Path, log: Log) -> list[SourcePerson]:
    boxes_alone = record.human_annotations.keys() - record.keypoint_annotations.keys()
    log.repairs["boxes without keypoints left out"] += len(boxes_alone)
    people = []
    for name, numbers in record.keypoint_annotations.items():
        place = f"{file}: {name} of image {record.image_id}"
        with log.leaving_out(place):
            corners = record.human_annotations.get(name, (np.nan,) * 4)
            box = np.array([*corners[:2], corners[2] - corners[0], corners[3] - corners[1]])
            people.append(SourcePerson(box, _keypoints(numbers), place))
    return people


def _keypoints(numbers: list[float]) -> FloatArray:
    """(14, 3) x, y and COCO's visibility; InputError where they are not 14, or a visibility is none of 1, 2, 3."""
    if len(numbers) != 3 * _POINTS or not set(numbers[2::3]) <= _VISIBILITY.keys():
        raise InputError(
            f"has {len(numbers)} numbers; it needs {3 * _POINTS}: x, y, visibility (1 visible, 2 hidden, 3 unlabelled)"
        )
    keypoints = np.reshape(np.array(numbers, dtype=np.float64), (_POINTS, 3))
    keypoints[:, 2] = [_VISIBILITY[int(seen)] for seen in numbers[2::3]]
    return keypoints
