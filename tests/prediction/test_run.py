"""Folders of pictures and videos are posed into an output folder, and an interruption changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from models import small_model

from uniformer_pose.errors import InputError
from uniformer_pose.pictures.drawing import save_picture
from uniformer_pose.prediction.boxes import FullPictures
from uniformer_pose.prediction.detection import PersonBoxes
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.journal import Journal
from uniformer_pose.prediction.run import PoseRun, write_results
from uniformer_pose.prediction.sources import Source, find_source
from uniformer_pose.prediction.videos import VideoSettings

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


class Interrupted(KeyboardInterrupt):
    pass


class StopsAfter(FullPictures):
    """Finds boxes for so many groups of pictures, then somebody presses Ctrl-C."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(self, names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        if self.groups == 0:
            raise Interrupted
        self.groups -= 1
        return super().__call__(names, images)


def posed(
    source: Source, output: Path, estimator: PoseEstimator, finder: Any = None, *, settings: Any = None, **options: Any
) -> tuple[dict[str, str], PoseRun]:
    overwrite = options.get("overwrite", False)
    with Journal(output, {"settings": 1}, overwrite=overwrite) as journal:
        run = PoseRun(estimator, finder or FullPictures(), output, journal, flip_test=False, **options)
        items = [item for item in source.items if item.name not in journal]
        failed = run.pictures([item for item in items if item.kind == "picture"])
        failed |= run.videos([item for item in items if item.kind == "video"], settings or VideoSettings())
        write_results(output, journal, estimator.skeleton, table="csv")
    return failed, run


def content(output: Path) -> dict[str, bytes]:
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }


def test_the_folders_of_the_source_are_kept(photos: Path, tmp_path: Path, estimator: PoseEstimator) -> None:
    failed, _ = posed(find_source(str(photos)), tmp_path / "out", estimator)
    assert failed == {}
    assert list(content(tmp_path / "out")) == [
        "drawn/a.jpg",
        "drawn/b.png",
        "drawn/trip/c.jpg",
        "drawn/trip/d.webp.png",
        "drawn/trip/e.jpg",
        "poses.csv",
        "poses.json",
    ]
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [pose["file_name"] for pose in poses] == ["a.jpg", "b.png", "trip/c.jpg", "trip/d.webp.png", "trip/e.jpg"]
    assert [pose["image_id"] for pose in poses] == [1, 2, 3, 4, 5]


def test_an_interrupted_run_continues_to_the_same_result(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    posed(find_source(str(photos)), tmp_path / "straight", estimator)
    with pytest.raises(Interrupted):
        posed(find_source(str(photos)), tmp_path / "broken", estimator, StopsAfter(1))
    assert not (tmp_path / "broken" / "poses.json").exists()
    assert len((tmp_path / "broken" / "journal.jsonl").read_text().splitlines()) > 4
    posed(find_source(str(photos)), tmp_path / "broken", estimator)
    assert content(tmp_path / "broken") == content(tmp_path / "straight")


def test_broken_pictures_are_reported_and_the_rest_goes_on(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "page.jpg").write_text("<html>not found</html>")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:-100])
    failed, _ = posed(find_source(str(photos)), tmp_path / "out", estimator)
    assert sorted(failed) == ["cut.jpg", "empty.jpg", "page.jpg"]
    assert "the JPEG is cut off" in failed["cut.jpg"]
    assert len(json.loads((tmp_path / "out" / "poses.json").read_text())) == 5


def test_numbers_in_names_are_the_image_ids_as_in_coco(tmp_path: Path, estimator: PoseEstimator) -> None:
    for number in (139, 285):
        save_picture(tmp_path / "val" / f"{number:012d}.jpg", noise(number))
    posed(find_source(str(tmp_path / "val")), tmp_path / "out", estimator)
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [pose["image_id"] for pose in poses] == [139, 285]


def ids_of(output: Path) -> dict[str, int]:
    return {pose["file_name"]: pose["image_id"] for pose in json.loads((output / "poses.json").read_text())}


