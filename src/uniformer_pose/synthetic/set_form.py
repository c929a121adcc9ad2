"""What files of published sets say of people beside or instead of what COCO's say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.skeleton import Skeleton

_HEADER = 116  # bytes of a MAT-file of version 5 that are free text


def crowd_index(people: Sequence[Mapping[str, Any]]) -> float:
    """How crowded a picture with these annotations is, 0 to 1 (Li et al., CVPR 2019, section 3), to 2 decimals.

    For each person the labelled keypoints of others within its box over its own, averaged over the people with any.
    """
    labelled = [points[points[:, 2] > 0, :2] for points in (np.reshape(p["keypoints"], (-1, 3)) for p in people)]
    everybody = np.concatenate([np.zeros((0, 2)), *labelled])

    def inside(points: npt.NDArray[np.float64], box: Sequence[float]) -> int:
        return int(((points >= box[:2]) & (points <= np.add(box[:2], box[2:]))).all(axis=1).sum())

    ratios = [
        (inside(everybody, person["bbox"]) - inside(own, person["bbox"])) / len(own)
        for person, own in zip(people, labelled, strict=True)
        if len(own)
    ]
    return round(min(1.0, float(np.mean(ratios))), 2) if ratios else 0.0


def in_arrays(person: dict[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """An annotation with its keypoints in the skeleton's ``arrays_in_files``; ``num_keypoints`` counts the first.

    Of feet, faces and hands COCO-WholeBody labels what is seen alone.
    """
    if not skeleton.arrays_in_files:
        return person
    points = [person["keypoints"][place : place + 3] for place in range(0, len(person["keypoints"]), 3)]
    points += [[0, 0, 0]] * (sum(count for _, count in skeleton.arrays_in_files) - len(points))
    split = {name: value for name, value in person.items() if name != "keypoints"}
    for name, count in skeleton.arrays_in_files:
        array, points = points[:count], points[count:]
        seen = [point if point[2] == 2 or not name.endswith("_kpts") else [0, 0, 0] for point in array]
        split[name] = [number for point in seen for number in point]
    split["num_keypoints"] = sum(seen > 0 for seen in split[skeleton.arrays_in_files[0][0]][2::3])
    return split


def head_boxes_file(boxes: Sequence[Sequence[float]]) -> bytes:
    """What MPII's mpii_gt_val.mat says of heads: ``headboxes_src`` (corner, x or y, person), pixels from 1.

    ``boxes`` are left, top, right and bottom in pixels from 0.
    """
    from scipy.io import savemat  # type: ignore[import-untyped]  # takes its time

    corners = np.reshape(np.asarray(boxes, dtype=np.float64), (-1, 2, 2)).transpose(1, 2, 0) + 1
    with BytesIO() as file:
        savemat(file, {"headboxes_src": corners})
        return b"MATLAB 5.0 MAT-file".ljust(_HEADER) + file.getvalue()[_HEADER:]  # without date and machine
