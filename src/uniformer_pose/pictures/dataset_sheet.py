"""A contact sheet of annotated people: each in its picture, and in the crop that training takes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropGeometry, CropSpec
from uniformer_pose.data.images import read_image_of
from uniformer_pose.pictures.drawing import Array, Image, draw_poses, save_picture
from uniformer_pose.pictures.sheets import BACKGROUND, POOR, TEXT, arrange, panel
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
    columns: int = 4,
) -> None:
    """Write a PNG of the ``chosen`` people (indices into ``people``), whose images can be read.

    On the left the picture, on the right the upright crop that ``spec`` says, both with box and keypoints:
    filled where visible, rings where hidden. A person's entry in ``doubts`` stands in the caption, in red.
    """
    panels = []
    for index, doubt in zip(chosen, doubts, strict=True):
        image_index = int(people.image_of_instance[index])
        image = read_image_of(people, image_index).pixels
        box = people.boxes_xywh[index]
        geometry = spec.around(box)
        keypoints, visibility = people.keypoints_in_image[index].astype(np.float64), people.visibility[index]
        corners = np.array([box[:2], box[:2] + box[2:]])
        to_panel, picture = _fitted(image)
        pictures = [
            _annotated(picture, to_panel, keypoints, corners, visibility, skeleton),
            _crop(geometry, image, keypoints, corners, visibility, skeleton),
        ]
        caption = f"annotation {people.instance_ids[index]}: " + (
            doubt.replace("_", " ") if doubt else f"{(visibility == 2).sum()} visible, {(visibility == 1).sum()} hidden"
        )
        panels.append(panel(pictures, caption, POOR if doubt else TEXT))
    save_picture(path, arrange(panels, title, columns))


def _crop(
    geometry: CropGeometry, image: Image, keypoints: Array, corners: Array, visibility: Array, skeleton: Skeleton
) -> Image:
    scale = _HEIGHT / geometry.spec.height
    size = (max(1, round(geometry.spec.width * scale)), _HEIGHT)
    enlarged = np.asarray(cv2.resize(geometry.crop(image), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    points = geometry.to_crop(np.asarray(keypoints, dtype=np.float64))
    box = geometry.to_crop(np.asarray(corners, dtype=np.float64))
    return _annotated(enlarged, scale, points, box, visibility, skeleton)


def _fitted(image: Image) -> tuple[float, Image]:
    """The whole picture in the upper left of a panel, and the factor it was scaled by."""
    height, width = image.shape[:2]
    panel_width = round(_HEIGHT * _PICTURE_ASPECT)
    scale = min(_HEIGHT / height, panel_width / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    panel: npt.NDArray[np.uint8] = np.full((_HEIGHT, panel_width, 3), BACKGROUND, dtype=np.uint8)
    panel[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return scale, panel


def _annotated(
    picture: Image, scale: float, keypoints: Array, corners: Array, visibility: Array, skeleton: Skeleton
) -> Image:
    """A picture that was enlarged by ``scale``, with keypoints (K, 2) and box corners (2, 2) given as before that."""
    canvas = picture.copy()
    edges = np.round(scale * np.asarray(corners, dtype=np.float64))
    first, second = np.clip(edges, -1e6, 1e6).astype(int).tolist()
    for colour, thickness in ((_BOX_RIM, 3), (_BOX, 1)):
        cv2.rectangle(canvas, first, second, colour, thickness, cv2.LINE_AA)
    centers = scale * (np.asarray(keypoints, dtype=np.float64) + 0.5) - 0.5  # pixel centres stay pixel centres
    seen = np.asarray(visibility)[None]
    return draw_poses(canvas, centers[None], seen, skeleton, score_threshold=0, hollow=np.asarray(seen == 1))


def choose_people(
    people: PersonInstances, suspects: dict[int, str], bad_images: set[str], most: int
) -> tuple[list[int], list[str | None]]:
    """Which people to show, with their doubts: up to half of them doubtful ones, of as many kinds as there are.

    The others are spread evenly over the file. People in images that cannot be read are not shown.
    """
    readable = [
        index
        for index, image in enumerate(people.image_of_instance.tolist())
        if str(people.file_names[image]) not in bad_images
    ]
    by_kind: dict[str, list[int]] = {}
    for index in readable:
        doubt = suspects.get(int(people.instance_ids[index]))
        if doubt is not None:
            by_kind.setdefault(doubt, []).append(index)
    # One of each kind, then a second of each, and so on.
    in_turn = sorted((place, index) for found in by_kind.values() for place, index in enumerate(found))
    doubtful = [index for _, index in in_turn[: max(1, most // 2)]] if most else []
    sound = [index for index in readable if int(people.instance_ids[index]) not in suspects]
    room = min(len(sound), most - len(doubtful))
    chosen = (
        [sound[place] for place in np.linspace(0, len(sound) - 1, room).round().astype(int).tolist()] if room else []
    )
    shown = doubtful + chosen
    return shown, [suspects.get(int(people.instance_ids[index])) for index in shown]
