"""Contact sheets of annotated people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.pictures.dataset_sheet import choose_people, save_dataset_sheet
from uniformer_pose.skeleton import load_skeleton

SETTINGS: dict[str, Any] = {"title": "t", "spec": CropSpec(64, 48)}


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


def draw(path: Path, people: PersonInstances, chosen: list[int], doubts: list[str | None]) -> np.ndarray:
    save_dataset_sheet(path, people, chosen, load_skeleton("coco_17"), doubts=doubts, **SETTINGS)
    return cv2.imread(str(path))[..., ::-1]


def test_the_box_and_the_keypoints_are_where_the_annotation_has_them(tmp_path: Path, people: PersonInstances) -> None:
    sheet = draw(tmp_path / "sheet.png", people, [0], [None])
    picture = sheet[48 : 48 + 256, 6 : 6 + 341]  # below title and caption; 80x60 pixels, 4.26 times as large
    scale = 256 / 60
    white = (picture > 180).all(axis=2)
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    assert np.abs(np.array([rows[0], rows[-1]]) / scale - (10, 50)).max() < 0.5
    assert np.abs(np.array([columns[0], columns[-1]]) / scale - (20, 50)).max() < 0.5
    assert tuple(picture[round(35 * scale), round(35 * scale)]) != (90, 90, 90)


def test_a_doubtful_person_has_a_red_caption(tmp_path: Path, people: PersonInstances) -> None:
    sound = draw(tmp_path / "a.png", people, [0], [None])[24:48].astype(int)
    doubtful = draw(tmp_path / "b.png", people, [0], ["box_partly_outside"])[24:48].astype(int)
    assert (sound[..., 0] - sound[..., 1]).max() < 30
    assert (doubtful[..., 0] - doubtful[..., 1]).max() > 100


def test_half_of_the_places_are_for_doubtful_people_of_every_kind(people: PersonInstances) -> None:
    suspects = {10: "a", 11: "a", 12: "a", 13: "b"}
    shown, doubts = choose_people(people, suspects, set(), 4)
    assert sorted(doubt for doubt in doubts if doubt) == ["a", "b"]
    assert [people.instance_ids[index] in suspects for index in shown] == [True, True, False, False]
    assert {people.instance_ids[index] for index in shown[2:]} == {14, 17}


def test_people_in_unreadable_images_are_not_shown(people: PersonInstances) -> None:
    shown, _ = choose_people(people, {10: "a"}, {"0.png", "2.png"}, 8)
    assert {int(people.instance_ids[index]) for index in shown} == {12, 13, 16, 17}
