"""What the page is told is what the estimator says; what visitors hand in wrongly becomes a sentence."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from demo_pages import LIMITS, encoded, smooth_photo
from uniformer_pose.data.crop_geometry import CropGeometry
from uniformer_pose.demo_page.answers import (
    MOST_BOXES,
    Example,
    Limits,
    PageAnswers,
    rendered_examples,
    safe_name,
)
from uniformer_pose.demo_page.shelf import PictureGoneError
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import FullPictures
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.synthetic import SyntheticSettings

PHOTO = smooth_photo()
BOXES = [[10.0, 10.0, 80.0, 100.0], [60.5, 20.25, 70.0, 90.0]]


def opened(answers: PageAnswers, data: bytes | None = None, name: str = "photo.png") -> dict[str, Any]:
    return answers.open_upload(name, encoded(PHOTO) if data is None else data)


def picture_of(base64_png: str) -> np.ndarray[Any, Any]:
    return np.asarray(PillowImage.open(io.BytesIO(base64.b64decode(base64_png))))


def sentence(call: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("flip_test", [False, True])
def test_poses_are_the_estimators(answers: PageAnswers, estimator: PoseEstimator, flip_test: bool) -> None:
    key = opened(answers)["picture"]
    answered = answers.poses({"picture": key, "boxes": BOXES, "flip_test": flip_test})
    expected = estimator(PHOTO, BOXES, flip_test=flip_test).to_coco(1)
    assert answered["results"] == [{**result, "file_name": "photo.png"} for result in expected]
    assert answered["seconds"] > 0


def test_the_boxes_scores_go_into_the_poses_scores(answers: PageAnswers) -> None:
    key = opened(answers)["picture"]
    plain = answers.poses({"picture": key, "boxes": BOXES})["results"]
    scored = answers.poses({"picture": key, "boxes": BOXES, "box_scores": [0.5, 1.0]})["results"]
    assert scored[0]["score"] == pytest.approx(0.5 * plain[0]["score"])
    assert scored[1]["score"] == plain[1]["score"]


@pytest.mark.parametrize(("name", "number"), [("000000000139.jpg", 139), ("IMG_20.jpg", 1), ("٣.jpg", 1)])
def test_a_picture_whose_name_is_a_number_keeps_it_as_image_id(answers: PageAnswers, name: str, number: int) -> None:
    key = opened(answers, name=name)["picture"]
    assert answers.poses({"picture": key, "boxes": BOXES[:1]})["results"][0]["image_id"] == number


def test_a_photo_is_turned_upright_as_its_exif_says(answers: PageAnswers) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    upload = opened(answers, encoded(PHOTO, "JPEG", exif=exif))
    assert (upload["height"], upload["width"]) == (160, 120)
    preview = PillowImage.open(io.BytesIO(answers.preview(upload["picture"])))
    assert preview.size == (120, 160)


def test_a_preview_shows_the_picture(answers: PageAnswers) -> None:
    preview = PillowImage.open(io.BytesIO(answers.preview(opened(answers)["picture"])))
    assert preview.format == "JPEG"
    assert np.abs(np.asarray(preview).astype(int) - PHOTO).mean() < 4


def test_a_large_pictures_preview_is_smaller_and_boxes_still_count_in_its_own_pixels(
    answers: PageAnswers, estimator: PoseEstimator
) -> None:
    wide = smooth_photo(40, 20_000)
    upload = opened(answers, encoded(wide))
    assert (upload["height"], upload["width"]) == (40, 20_000)
    assert PillowImage.open(io.BytesIO(answers.preview(upload["picture"]))).size == (1600, 3)
    box = [19_000.0, 0.0, 40.0, 40.0]
    result = answers.poses({"picture": upload["picture"], "boxes": [box]})["results"][0]
    assert result["keypoints"] == estimator(wide, [box]).to_coco(1)[0]["keypoints"]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1)])
def test_the_thinnest_picture_has_a_pose(answers: PageAnswers, size: tuple[int, int]) -> None:
    upload = opened(answers, encoded(smooth_photo(*size)))
    result = answers.poses({"picture": upload["picture"], "boxes": [[0, 0, size[1], size[0]]]})["results"][0]
    assert np.isfinite(result["keypoints"]).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!doctype html><title>Not found</title>", "web page"),
        (encoded(PHOTO, "JPEG")[:2000], "cut off"),
        (encoded(PHOTO)[:2000], "cut off"),
        (np.random.default_rng(0).bytes(5000), "no image"),
        (encoded(np.zeros((1001, 1000, 3), dtype=np.uint8)), "1000000 pixels"),
    ],
)
def test_a_bad_upload_is_told_by_the_visitors_name_for_it(answers: PageAnswers, data: bytes, reason: str) -> None:
    told = sentence(answers.open_upload, "holiday.jpg", data)
    assert told.startswith("holiday.jpg: ")
    assert reason in told
    assert "/" not in told.replace("height x width", "")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300))
def test_any_name_becomes_one_short_line_that_names_no_folder(name: str) -> None:
    shown = safe_name(name)
    assert 1 <= len(shown) <= 80
    assert shown.isprintable()
    assert "/" not in shown
    assert "\\" not in shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\a.png", "a.png"),
        ("line\nbreak.png", "linebreak.png"),
        ("", "picture"),
        ("x" * 200 + ".jpeg", "x" * 75 + ".jpeg"),
    ],
)
def test_a_files_name_is_shown_without_its_folder(name: str, shown: str) -> None:
    assert safe_name(name) == shown


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ([], "picture"),
        ({}, "picture"),
        ({"picture": 3}, "picture"),
        ({"boxes": []}, "1 to 100"),
        ({"boxes": "all"}, "1 to 100"),
        ({"boxes": [[0, 0, 1, 1]] * (MOST_BOXES + 1)}, "1 to 100"),
        ({"boxes": [[0, 0, 1]]}, "shape"),
        ({"boxes": [[0, 0, 1], [1, 2, 3, 4]]}, "boxes"),
        ({"boxes": [[0, 0, 0, 4]]}, "above 0"),
        ({"boxes": [[0, 0, float("nan"), 4]]}, "finite"),
        ({"boxes": [[0, 0, 1e300, 4]]}, "below"),
        ({"boxes": [[0, 0, {}, 4]]}, "not numbers"),
        ({"boxes": [[0, 0, 4, 4]], "box_scores": [1, 1]}, "scores"),
        ({"boxes": [[0, 0, 4, 4]], "flip_test": "yes"}, "flip_test='yes'"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_so(answers: PageAnswers, question: Any, named: str) -> None:
    if isinstance(question, dict) and "boxes" in question:
        question = {"picture": opened(answers)["picture"], **question}
    assert named in sentence(answers.poses, question)


@pytest.mark.parametrize("box", [None, [1, 2, 3], [0, 0, -1, 5], [0, 0, None, 5]])
def test_heatmaps_of_a_box_that_is_none_are_refused(answers: PageAnswers, box: Any) -> None:
    key = opened(answers)["picture"]
    assert "box" in sentence(answers.heatmaps, {"picture": key, "box": box})


def test_a_picture_that_had_to_go_is_told_apart(answers: PageAnswers) -> None:
    with pytest.raises(PictureGoneError):
        answers.poses({"picture": "gone", "boxes": BOXES})


def test_heatmaps_lie_over_the_crop_and_peak_where_the_pose_has_its_keypoints(
    answers: PageAnswers, estimator: PoseEstimator
) -> None:
    key = opened(answers)["picture"]
    maps = answers.heatmaps({"picture": key, "box": BOXES[1]})
    geometry = CropGeometry.from_box(BOXES[1], height=128, width=96, unbiased=True)
    people = estimator(PHOTO, BOXES[1:])
    assert np.array_equal(picture_of(maps["crop"]), geometry.crop(PHOTO))
    assert geometry.to_image(maps["keypoints_in_crop"]) == pytest.approx(people.keypoints[0], abs=1e-3)
    assert maps["peaks"] == pytest.approx(people.scores[0].tolist(), abs=1e-5)
    layers = np.stack([picture_of(layer) for layer in maps["layers"]])
    assert layers.shape == (17, 128, 96, 4)
    assert (layers[..., 3].reshape(17, -1).max(axis=1) == 255).all()


def test_heatmaps_with_flip_test_are_others(answers: PageAnswers, estimator: PoseEstimator) -> None:
    key = opened(answers)["picture"]
    plain = answers.heatmaps({"picture": key, "box": BOXES[0]})
    mean = answers.heatmaps({"picture": key, "box": BOXES[0], "flip_test": True})
    assert mean["peaks"] == pytest.approx(estimator(PHOTO, BOXES[:1], flip_test=True).scores[0].tolist(), abs=1e-5)
    assert mean["peaks"] != plain["peaks"]


def test_the_layer_of_all_keypoints_is_their_highest(answers: PageAnswers, estimator: PoseEstimator) -> None:
    key = opened(answers)["picture"]
    maps = answers.heatmaps({"picture": key, "box": BOXES[0]})
    best = int(np.argmax(maps["peaks"]))
    strongest = picture_of(maps["layers"][best])[..., 3] == 255
    assert (picture_of(maps["all_layer"])[..., 3][strongest] == 255).all()


def test_an_example_opens_with_the_boxes_of_its_people(answers: PageAnswers, examples: list[Example]) -> None:
    upload = answers.open_example(1)
    assert upload["boxes"] == examples[1].boxes_xywh.tolist()
    assert len(upload["boxes"]) >= 1
    assert (upload["height"], upload["width"]) == (96, 128)
    assert len(answers.poses({"picture": upload["picture"], "boxes": upload["boxes"]})["results"]) >= 1


def test_examples_are_the_same_every_time() -> None:
    settings = SyntheticSettings(0, 1, image_height=64, image_width=64)
    first, second = rendered_examples(settings)[0], rendered_examples(settings)[0]
    assert np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("number", [-1, 2])
def test_an_example_that_is_not_there_is_told_so(answers: PageAnswers, number: int) -> None:
    assert "there are 2" in sentence(answers.open_example, number)
    assert "there are 2" in sentence(answers.example_preview, number)


def test_the_page_learns_skeleton_limits_and_examples(answers: PageAnswers, estimator: PoseEstimator) -> None:
    about = json.loads(json.dumps(answers.about()))
    assert about["skeleton"]["keypoints"] == list(estimator.skeleton.keypoint_names)
    assert about["skeleton"]["limbs"] == estimator.skeleton.limb_indices.tolist()
    assert about["crop"] == {"height": 128, "width": 96}
    assert about["limits"]["upload_bytes"] == LIMITS.upload_bytes
    assert len(about["examples"]) == 2
    assert about["can_detect"] is False
    assert about["notes"] == ["A model."]


def test_a_detector_is_made_when_first_wanted_and_only_once(estimator: PoseEstimator) -> None:
    made = []

    def make() -> FullPictures:
        made.append(FullPictures())
        return made[-1]

    answers = PageAnswers(estimator, limits=LIMITS, make_detector=make)
    key = opened(answers)["picture"]
    assert answers.about()["can_detect"] is True
    assert made == []
    for _ in range(2):
        assert answers.detect({"picture": key}) == {"boxes": [[0.0, 0.0, 160.0, 120.0]], "box_scores": [1.0]}
    assert len(made) == 1


def test_a_detector_that_could_not_be_made_is_tried_again(estimator: PoseEstimator) -> None:
    tries = []

    def make() -> FullPictures:
        tries.append(1)
        if len(tries) == 1:
            raise InputError("no weights")
        return FullPictures()

    answers = PageAnswers(estimator, limits=LIMITS, make_detector=make)
    key = opened(answers)["picture"]
    assert sentence(answers.detect, {"picture": key}) == "no weights"
    assert len(answers.detect({"picture": key})["boxes"]) == 1


def test_without_a_detector_the_page_asks_for_boxes(answers: PageAnswers) -> None:
    key = opened(answers)["picture"]
    assert "draw a box" in sentence(answers.detect, {"picture": key})


@pytest.mark.parametrize(("upload_bytes", "pixels", "named"), [(0, 1, "upload_megabytes"), (1, -1, "megapixels")])
def test_limits_that_let_nothing_in_are_refused(upload_bytes: int, pixels: int, named: str) -> None:
    assert named in sentence(Limits, upload_bytes, pixels)