def test_a_stray_picture_leaves_the_others_their_ids(tmp_path: Path, estimator: PoseEstimator) -> None:
    for name in ("000000000785.jpg", "2.jpg", "a_cover.jpg", "notes.png"):
        save_picture(tmp_path / "val" / name, noise(0))
    posed(find_source(str(tmp_path / "val")), tmp_path / "out", estimator)
    assert ids_of(tmp_path / "out") == {"000000000785.jpg": 785, "2.jpg": 2, "a_cover.jpg": 1, "notes.png": 3}


def test_pictures_that_share_a_number_are_told_apart_and_named(tmp_path: Path, estimator: PoseEstimator) -> None:
    for name in ("a/1.jpg", "b/001.jpg", "b/2.jpg"):
        save_picture(tmp_path / "val" / name, noise(0))
    with Journal(tmp_path / "out", {}, overwrite=False) as journal:
        run = PoseRun(estimator, FullPictures(), tmp_path / "out", journal, flip_test=False, draw=False)
        run.pictures(find_source(str(tmp_path / "val")).items)
        lines = write_results(tmp_path / "out", journal, estimator.skeleton, table=None)
        assert ids_of(tmp_path / "out") == {"a/1.jpg": 3, "b/001.jpg": 4, "b/2.jpg": 2}
        assert any("2 pictures" in line and "a/1.jpg" in line for line in lines)
        write_results(
            tmp_path / "out", journal, estimator.skeleton, table=None, numbers={"b/001.jpg": 77}, category_id=18
        )
    assert ids_of(tmp_path / "out") == {"a/1.jpg": 1, "b/001.jpg": 77, "b/2.jpg": 2}
    assert json.loads((tmp_path / "out" / "poses.json").read_text())[0]["category_id"] == 18


def test_files_that_are_there_already_are_not_touched_unless_told_to(
    photos: Path, tmp_path: Path, estimator: PoseEstimator
) -> None:
    precious = tmp_path / "out" / "drawn" / "trip" / "c.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"trip/c.jpg exists already; give output="):
        posed(find_source(str(photos)), tmp_path / "out", estimator)
    assert precious.read_bytes() == b"precious"
    posed(find_source(str(photos)), tmp_path / "out", estimator, overwrite=True)
    assert precious.read_bytes() != b"precious"


def test_the_source_itself_is_never_written_to(tmp_path: Path, estimator: PoseEstimator) -> None:
    source = tmp_path / "drawn"
    save_picture(source / "a.png", noise(0))
    before = (source / "a.png").read_bytes()
    with pytest.raises(InputError, match="is the source itself"):
        posed(find_source(str(source)), tmp_path, estimator, overwrite=True)
    assert (source / "a.png").read_bytes() == before


def test_without_drawing_there_are_numbers_only(photos: Path, tmp_path: Path, estimator: PoseEstimator) -> None:
    posed(find_source(str(photos)), tmp_path / "out", estimator, draw=False)
    assert list(content(tmp_path / "out")) == ["poses.csv", "poses.json"]


def test_every_drawn_picture_can_be_shown(photos: Path, tmp_path: Path, estimator: PoseEstimator) -> None:
    shown: list[Image] = []
    posed(find_source(str(photos)), tmp_path / "out", estimator, draw=False, show=shown.append)
    assert [picture.shape for picture in shown] == [(48, 64, 3)] * 5


# Videos


class MovingBoxes:
    """Two people who walk apart, by the number of the call; Ctrl-C comes after so many frames."""

    def __init__(self, frames: int | None = None) -> None:
        self.frames = frames

    def __call__(self, _names: Sequence[str], images: Sequence[Image]) -> list[PersonBoxes]:
        found = []
        for image in images:
            if self.frames is not None:
                if self.frames == 0:
                    raise Interrupted
                self.frames -= 1
            shift = float(image[0, 0, 0]) / 8  # the frame says where they are
            found.append(PersonBoxes(np.array([[4 + shift, 5, 16, 30], [44 - shift, 5, 16, 30]]), np.array([0.9, 0.8])))
        return found

    def remarks(self) -> list[str]:
        return []


