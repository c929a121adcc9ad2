"""What files of published sets say of people beside or instead of what COCO's say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import accumulate
from typing import Any

import numpy as np

from uniformer_pose.skeleton import Skeleton

_HEADER = 116  # bytes of a MAT-file of version 5 that are free text


def crowd_index(people: Sequence[Mapping[str, Any]]) -> float:
    """How crowded a picture with these annotations is, 0 to 1 (Li et al., CVPR 2019, section 3), to 2 decimals.

    For each person the labelled keypoints of others within its box over its own, averaged over the people with any.
    """
    labelled = [np.reshape(person["keypoints"], (-1, 3)) for person in people]
    labelled = [points[points[:, 2] > 0, :2] for points in labelled]
    ratios = []
    for number, (person, own) in enumerate(zip(people, labelled, strict=True)):
        corner, size = np.split(np.asarray(person["bbox"], dtype=np.float64), 2)
        others = np.concatenate([np.zeros((0, 2)), *labelled[:number], *labelled[number + 1 :]])
        inside = ((others >= corner) & (others <= corner + size)).all(axis=1)
        if len(own):
            ratios.append(inside.sum() / len(own))
    return round(min(1.0, float(np.mean(ratios))), 2) if ratios else 0.0


def in_arrays(person: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """An annotation with its keypoints in the skeleton's ``arrays_in_files``; ``num_keypoints`` counts the first.

    COCO-WholeBody labels of feet, faces and hands what is seen: others of theirs are not labelled.
    """
    arrays = skeleton.arrays_in_files or (("keypoints", skeleton.num_keypoints),)
    ends = list(accumulate(3 * count for _, count in arrays))
    numbers = [*person["keypoints"], *[0] * (ends[-1] - 3 * skeleton.num_keypoints)]
    split = {name: numbers[end - 3 * count : end] for (name, count), end in zip(arrays, ends, strict=True)}
    for values in (split[name] for name in split if name.endswith("_kpts")):
        for start in range(0, len(values), 3):
            if values[start + 2] < 2:
                values[start : start + 3] = [0, 0, 0]
    counted = sum(seen > 0 for seen in split[arrays[0][0]][2::3])
    others = {name: value for name, value in person.items() if name != "keypoints"}
    return others | {"num_keypoints": counted} | split


def head_boxes_file(boxes: Sequence[Sequence[float]]) -> bytes:
    """What MPII's mpii_gt_val.mat says of heads: ``headboxes_src`` (corner, x or y, person), pixels from 1.

    ``boxes`` are left, top, right and bottom in pixels from 0.
    """
    from scipy.io import savemat  # type: ignore[import-untyped]  # takes its time

    corners = np.reshape(np.asarray(boxes, dtype=np.float64), (-1, 2, 2)).transpose(1, 2, 0) + 1
    with BytesIO() as file:
        savemat(file, {"headboxes_src": corners})
        return b"MATLAB 5.0 MAT-file".ljust(_HEADER) + file.getvalue()[_HEADER:]  # without date and machine
