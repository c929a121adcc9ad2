"""Poses that a network has predicted, as labels of pictures that nobody has annotated: a teacher's, or pseudo-labels.

They are a list of results, as src/predict.py and src/eval.py write it, in which the third number of a keypoint is a
score. In an annotation file it is a visibility. Which of the two a number is, is told by the setting that names the
file and by the file's form, a list or an object, never by the number.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import clipped_boxes, counts_of, existing_folder, images_of, kept_of, sorted_by_image
from uniformer_pose.data.coco_json import (
    ImageOrientation,
    ImageRecord,
    PoseRecord,
    boxes_of,
    read_pose_file,
    refuse,
    scored_keypoints_of,
)
from uniformer_pose.data.people import PER_IMAGE, PER_INSTANCE, PersonInstances
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton


def read_poses(
    pose_file: str | Path,
    image_folder: str | Path,
    skeleton: Skeleton,
    *,
    listed: Sequence[ImageRecord] = (),
    orientation: ImageOrientation | None = None,
    min_keypoint_score: float = 0.0,
    weighted: bool = False,
) -> PersonInstances:
    """The people of a file of poses who have a labelled keypoint: one in the picture that scores at least the minimum.

    Labelled keypoints count as visible (2), the others as not labelled. ``weighted``: each has its score as its weight,
    at most 1. A pose's picture is its ``file_name``, else the ``listed`` image of its id. What refers to turned
    pictures in another frame than ``orientation`` is left out; None: that of the first pose that says one. Raises
    InputError for records that cannot be used, frames of videos, and pictures without a name or size.
    """
    file, left_out = Path(pose_file), Counter[str]()
    records = read_pose_file(file)
    pictures, image_of_record = _pictures(records, listed, file)
    folder, images = existing_folder(image_folder), images_of(pictures, file)
    keypoints, problems = scored_keypoints_of(records, skeleton)
    refuse(problems, records, file)
    boxes, problems = boxes_of(records)
    refuse(problems, records, file)
    sizes = images.sizes_wh[image_of_record]
    low, inside = clipped_boxes(boxes, sizes)
    points, scores = keypoints[..., :2], keypoints[..., 2]
    in_picture = ((points >= 0) & (points <= sizes[:, None] - 1)).all(axis=-1)
    labelled = in_picture & (scores >= min_keypoint_score)
    frames = [record.image_orientation for record in records]
    orientation = orientation or next(filter(None, frames), None)
    kept = kept_of(
        {
            "on turned pictures, in another image_orientation": np.array(
                [f not in (None, orientation) for f in frames]
            ),
            f"without a keypoint of score {min_keypoint_score:g}": ~labelled.any(axis=1),
            "with a box outside the image": (inside <= 0).any(axis=1),
        },
        left_out,
    )
    part: dict[str, npt.NDArray[Any]] = {
        "image_of_instance": image_of_record[kept].astype(np.int32),
        "instance_ids": np.flatnonzero(kept),
        "boxes_xywh": np.concatenate([low, inside], axis=1)[kept],
        "box_scores": np.ones(int(kept.sum()), dtype=np.float32),
        "keypoints_in_image": points[kept].astype(np.float32),
        "visibility": np.where(labelled, 2, 0)[kept].astype(np.uint8),
    }
    if weighted:
        part["keypoint_weights"] = (labelled * np.minimum(scores, 1))[kept].astype(np.float32)
    how = {"record": "pose", "source_file": file, "image_orientation": orientation}
    return sorted_by_image(folder, images, [part], counts=counts_of(len(records), [part], left_out), **how)


def _pictures(
    records: Sequence[PoseRecord], listed: Sequence[ImageRecord], file: Path
) -> tuple[list[ImageRecord], npt.NDArray[np.int64]]:
    """The pictures of some poses, and the index in them of each pose's."""
    by_id = {image.id: image for image in listed}
    places: dict[str, int] = {}
    pictures: list[ImageRecord] = []
    of_record = np.zeros(len(records), dtype=np.int64)
    for number, record in enumerate(records):
        name, size = record.file_name, (record.image_height, record.image_width)
        picture = by_id.get(record.image_id) if name is None else ImageRecord(record.image_id, name, *size)
        if record.frame is not None:
            raise InputError(f"{file}: pose number {number} is of a video, {name}; give a file of poses of pictures")
        if picture is None or picture.file_name is None:
            raise InputError(
                f"{file}: pose number {number} has no file_name, and data.train_annotations lists no image of its id "
                f"{record.image_id}; give the annotation file whose images were posed"
            )
        if None in size and name is not None:
            raise InputError(
                f"{file}: pose number {number} has no image_height and image_width; src/predict.py writes them, since "
                "this version, with overwrite=true"
            )
        if picture.file_name not in places:
            places[picture.file_name] = len(pictures)
            pictures.append(picture)
        of_record[number] = places[picture.file_name]
    return pictures, of_record


def with_poses(people: PersonInstances, poses: PersonInstances) -> PersonInstances:
    """The annotated people, and behind them those poses that are on pictures without any of these.

    Image ids of the poses' pictures are new ones. Names of images are relative to the folder that holds both folders.
    """
    if poses.keypoint_weights is not None:
        people = replace(people, keypoint_weights=np.ones(people.visibility.shape, dtype=np.float32))
    folder = Path(os.path.commonpath([people.image_folder, poses.image_folder]))
    names, names_of_poses = _names_below(folder, people), _names_below(folder, poses)
    is_new = ~np.isin(names_of_poses, names)
    kept = is_new[poses.image_of_instance]
    added: dict[str, npt.NDArray[Any]] = {name: getattr(poses, name)[is_new] for name in PER_IMAGE}
    added |= {name: array[kept] for name, array in poses.arrays(PER_INSTANCE).items()}
    added["file_names"] = names_of_poses[is_new]
    added["image_ids"] = people.image_ids.max(initial=0) + 1 + np.arange(is_new.sum())
    added["image_of_instance"] = (people.num_images + np.cumsum(is_new) - 1)[added["image_of_instance"]].astype(
        np.int32
    )
    both: dict[str, Any] = {
        name: np.concatenate([getattr(people, name), more]) for name, more in added.items() if name != "file_names"
    }
    counts = Counter(people.counts) + Counter(poses.counts)
    counts["kept"] = len(people) + int(kept.sum())
    counts["on pictures with annotated people"] = int((~kept).sum())
    return replace(
        people,
        image_folder=folder,
        file_names=np.concatenate([names, added["file_names"]]),
        counts=dict(counts),
        num_annotated=len(people),
        poses_file=poses.source_file,
        **both,
    )


def _names_below(folder: Path, people: PersonInstances) -> npt.NDArray[np.str_]:
    prefix = people.image_folder.relative_to(folder).as_posix()
    return people.file_names if prefix == "." else np.char.add(f"{prefix}/", people.file_names)
