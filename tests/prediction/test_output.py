"""Folders of pictures and videos are posed into an output folder, and an interruption changes nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools.coco import COCO

from small_models import small_model
from uniformer_pose.errors import InputError
from uniformer_pose.pictures.drawing import save_picture
from uniformer_pose.prediction.boxes import FullPictures, PersonBoxes
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.listed_boxes import read_listed_boxes
from uniformer_pose.prediction.output import COLUMNS, PoseOutput
from uniformer_pose.prediction.pose_files import PoseFinder, pose_pictures, pose_videos
from uniformer_pose.prediction.sources import find_source

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(small_model(), device="cpu", batch_size=4)


def noise(seed: int, height: int = 48, width: int = 64) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for seed, name in enumerate(("a.jpg", "b.png", "trip/c.jpg", "trip/d.webp.png", "trip/e.jpg")):
        save_picture(root / name, noise(seed))
    return root


class TwoPeople:
    """Two people in each picture; Ctrl-C comes after so many pictures."""

    def __init__(self, pictures: int = 1000) -> None:
        self.pictures = pictures

    def __call__(self, _names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        self.pictures -= len(images)
        if self.pictures < 0:
            raise KeyboardInterrupt
        return [PersonBoxes(np.array([[4, 5, 16, 30], [44, 5, 16, 30]]), np.array([0.9, 0.8]))] * len(images)

    def remarks(self) -> list[str]:
        return []


def posed(
    source: Path,
    folder: Path,
    estimator: PoseEstimator,
    finder: Any = None,
    *,
    settings: Any = None,
    smooth: bool = False,
    listed: Any = None,
    **options: Any,
) -> dict[str, str]:
    """Do what src/predict.py does; returns what could not be read."""
    found = find_source(str(source))
    output = PoseOutput(folder, found.items, settings or {"flip_test": False}, **options)
    find_poses = PoseFinder(estimator, finder or FullPictures())
    failed, _ = pose_pictures(output.unfinished("picture"), find_poses, output)
    failed |= pose_videos(output.unfinished("video"), find_poses, output, smooth=smooth)[0]
    output.write_results(estimator.skeleton, listed)
    return failed


def content(output: Path) -> dict[str, bytes]:
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in sorted(output.rglob("*")) if p.is_file()}


def poses_in(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "poses.json").read_text())


def test_the_folders_of_the_source_are_kept(photos: Path, tmp_path: Path, estimator: PoseEstimator) -> None:
    assert posed(photos, tmp_path / "out", estimator) == {}
    names = ["a.jpg", "b.png", "trip/c.jpg", "trip/d.webp.png", "trip/e.jpg"]
    assert set(content(tmp_path / "out")) == {
        *("poses.csv", "poses.json", "settings.json"),
        *(f"drawn/{name}" for name in names),
        *(f"poses/{name}.jsonl" for name in names),
    }
    assert [pose["file_name"] for pose in poses_in(tmp_path / "out")] == names
    assert [pose["image_id"] for pose in poses_in(tmp_path / "out")] == [1, 2, 3, 4, 5]


def test_other_tools_read_the_results_and_the_table_has_a_row_per_keypoint(
    photos: Path, tmp_path: Path, estimator: PoseEstimator, capsys: pytest.CaptureFixture[str]
) -> None:
    posed(photos, tmp_path / "out", estimator, TwoPeople(), draw=False)
    poses = poses_in(tmp_path / "out")
    coco = COCO()
    coco.dataset = {"images": [{"id": n} for n in range(1, 6)], "annotations": [], "categories": [{"id": 1}]}
    coco.createIndex()
    assert len(coco.loadRes(str(tmp_path / "out" / "poses.json")).anns) == len(poses) == 10
    with (tmp_path / "out" / "poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (tuple(rows[0]), len(rows)) == (COLUMNS, 10 * 17)
    row = rows[17 + 1]
    assert [row[name] for name in COLUMNS[:6]] == ["a.jpg", "", "", "1", "", "left_eye"]
    assert float(row["x"]) == pytest.approx(poses[1]["keypoints"][3], abs=1e-3)


def test_what_is_known_of_visibility_is_in_both_files_and_nothing_else_changes(
    photos: Path, tmp_path: Path, estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    posed(photos, tmp_path / "plain", estimator, TwoPeople(), draw=False)
    predict, known = PoseEstimator.predict_batch, np.random.default_rng(0).random((2, 17, 2))
    monkeypatch.setattr(
        PoseEstimator, "predict_batch", lambda *a, **b: [replace(each, visibility=known) for each in predict(*a, **b)]
    )
    posed(photos, tmp_path / "known", estimator, TwoPeople(), draw=False)
    more, plain = poses_in(tmp_path / "known"), poses_in(tmp_path / "plain")
    assert [pose.pop("visibility") for pose in more] == known.tolist() * 5
    assert more == plain
    rows, plain_rows = (
        list(csv.reader((tmp_path / name / "poses.csv").read_text().splitlines())) for name in ("known", "plain")
    )
    assert [row[:-2] for row in rows] == plain_rows
    assert rows[0][-2:] == ["labelled", "visible"]
    np.testing.assert_allclose(np.array([row[-2:] for row in rows[1:35]], dtype=float), known.reshape(34, 2), atol=1e-6)


def test_an_interrupted_run_continues_to_the_same_result(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    posed(photos, tmp_path / "straight", estimator, TwoPeople())
    with pytest.raises(KeyboardInterrupt):
        posed(photos, tmp_path / "broken", estimator, TwoPeople(4))
    assert len(list((tmp_path / "broken" / "poses").rglob("*.jsonl"))) == 4
    assert not (tmp_path / "broken" / "poses.json").exists()
    posed(photos, tmp_path / "broken", estimator, TwoPeople(1))  # only what is missing
    assert content(tmp_path / "broken") == content(tmp_path / "straight")


def test_other_settings_and_files_of_others_are_refused_unless_everything_shall_be_posed_again(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    posed(photos, tmp_path / "out", estimator)
    before = content(tmp_path / "out")
    with pytest.raises(InputError, match=r"flip_test was False and is True.*overwrite=true"):
        posed(photos, tmp_path / "out", estimator, settings={"flip_test": True})
    assert content(tmp_path / "out") == before
    posed(photos, tmp_path / "out", estimator, TwoPeople(5), settings={"flip_test": True}, overwrite=True)
    assert len(poses_in(tmp_path / "out")) == 10
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match="files that no such run wrote; give output="):
        posed(photos, tmp_path / "mine", estimator)
    (tmp_path / "mine" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        posed(photos, tmp_path / "mine", estimator)
    with pytest.raises(InputError, match="the source lies in the output folder"):
        posed(tmp_path / "out" / "drawn", tmp_path / "out", estimator, overwrite=True)


def test_a_run_that_finished_nothing_may_be_repeated_with_other_settings(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    with pytest.raises(KeyboardInterrupt):
        posed(photos, tmp_path / "out", estimator, TwoPeople(0))
    posed(photos, tmp_path / "out", estimator, settings={"flip_test": True})


def test_broken_pictures_are_reported_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "page.jpg").write_text("<html>not found</html>")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:-100])
    failed = posed(photos, tmp_path / "out", estimator)
    assert sorted(failed) == ["cut.jpg", "empty.jpg", "page.jpg"]
    assert "cut off" in failed["cut.jpg"]
    assert len(poses_in(tmp_path / "out")) == 5


def ids_of(output: Path) -> dict[str, int]:
    return {pose["file_name"]: pose["image_id"] for pose in poses_in(output)}


def test_numbers_in_names_are_image_ids_and_a_stray_picture_leaves_the_others_theirs(
    tmp_path: Path, estimator: PoseEstimator
) -> None:
    for name in ("000000000785.jpg", "2.jpg", "a_cover.jpg", "notes.png"):
        save_picture(tmp_path / "val" / name, noise(0))
    posed(tmp_path / "val", tmp_path / "out", estimator, draw=False)
    assert ids_of(tmp_path / "out") == {"000000000785.jpg": 785, "2.jpg": 2, "a_cover.jpg": 1, "notes.png": 3}
    assert not (tmp_path / "out" / "drawn").exists()


def test_pictures_that_share_a_number_are_told_apart_and_a_file_of_boxes_has_the_last_word(
    tmp_path: Path, estimator: PoseEstimator
) -> None:
    for name in ("a/1.jpg", "b/001.jpg", "b/2.jpg"):
        save_picture(tmp_path / "val" / name, noise(0))
    posed(tmp_path / "val", tmp_path / "out", estimator, draw=False)
    assert ids_of(tmp_path / "out") == {"a/1.jpg": 3, "b/001.jpg": 4, "b/2.jpg": 2}
    box = {"image_id": 77, "bbox": [4, 5, 16, 30], "category_id": 18}
    listing = {"images": [{"id": 77, "file_name": "b/001.jpg"}], "annotations": [box], "categories": [{"id": 18}]}
    (tmp_path / "boxes.json").write_text(json.dumps(listing))
    listed = read_listed_boxes(tmp_path / "boxes.json", ["a/1.jpg", "b/001.jpg", "b/2.jpg"])
    posed(tmp_path / "val", tmp_path / "listed", estimator, listed, listed=listed)
    assert ids_of(tmp_path / "listed") == {"b/001.jpg": 77}
    assert poses_in(tmp_path / "listed")[0]["category_id"] == 18


# -- videos -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    pytest.importorskip("av")
    from video_files import make_video

    (tmp_path / "clips").mkdir()
    return make_video(tmp_path / "clips" / "walk.mp4", 40)


def test_a_video_is_posed_frame_by_frame_with_numbers_that_stay(
    clip: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    assert posed(clip, tmp_path / "out", estimator, TwoPeople()) == {}
    assert {"drawn/walk.mp4", "poses/walk.mp4.jsonl"} < set(content(tmp_path / "out"))
    poses = poses_in(tmp_path / "out")
    assert [pose["frame"] for pose in poses[::2]] == list(range(40))
    assert {pose["track_id"] for pose in poses[::2]} == {1}
    assert {pose["track_id"] for pose in poses[1::2]} == {2}
    assert poses[10]["seconds"] == pytest.approx(5 / 30, abs=1e-4)


def test_an_interrupted_video_leaves_nothing_under_its_name_and_begins_again(
    clip: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    posed(clip, tmp_path / "straight", estimator, TwoPeople())
    with pytest.raises(KeyboardInterrupt):
        posed(clip, tmp_path / "broken", estimator, TwoPeople(20))
    assert set(content(tmp_path / "broken")) == {"settings.json"}
    posed(clip, tmp_path / "broken", estimator, TwoPeople())
    assert content(tmp_path / "broken") == content(tmp_path / "straight")


def test_a_file_that_is_no_video_is_reported_and_leaves_nothing(
    clip: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    (clip.parent / "page.mp4").write_text("<html>")
    assert list(posed(clip.parent, tmp_path / "out", estimator)) == ["page.mp4"]
    assert [path.name for path in (tmp_path / "out" / "drawn").iterdir()] == ["walk.mp4"]


def test_steadied_keypoints_differ_from_the_plain_ones_but_for_the_first_frame(
    clip: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    for smooth in (False, True):
        posed(clip, tmp_path / str(smooth), estimator, TwoPeople(), smooth=smooth, draw=False)
    plain, steady = poses_in(tmp_path / "False"), poses_in(tmp_path / "True")
    assert plain[0]["keypoints"] == steady[0]["keypoints"]
    assert plain[-1]["keypoints"] != steady[-1]["keypoints"]


def test_whole_bodies_are_numbered_steadied_and_written_point_by_point(clip: Path, tmp_path: Path) -> None:
    model = small_model(skeleton_name="coco_wholebody_133")
    estimator = PoseEstimator(model, device="cpu", batch_size=4)
    assert posed(clip, tmp_path / "out", estimator, TwoPeople(), smooth=True) == {}
    poses = poses_in(tmp_path / "out")
    assert [pose["track_id"] for pose in poses] == [1, 2] * 40
    assert {len(pose["keypoints"]) for pose in poses} == {3 * 133}
    with (tmp_path / "out" / "poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["keypoint"] for row in rows]
    assert names == [*model.skeleton.keypoint_names] * 80
    assert [names[place] for place in (16, 22, 90, 91, 132)] == [
        *("right_ankle", "right_heel", "face-67", "left_hand_root", "right_pinky_finger4")
    ]
    written = [[float(row[name]) for name in ("x", "y", "score")] for row in rows[-133:]]
    assert np.allclose(np.ravel(written), poses[-1]["keypoints"], atol=1e-3)
