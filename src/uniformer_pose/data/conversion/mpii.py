"""MPII Human Pose, as the JSON lists of its people that HRNet and MMPose train on, to a ``Source``.

A person is ``image``, 16 ``joints`` with ``joints_vis`` (0 not annotated, 1 annotated), ``center`` and ``scale``, its
height / 200. Joints and centre count pixels from 1; written are both from 0 (MMPose 1.x takes 1 from the centre alone,
and so learns joints a pixel to the right and below).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

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
from uniformer_pose.data.mpii_json import NUM_JOINTS, MpiiRecord
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import load_skeleton

_FIRST_PIXEL = 1  # of MPII's coordinates
_HEIGHT = 200  # pixels of a person of scale 1
_HEADS = "mpii_gt_val.mat"  # which PCKh needs
_DOWN = 15  # pixels of scale 1 by which a crop's centre is below the annotated one, as all of MPII's users have it


def read_mpii(source: Path, settings: Settings, log: Log) -> Source:
    """The people of a list, and of ``val_source`` for validation; InputError where a file is none.

    A box is the square of side 200 x scale that MPII's users crop, also beyond the picture. An annotation's id is the
    person's place in the list, from 0, in the order of which mpii_gt_val.mat has the head boxes; that file comes along
    where it lies beside the list for validation.
    """
    log.notes.append("MPII's lists do not say which joints are hidden: all that are annotated count as visible")
    files = settings.annotation_files(source).items()
    splits = {split: _images(file, images or file.parent, log) for split, (file, images) in files}
    heads = None if settings.val_source is None else settings.val_source.with_name(_HEADS)
    copied = {f"annotations/{_HEADS}": heads} if heads is not None and heads.is_file() else {}
    return Source(
        load_skeleton("mpii_16").keypoint_names,
        "person",
        splits,
        orientation="stored",
        uncut_boxes=True,
        others=copied,
        scored_by={"metric": "pckh", "headbox_file": f"annotations/{_HEADS}"} if copied else {},
    )


def _images(file: Path, images: Path, log: Log) -> list[SourceImage]:
    folder, content = existing_folder(images), read_json(file)
    if not isinstance(content, list) or not content:
        raise InputError(f"{file}: is no list of people; give mpii_train.json and the like")
    records, problems = each_record(content, MpiiRecord)
    people: dict[str, list[SourcePerson]] = defaultdict(list)
    for number, record in enumerate(records):
        with log.leaving_out(f"{file}: person {number}"):
            if record is None:
                raise InputError(problems[number])
            people[record.image].append(_person(record, number, f"{file}: person {number}"))
    found: list[SourceImage] = []
    for name, those in people.items():
        with log.leaving_out(f"{file}: {len(those)} people"):
            path = find_inside(folder, name, log)
            image_id = int(path.stem) if path.stem.isdecimal() else None
            found.append(SourceImage(path, path.relative_to(folder).as_posix(), those, image_id=image_id))
    ids = {image.image_id for image in found}  # the numbers in the names, where all have one of their own
    return found if len(ids - {None}) == len(found) else [replace(image, image_id=None) for image in found]


def _person(record: MpiiRecord, number: int, place: str) -> SourcePerson:
    """A person in pixels from 0; InputError where joints are missing. One without centre has no box."""
    joints, seen = np.array(record.joints, dtype=np.float64).reshape(-1, 2), np.array(record.joints_vis)
    if len(joints) != NUM_JOINTS or len(seen) != NUM_JOINTS or not np.isin(seen, (0, 1)).all():
        raise InputError(f"has {len(joints)} joints, joints_vis {record.joints_vis}; it needs {NUM_JOINTS}, of 0 and 1")
    keypoints = np.column_stack([joints - _FIRST_PIXEL, 2 * seen])
    return SourcePerson(_box(record), keypoints, place, annotation_id=number)


def _box(record: MpiiRecord) -> FloatArray:
    """(4,) x, y, width, height in pixels from 0; NaN where there is no centre."""
    if min(*record.center, record.scale) <= 0:
        return np.full(4, np.nan)
    side = _HEIGHT * record.scale
    x, y = record.center
    left, top = x - _FIRST_PIXEL - side / 2, y + _DOWN * record.scale - _FIRST_PIXEL - side / 2
    return np.array([left, top, side, side])
