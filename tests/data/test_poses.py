"""Predicted poses as labels: what src/predict.py and src/eval.py write is read as people to train on."""

import json

import cv2
import numpy as np
import pytest

from small_models import small_model
from uniformer_pose.data.augmentation import GeometricAugmentation
from uniformer_pose.data.coco import read_ground_truth
from uniformer_pose.data.coco_json import ImageRecord
from uniformer_pose.data.crop_dataset import TrainingCrops
from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.data.images import ImageSource
from uniformer_pose.data.poses import read_poses, with_poses
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.arguments import HeadArguments
from uniformer_pose.prediction.boxes import FullPictures
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.output import PoseOutput
from uniformer_pose.prediction.pose_files import PoseFinder, pose_pictures
from uniformer_pose.prediction.sources import find_source
from uniformer_pose.training.loss import KeypointMSE
from uniformer_pose.weights.start import require_fitting

SCORES = np.linspace(0.1, 0.9, 17)
TURNED_RIGHT = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def pose(name="new.jpg", scores=SCORES, **fields):
    """A record as src/predict.py writes it, of a picture of 60x80 pixels (height x width)."""
    points = np.stack([np.linspace(12, 60, 17), np.linspace(15, 50, 17), scores], axis=1)
    given = {"image_id": 7, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 0.6}
    given |= {"bbox": [10.0, 12.0, 55.0, 70.0], "file_name": name, "image_height": 60, "image_width": 80}
    return {key: value for key, value in (given | fields).items() if value is not None}


@pytest.fixture
def read(tmp_path, skeleton):
    def read_records(*records, **options):
        file = tmp_path / "poses.json"
        file.write_text(json.dumps(list(records)))
        return read_poses(file, tmp_path, skeleton, **options)

    return read_records


def test_keypoints_that_score_less_than_the_minimum_are_not_labelled(read):
    people = read(pose(), min_keypoint_score=0.5)
    assert people.visibility.tolist() == [np.where(SCORES >= 0.5, 2, 0).tolist()]
    assert people.keypoint_weights is None
    np.testing.assert_allclose(people.keypoints_in_image[0, [0, 16]], [[12, 15], [60, 50]])
    assert people.boxes_xywh.tolist() == [[10, 12, 55, 47]]  # inside the picture, as annotated boxes
    assert (people.file_names.tolist(), people.image_heights.tolist(), people.image_widths.tolist()) == (
        (["new.jpg"], [60], [80])
    )


def test_weights_are_the_scores_of_what_is_labelled_and_at_most_one(read):
    people = read(pose(scores=np.append(SCORES[:16], 1.2)), min_keypoint_score=0.5, weighted=True)
    expected = np.where(SCORES >= 0.5, SCORES, 0)
    expected[16] = 1
    np.testing.assert_allclose(people.keypoint_weights[0], expected, atol=1e-6)


def test_a_keypoint_outside_the_picture_is_not_labelled(read):
    record = pose(scores=np.ones(17))
    record["keypoints"][0] = -3.0
    assert read(record).visibility[0].tolist() == [0] + [2] * 16


def test_who_has_no_labelled_keypoint_is_left_out_and_counted(read):
    people = read(pose(), pose("other.jpg", np.full(17, 0.2), image_id=8), min_keypoint_score=0.3)
    assert people.describe(0) == "pose 0 of poses.json"
    assert people.summary() == (
        "poses.json: kept 1 of 2 poses in 1 images (left out: 1 without a keypoint of score 0.3)"
    )