def write_video(path: Path, frames: int) -> None:
    from uniformer_pose.prediction.video_writer import VideoWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, height=48, width=64, frame_rate=Fraction(25)) as writer:
        for index in range(frames):
            picture = noise(index // 10) // 8
            picture[:8, :8] = min(255, index)
            writer.write(picture, index / 25)


def test_a_video_is_posed_frame_by_frame_with_numbers_that_stay(tmp_path: Path, estimator: PoseEstimator) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "walk.mp4", 20)
    failed, _ = posed(find_source(str(tmp_path / "walk.mp4")), tmp_path / "out", estimator, MovingBoxes())
    assert failed == {}
    assert list(content(tmp_path / "out")) == ["drawn/walk.mp4", "frames/walk.mp4.jsonl", "poses.csv", "poses.json"]
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert len(poses) == 40
    assert [pose["frame"] for pose in poses[::2]] == list(range(20))
    assert {pose["track_id"] for pose in poses[::2]} == {1}
    assert {pose["track_id"] for pose in poses[1::2]} == {2}
    assert poses[10]["seconds"] == pytest.approx(5 / 25)


@pytest.mark.parametrize("draw", [True, False], ids=["drawn", "numbers only"])
def test_an_interrupted_video_continues_to_the_same_result(
    tmp_path: Path, estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch, draw: bool
) -> None:
    pytest.importorskip("av")
    from uniformer_pose.prediction import video_writer, videos

    short_segments = {"segment_frames": 16}
    plain = video_writer.VideoWriter.__init__
    monkeypatch.setattr(
        video_writer.VideoWriter, "__init__", lambda self, *a, **k: plain(self, *a, **{**k, **short_segments})
    )
    monkeypatch.setattr(videos, "_FRAMES_BETWEEN_STATES", 16)
    write_video(tmp_path / "walk.mp4", 50)
    source, settings = find_source(str(tmp_path / "walk.mp4")), VideoSettings(smooth=True)
    posed(source, tmp_path / "straight", estimator, MovingBoxes(), settings=settings, draw=draw)
    for frames in (20, 17):
        with pytest.raises(Interrupted):
            posed(source, tmp_path / "broken", estimator, MovingBoxes(frames), settings=settings, draw=draw)
    finder = MovingBoxes(50 - 32 + 1)  # so few are left that two segments cannot have been done anew
    posed(source, tmp_path / "broken", estimator, finder, settings=settings, draw=draw)
    assert content(tmp_path / "broken") == content(tmp_path / "straight")


def test_a_file_that_is_no_video_is_reported(tmp_path: Path, estimator: PoseEstimator) -> None:
    pytest.importorskip("av")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "page.mp4").write_text("<html>")
    write_video(tmp_path / "clips" / "walk.mp4", 3)
    failed, _ = posed(find_source(str(tmp_path / "clips")), tmp_path / "out", estimator, MovingBoxes())
    assert list(failed) == ["page.mp4"]
    assert (tmp_path / "out" / "drawn" / "walk.mp4").is_file()
    assert not (tmp_path / "out" / "drawn" / "page.mp4.segments").exists()


def test_steadied_keypoints_differ_from_the_plain_ones_but_for_the_first_frame(
    tmp_path: Path, estimator: PoseEstimator
) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "walk.mp4", 6)
    source = find_source(str(tmp_path / "walk.mp4"))
    for smooth in (False, True):
        posed(source, tmp_path / str(smooth), estimator, MovingBoxes(), settings=VideoSettings(smooth=smooth))
    plain, steady = (json.loads((tmp_path / s / "poses.json").read_text()) for s in ("False", "True"))
    assert plain[0]["keypoints"] == steady[0]["keypoints"]
    assert plain[-1]["keypoints"] != steady[-1]["keypoints"]
