import cv2
import numpy as np
import pytest

from uniformer_pose.data.crop_geometry import CropSpec
from uniformer_pose.training import pictures as drawing_module
from uniformer_pose.training.pictures import Pictures, evaluation_sheet


def test_the_folder_of_pictures_shows_the_first_batch_and_every_evaluation(tiny):
    folder = tiny.folder / "pictures"
    tiny.trainer(max_epochs=2, callbacks=[Pictures(str(folder))]).fit(tiny.module(), datamodule=tiny.data())

    names = sorted(path.name for path in folder.iterdir())
    assert names == ["predictions_epoch_000.png", "predictions_epoch_001.png", "training_crops.png"]
    for name in names:
        assert cv2.imread(str(folder / name)).std() > 10


def test_a_resumed_run_keeps_the_picture_of_its_first_batch(tiny):
    (tiny.folder / "training_crops.png").write_bytes(b"the first")

    tiny.trainer(callbacks=[Pictures(str(tiny.folder))], limit_val_batches=0).fit(tiny.module(), datamodule=tiny.data())

    assert (tiny.folder / "training_crops.png").read_bytes() == b"the first"


def test_pictures_that_cannot_be_written_are_drawn_once_and_training_goes_on(tiny, monkeypatch):
    (tiny.folder / "pictures").write_text("a file where the folder should be")
    drawn = []
    original = drawing_module.training_sheet
    monkeypatch.setattr(drawing_module, "training_sheet", lambda *a, **k: drawn.append(1) or original(*a, **k))
    pictures = Pictures(str(tiny.folder / "pictures"))
    with pytest.warns(UserWarning, match="without this picture"):
        tiny.trainer(max_epochs=2, callbacks=[pictures]).fit(tiny.module(), datamodule=tiny.data())
    assert len(drawn) == 1


def test_an_evaluation_alone_leaves_one_picture(tiny):
    folder = tiny.folder / "pictures"
    tiny.trainer(callbacks=[Pictures(str(folder))]).validate(tiny.module(), datamodule=tiny.data(), verbose=False)

    assert [path.name for path in folder.iterdir()] == ["predictions.png"]


def evaluated(tiny, **data_settings):
    module = tiny.module()
    data = tiny.data(**data_settings)
    tiny.trainer().validate(module, datamodule=data, verbose=False)
    return module


@pytest.fixture
def sheets(monkeypatch):
    """What the sheets of predictions were drawn from."""
    drawn = []

    def keep(crops, truth, visibility, predicted, keypoint_scores, skeleton, **named):
        drawn.append({"crops": crops, "truth": truth, "predicted": predicted, **named})
        return np.zeros((8, 8, 3), dtype=np.uint8)

    monkeypatch.setattr(drawing_module, "prediction_sheet", keep)
    return drawn


def test_a_sheet_shows_each_person_on_the_picture_it_is_in(tiny, sheets):
    """The file's images are not sorted by id, as COCO's are not."""
    module = evaluated(tiny)

    evaluation_sheet(module, num_people=16)

    truth = module.evaluation.ground_truth
    assert len(sheets[0]["crops"]) == len(truth.ids) == 6
    for person, crop in enumerate(sheets[0]["crops"]):
        path = tiny.folder / "images" / f"{truth.image_ids[person]}.png"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        geometry = CropSpec(64, 64).around(truth.boxes_xywh[person])
        np.testing.assert_array_equal(crop, geometry.crop(image))
        in_crop = geometry.to_crop(truth.keypoints_in_image[person])
        np.testing.assert_allclose(sheets[0]["truth"][person], in_crop)
        poses = module.evaluation.predictions
        candidates = geometry.to_crop(poses.keypoints_in_image[poses.image_ids == truth.image_ids[person]])
        assert any(np.allclose(sheets[0]["predicted"][person], pose) for pose in candidates)


def test_a_sheet_without_any_prediction_is_drawn_all_the_same(tiny):
    for picture in (tiny.folder / "images").iterdir():
        picture.write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="could not be read"):
        module = evaluated(tiny, on_bad_image="skip")

    assert evaluation_sheet(module, num_people=4).ndim == 3