def test_poses_without_a_name_are_of_the_listed_image_of_their_id(read):
    record = pose(file_name=None, image_height=None, image_width=None)
    people = read(record, listed=[ImageRecord(7, "seven.jpg", 90, 85)])
    assert (people.file_names.tolist(), people.image_heights.tolist()) == (["seven.jpg"], [90])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            pose(file_name=None),
            r"pose number 0 has no file_name, and data.train_annotations lists no image of its id 7",
        ),
        (pose(image_width=None), r"pose number 0 has no image_height and image_width; src/predict.py writes them"),
        (pose(frame=3), r"pose number 0 is of a video, new.jpg"),
        (pose("../new.jpg"), r"leaves the image folder"),
        (pose(bbox=None), r"pose number 0 needs 4 finite numbers in 'bbox'"),
        (pose(keypoints=[1.0, 2.0, 0.5]), r"pose number 0 needs 51 finite numbers in 'keypoints': x, y, score"),
        (pose(scores=np.full(17, np.nan)), r"not valid COCO JSON|51 finite numbers"),
        (pose(score=None), r"missing required field `score`"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(read, record, message):
    with pytest.raises(InputError, match=message) as refused:
        read(record)
    assert "\n" not in str(refused.value)


def test_scores_and_visibilities_are_never_taken_for_each_other(tiny_coco, tmp_path, skeleton):
    """A list is poses, an object annotations; a score among annotations is no visibility."""
    tiny_coco.write()
    with pytest.raises(InputError, match=r"people\.json: is no list of poses"):
        read_poses(tiny_coco.annotation_file, tiny_coco.images, skeleton)
    poses = tmp_path / "poses.json"
    poses.write_text(json.dumps([pose()]))
    with pytest.raises(InputError, match=r"predicted poses are labels as data\.train_poses"):
        read_ground_truth(poses, tiny_coco.images, skeleton)
    tiny_coco.annotation(11)["keypoints"][2] = 0.93
    with pytest.raises(InputError, match="visibility \\(0 not labelled, 1 hidden, 2 visible\\)"):
        tiny_coco.read()
    poses.write_text(json.dumps(tiny_coco.content["annotations"]))  # a list, whose records have no score
    with pytest.raises(InputError, match="missing required field `score`"):
        read_poses(poses, tiny_coco.images, skeleton)


def test_poses_join_annotated_people_of_another_folder(tiny_coco, tmp_path, skeleton):
    """Poses on pictures where somebody is annotated are left out."""
    annotated = tiny_coco.read()
    (tmp_path / "more").mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "more" / "000000000001.jpg"), pixels)
    file = tmp_path / "poses.json"
    file.write_text(json.dumps([pose("000000000001.jpg", image_id=1), pose("000000000001.jpg", image_id=1)]))
    both = with_poses(annotated, read_poses(file, tmp_path / "more", skeleton, weighted=True))
    assert (len(both), both.num_images, both.boxes_per_image.tolist()) == (6, 4, [2, 1, 1, 2])
    assert both.file_names.tolist()[2:] == ["images/000000000003.jpg", "more/000000000001.jpg"]
    assert len(set(both.image_ids.tolist())) == 4
    assert (both.keypoint_weights[:4] == 1).all()
    np.testing.assert_allclose(both.keypoint_weights[4], SCORES, atol=1e-6)
    assert [both.describe(index) for index in (3, 5)] == ["annotation 31 of people.json", "pose 1 of poses.json"]
    crops = TrainingCrops(ImageSource(both), skeleton, CropSpec(64, 48))
    assert crops[(4, 0)]["crops"].any()  # its picture is found

    same_pictures = with_poses(annotated, read_poses(file, tiny_coco.images, skeleton))
    assert (len(same_pictures), same_pictures.file_names.tolist()) == (4, annotated.file_names.tolist())
    assert same_pictures.summary() == (
        "people.json, category person, and poses.json: kept 4 of 6 annotations and poses in 3 images "
        "(left out: 2 on pictures with annotated people)"
    )
    assert len(both.first_images(3)) == 4


