"""Contact sheets of annotated people."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.pictures.dataset_sheet import choose_people, save_dataset_sheet
from uniformer_pose.skeleton import load_skeleton


@pytest.fixture
def people(tmp_path: Path) -> PersonInstances:
    """Eight people in four grey pictures of 60x80, all keypoints in the middle of the box."""
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((60, 80, 3), 90, dtype=np.uint8))
    return PersonInstances(
        image_folder=tmp_path,
        image_ids=np.arange(4),
        file_names=np.array([f"{number}.png" for number in range(4)]),
        image_heights=np.full(4, 60, dtype=np.int32),
        image_widths=np.full(4, 80, dtype=np.int32),
        image_of_instance=np.repeat(np.arange(4, dtype=np.int32), 2),
        instance_ids=np.arange(10, 18),
        boxes_xywh=np.tile([20.0, 10.0, 30.0, 40.0], (8, 1)),
        box_scores=np.ones(8, dtype=np.float32),
        keypoints_in_image=np.full((8, 17, 2), 35.0, dtype=np.float32),
        visibility=np.full((8, 17), 2, dtype=np.uint8),
    )


def draw(path: Path, people: PersonInstances, suspects: dict[int, str]) -> np.ndarray:
    save_dataset_sheet(path, people, load_skeleton("coco_17"), CropSpec(64, 48), suspects=suspects)
    return cv2.imread(str(path))[..., ::-1]


def test_the_box_and_the_keypoints_are_where_the_annotation_has_them(tmp_path: Path, people: PersonInstances) -> None:
    sheet = draw(tmp_path / "sheet.png", people, {})
    picture = sheet[48 : 48 + 192, 6 : 6 + 256]  # below title and caption; 80x60 pixels, 3.2 times as large
    scale = 192 / 60
    white = (picture > 180).all(axis=2)
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    assert np.abs(np.array([rows[0], rows[-1]]) / scale - (10, 50)).max() < 0.5
    assert np.abs(np.array([columns[0], columns[-1]]) / scale - (20, 50)).max() < 0.5
    assert tuple(picture[round(35 * scale), round(35 * scale)]) != (90, 90, 90)


def test_a_doubtful_person_has_a_red_caption(tmp_path: Path, people: PersonInstances) -> None:
    sound = draw(tmp_path / "a.png", people, {})[24:48].astype(int)
    doubtful = draw(tmp_path / "b.png", people, {10: "box_partly_outside"})[24:48].astype(int)
    assert (sound[..., 0] - sound[..., 1]).max() < 30
    assert (doubtful[..., 0] - doubtful[..., 1]).max() > 100


def test_half_of_the_places_are_for_doubtful_people_of_every_kind_in_images_that_can_be_read(
    people: PersonInstances,
) -> None:
    assert sorted(choose_people(people, {}, {"0.png", "2.png"})) == [2, 3, 6, 7]
    chosen = choose_people(people, {10: "a", 11: "a", 12: "a", 13: "b"}, ())
    assert chosen[:2] == [0, 3]  # one of each kind first
    assert sorted(chosen) == list(range(8))
