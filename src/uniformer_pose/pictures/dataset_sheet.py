"""A contact sheet of annotated people: each in its picture, and in the crop that training takes of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import read_image_of
from uniformer_pose.pictures.drawing import Array, Image, draw_poses, save_picture
from uniformer_pose.pictures.sheets import BACKGROUND, POOR, TEXT, arrange, enlarged_points, panel
from uniformer_pose.skeleton import Skeleton

_HEIGHT = 256  # pixels of a panel's two pictures
_PICTURE_ASPECT = 4 / 3
_BOX = (255, 255, 255)
_BOX_RIM = (20, 20, 20)


def save_dataset_sheet(
    path: Path,
    people: PersonInstances,
    chosen: Sequence[int],
    skeleton: Skeleton,
    *,
    title: str,
    doubts: Sequence[str | None],
    spec: CropSpec,
) -> None:
    """Write a PNG of the ``chosen`` people (indices into ``people``), whose images can be read.

    On the left the picture, on the right the upright crop of ``spec``, both with box and keypoints:
    filled where visible, rings where hidden. A person's entry in ``doubts`` stands in the caption, in red.
    """
    panels = []
    for index, doubt in zip(chosen, doubts, strict=True):
        image = read_image_of(people, int(people.image_of_instance[index])).pixels
        box = people.boxes_xywh[index]
        geometry = spec.around(box)
        seen = people.visibility[index]
        corners = np.array([box[:2], box[:2] + box[2:]])
        points = np.concatenate([people.keypoints_in_image[index].astype(np.float64), corners])
        picture, scale = _fitted(image, round(_HEIGHT * _PICTURE_ASPECT))
        crop, crop_scale = _fitted(geometry.crop(image), ceil(spec.width * _HEIGHT / spec.height))
        told = doubt.replace("_", " ") if doubt else f"{(seen == 2).sum()} visible, {(seen == 1).sum()} hidden"
        caption = f"annotation {people.instance_ids[index]}: {told}"
        left = _annotated(picture, scale, points, seen, skeleton)
        right = _annotated(crop, crop_scale, geometry.to_crop(points), seen, skeleton)
        panels.append(panel(left, right, caption, POOR if doubt else TEXT))
    save_picture(path, arrange(panels, title))


def _fitted(image: Image, panel_width: int) -> tuple[Image, float]:
    """The whole image in the upper left of a picture of the sheet, and the factor it was scaled by."""
    height, width = image.shape[:2]
    scale = min(_HEIGHT / height, panel_width / width)
    size = (min(panel_width, max(1, round(width * scale))), max(1, round(height * scale)))
    picture: npt.NDArray[np.uint8] = np.full((_HEIGHT, max(1, panel_width), 3), BACKGROUND, dtype=np.uint8)
    picture[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return picture, scale


def _annotated(picture: Image, scale: float, points: npt.NDArray[np.float64], seen: Array, skeleton: Skeleton) -> Image:
    """A picture that was enlarged by ``scale``, with the keypoints and the two corners of the box (K + 2, 2) on it."""
    canvas = picture.copy()
    first, second = np.clip(np.round(scale * points[-2:]), -1e6, 1e6).astype(int).tolist()
    for colour, thickness in ((_BOX_RIM, 3), (_BOX, 1)):
        cv2.rectangle(canvas, first, second, colour, thickness, cv2.LINE_AA)
    keypoints = enlarged_points(points[:-2], scale)[None]
    return draw_poses(canvas, keypoints, seen[None], skeleton, score_threshold=0, hollow=np.asarray(seen == 1)[None])


def choose_people(
    people: PersonInstances, suspects: dict[int, str], bad_images: set[str], most: int = 16
) -> tuple[list[int], list[str | None]]:
    """Which people to show, with their doubts: up to half of them doubtful ones, of as many kinds as there are.

    The others are spread evenly over the file. People in images that cannot be read are not shown.
    """
    doubts = [suspects.get(instance_id) for instance_id in people.instance_ids.tolist()]
    readable = [i for i, name in enumerate(people.file_names[people.image_of_instance]) if str(name) not in bad_images]
    seen_of_kind: dict[str, int] = {}
    in_turn = []  # one of each kind, then a second of each, and so on
    for index in readable:
        doubt = doubts[index]
        if doubt is not None:
            seen_of_kind[doubt] = seen_of_kind.get(doubt, 0) + 1
            in_turn.append((seen_of_kind[doubt], index))
    doubtful = [index for _, index in sorted(in_turn)[: max(1, most // 2)]] if most else []
    sound = [index for index in readable if doubts[index] is None]
    room = max(0, min(len(sound), most - len(doubtful)))
    places = np.linspace(0, len(sound) - 1, room).round().astype(int).tolist()
    shown = doubtful + [sound[place] for place in places]
    return shown, [doubts[index] for index in shown]