def test_weights_are_mirrored_with_the_keypoints(tmp_path, skeleton):
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "new.jpg"), pixels)
    file = tmp_path / "poses.json"
    file.write_text(json.dumps([pose()]))
    people = read_poses(file, tmp_path, skeleton, weighted=True)
    flip = GeometricAugmentation(1.0, 0.0, shift_probability=0, scale_probability=0, rotation_probability=0)
    crops = TrainingCrops(ImageSource(people), skeleton, CropSpec(64, 48), geometric=flip)
    expected = SCORES[skeleton.mirror_permutation]
    np.testing.assert_allclose(crops[(0, 0)]["keypoint_weights"], expected, atol=1e-6)
    np.testing.assert_allclose(crops.__getitems__([(0, 0)])["keypoint_weights"][0], expected, atol=1e-6)


def test_poses_do_not_teach_what_is_visible():
    codec = HeatmapCodec(64, 64, sigma=1.5)
    with pytest.raises(InputError, match=r"head\.visibility=true with data\.train_poses=poses\.json"):
        require_fitting(codec, HeadArguments(visibility=True), KeypointMSE(), train_poses="poses.json")
    require_fitting(codec, HeadArguments(), KeypointMSE(), train_poses="poses.json")


def test_poses_on_turned_pictures_are_of_one_frame(read):
    displayed = pose(image_orientation="displayed")
    assert read(displayed).image_orientation == "displayed"
    people = read(displayed, pose("plain.jpg", image_id=8), orientation="stored")
    assert people.summary() == (
        "poses.json: kept 1 of 2 poses in 1 images (left out: 1 on turned pictures, in another image_orientation)"
    )


def test_what_predict_writes_trains_as_it_is(tiny_coco, tmp_path, skeleton):
    """One picture is turned by EXIF: its poses are left out, since annotations refer to the pixels as stored."""
    tiny_coco.write()
    source = tmp_path / "more"
    source.mkdir()
    for number, name in enumerate(("a.jpg", "turned.jpg")):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(source / name), pixels)
    plain = (source / "turned.jpg").read_bytes()
    segment = b"\xff\xe1" + (len(TURNED_RIGHT) + 2).to_bytes(2, "big") + TURNED_RIGHT
    (source / "turned.jpg").write_bytes(plain[:2] + segment + plain[2:])
    found = find_source(str(source))
    output = PoseOutput(tmp_path / "out", found.items, {}, draw=False)
    finder = PoseFinder(PoseEstimator(small_model(), device="cpu"), FullPictures())
    assert pose_pictures(output.unfinished("picture"), finder, output)[0] == {}
    output.write_results(skeleton)
    records = json.loads((output.folder / "poses.json").read_text())
    sizes = {record["file_name"]: (record["image_height"], record["image_width"]) for record in records}
    assert sizes == {"a.jpg": (60, 80), "turned.jpg": (80, 60)}

    def data(**settings):
        arguments = {
            "root": str(tmp_path),
            "train_annotations": "people.json",
            "train_images": "images",
            "val_annotations": "people.json",
            "val_images": "images",
            "val_boxes": "gt",
            "skeleton": skeleton,
            "codec": HeatmapCodec(64, 64, sigma=1.5),
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "batch_size": 1,
            "num_workers": 0,
        }
        poses = {"train_poses": "out/poses.json", "train_poses_images": "more", "min_keypoint_score": 0.0}
        return PersonCrops(**(arguments | poses | settings))

    mixed = data(weight_by_score=True)
    mixed.setup("fit")
    batches = list(mixed.train_dataloader())
    assert len(batches) == 5
    assert "left out: 1 on turned pictures, in another image_orientation" in mixed.train_people.summary()
    weights = {int(b["instance_index"]): b["keypoint_weights"] for b in batches}
    assert (weights[0] == 1).all()
    assert (weights[4] < 1).any()

    alone = data(train_annotations=None)
    alone.setup("fit")
    assert (len(alone.train_people), alone.train_people.image_orientation) == (2, "displayed")
    batch = next(iter(alone.train_dataloader()))
    assert "keypoint_weights" not in batch
    with pytest.raises(InputError, match=r"data\.train_annotations=null needs data\.train_poses"):
        data(train_annotations=None, train_poses=None).setup("fit")
