"""A contact sheet of annotated people: each in its picture, and in the crop that training takes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.images import read_image_of
from uniformer_pose.pictures.drawing import Image, save_picture
from uniformer_pose.pictures.sheets import BACKGROUND, POOR, TEXT, annotated, arrange, enlarged, panel
from uniformer_pose.skeleton import Skeleton

_PICTURE_ASPECT = 4 / 3
_MOST_PEOPLE = 16
_BOX = (255, 255, 255)
_BOX_RIM = (20, 20, 20)


def save_dataset_sheet(
    path: Path,
    people: PersonInstances,
    skeleton: Skeleton,
    spec: CropSpec,
    *,
    suspects: Mapping[int, str],
    unusable: Collection[str] = (),
) -> None:
    """Write a PNG of some people: up to half of them ``suspects``, by annotation id, with the words in a red caption.

    On the left the picture, on the right the upright crop of ``spec``, both with box and keypoints: filled where
    visible, rings where hidden. Images of an ``unusable`` file name are left out.
    """
    panels = []
    chosen = choose_people(people, suspects, unusable)
    for index in chosen:
        image = read_image_of(people, int(people.image_of_instance[index])).pixels
        box, seen, number = people.boxes_xywh[index], people.visibility[index], int(people.instance_ids[index])
        geometry, doubt = spec.around(box), suspects.get(number)
        points, corners = people.keypoints_in_image[index], np.array([box[:2], box[:2] + box[2:]])
        crop, crop_scale = enlarged(geometry.crop(image))
        picture, scale = _fitted(image, len(crop))
        told = doubt.replace("_", " ") if doubt else f"{(seen == 2).sum()} visible, {(seen == 1).sum()} hidden"
        left = annotated(_with_box(picture, scale * corners), scale, points, seen, skeleton)
        crop = _with_box(crop, crop_scale * geometry.to_crop(corners))
        right = annotated(crop, crop_scale, geometry.to_crop(points), seen, skeleton)
        panels.append(panel(left, right, f"annotation {number}: {told}", POOR if doubt else TEXT))
    save_picture(path, arrange(panels, f"{people.source_file.name}: {len(chosen)} of {len(people)} people"))


def _fitted(image: Image, panel_height: int) -> tuple[Image, float]:
    """The whole image in the upper left of a picture of the sheet, and the factor it was scaled by."""
    height, width = image.shape[:2]
    panel_width = round(panel_height * _PICTURE_ASPECT)
    scale = min(panel_height / height, panel_width / width)
    size = (min(panel_width, max(1, round(width * scale))), max(1, round(height * scale)))
    picture: npt.NDArray[np.uint8] = np.full((panel_height, panel_width, 3), BACKGROUND, dtype=np.uint8)
    picture[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return picture, scale


def _with_box(picture: Image, corners: npt.NDArray[np.float64]) -> Image:
    canvas = picture.copy()
    first, second = np.clip(corners.round(), -1e6, 1e6).astype(int).tolist()
    for colour, thickness in ((_BOX_RIM, 3), (_BOX, 1)):
        cv2.rectangle(canvas, first, second, colour, thickness, cv2.LINE_AA)
    return canvas


def choose_people(people: PersonInstances, suspects: Mapping[int, str], unusable: Collection[str]) -> list[int]:
    """Indices of suspects, of each kind in turn, and as many or more others, spread evenly over the file."""
    readable = [i for i, name in enumerate(people.file_names[people.image_of_instance]) if str(name) not in unusable]
    kinds = {index: suspects.get(int(people.instance_ids[index])) for index in readable}
    seen: Counter[str] = Counter()
    in_turn = []
    for index, kind in kinds.items():
        if kind is not None:
            seen[kind] += 1
            in_turn.append((seen[kind], index))
    chosen = [index for _, index in sorted(in_turn)[: _MOST_PEOPLE // 2]]
    sound = [index for index, kind in kinds.items() if kind is None]
    places = np.linspace(0, len(sound) - 1, min(len(sound), _MOST_PEOPLE - len(chosen))).round().astype(int)
    return chosen + [sound[place] for place in places.tolist()]
