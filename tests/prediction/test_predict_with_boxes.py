"""src/predict.py with a file of boxes: the frame, the depth and the ids of the pictures are the data set's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from predict import predict
from programs import composed
from small_models import small_model
from uniformer_pose.config_parts import PredictConfig
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import saved_record

PICTURES = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8) for seed in range(3)]
BOXES = [[4.0, 5.0, 20.0, 30.0], [30.0, 10.0, 25.0, 36.0], [10.0, 2.0, 40.0, 44.0]]
STORES = {6: np.rot90, 2: np.fliplr, 3: lambda image: np.rot90(image, 2)}
"""What a camera stores so that a viewer who turns it by the EXIF orientation shows the picture."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_model()
    weights = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    torch.save({"state_dict": weights, "global_step": 1, "uniformer_pose": saved_record(model)}, path)
    return path


def annotations(category_id: int = 1) -> dict[str, Any]:
    images = [{"id": 70 + n, "file_name": f"p{n}.png", "height": 48, "width": 64} for n in range(3)]
    people = [{"id": n + 1, "image_id": 70 + n, "category_id": category_id, "bbox": box} for n, box in enumerate(BOXES)]
    return {"images": images, "annotations": people, "categories": [{"id": category_id, "name": "person"}]}


def write_pictures(folder: Path, orientations: tuple[int, ...] = (1, 1, 1), *, displayed: bool = True) -> Path:
    folder.mkdir()
    for number, (pixels, orientation) in enumerate(zip(PICTURES, orientations, strict=True)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = STORES[orientation](pixels) if displayed and orientation != 1 else pixels
        Image.fromarray(np.ascontiguousarray(stored)).save(folder / f"p{number}.png", exif=exif)
    return folder


def run(checkpoint: Path, source: Path, boxes: Any, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The poses that the command writes, and what it could not read."""
    file = source.parent / "boxes.json"
    file.write_text(json.dumps(boxes))
    output = source.parent / f"out{len(list(source.parent.iterdir()))}"
    given = [f"source={source}", f"ckpt_path={checkpoint}", f"boxes={file}", f"output={output}"]
    config = composed("predict", *given, "draw=false", "device=cpu", "engine=eager", *arguments)
    failed = predict(checked_config(config, PredictConfig))
    return json.loads((output / "poses.json").read_text()), failed


def keypoints(poses: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
    return np.array([pose["keypoints"] for pose in poses])


def test_turned_pictures_have_the_poses_of_upright_ones_where_boxes_refer_to_the_displayed(
    checkpoint: Path, tmp_path: Path
) -> None:
    expected, _ = run(checkpoint, write_pictures(tmp_path / "upright"), annotations())
    boxes = annotations() | {"info": {"image_orientation": "displayed"}}
    found, failed = run(checkpoint, write_pictures(tmp_path / "turned", (6, 2, 3)), boxes)
    assert not failed
    np.testing.assert_allclose(keypoints(found), keypoints(expected), atol=1e-4)


@pytest.mark.parametrize("stated", ["stored", None])
def test_pictures_are_read_as_stored_where_boxes_refer_to_that(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stated: str | None
) -> None:
    expected, _ = run(checkpoint, write_pictures(tmp_path / "upright"), annotations())
    boxes = annotations() | {"info": {"image_orientation": stated}}
    found, _ = run(checkpoint, write_pictures(tmp_path / "tagged", (6, 2, 3), displayed=False), boxes)
    np.testing.assert_allclose(keypoints(found), keypoints(expected), atol=1e-4)
    said = "3 pictures (first p0.png) have an EXIF orientation" in capsys.readouterr().out
    assert said == (stated is None)


def test_a_picture_that_fits_only_as_displayed_is_not_posed_until_that_is_asked_for(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = write_pictures(tmp_path / "turned", (6, 1, 1))
    poses, failed = run(checkpoint, source, annotations())
    assert [pose["file_name"] for pose in poses] == ["p1.png", "p2.png"]
    assert list(failed) == ["p0.png"]
    assert "image_orientation=displayed" in failed["p0.png"]
    poses, failed = run(checkpoint, source, annotations(), "image_orientation=displayed")
    assert (len(poses), failed) == (3, {})


def test_detections_refer_to_pictures_as_displayed_and_that_is_said(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _ = run(checkpoint, write_pictures(tmp_path / "upright"), annotations())
    detections = [{"image_id": f"p{n}", "category_id": 1, "bbox": box} for n, box in enumerate(BOXES)]
    found, _ = run(checkpoint, write_pictures(tmp_path / "turned", (6, 1, 3)), detections)
    np.testing.assert_allclose(keypoints(found), keypoints(expected), atol=1e-4)
    text = capsys.readouterr().out
    assert "2 pictures (first p0.png)" in text
    assert "image_orientation=stored" in text


def test_twelve_bits_of_sixteen_have_the_poses_of_eight(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _ = run(checkpoint, write_pictures(tmp_path / "eight"), annotations())
    (tmp_path / "deep").mkdir()
    for number, pixels in enumerate(PICTURES):
        cv2.imwrite(str(tmp_path / "deep" / f"p{number}.png"), pixels[..., ::-1].astype(np.uint16) << 4)
    found, _ = run(checkpoint, tmp_path / "deep", annotations())
    np.testing.assert_allclose(keypoints(found), keypoints(expected), atol=1e-4)
    assert "3 pictures (first p0.png) use a part of their bits" in capsys.readouterr().out


def test_ids_and_the_category_are_those_of_the_file_beside_a_stray_picture(checkpoint: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "photos")
    (source / "1.png").write_bytes((source / "p0.png").read_bytes())
    poses, _ = run(checkpoint, source, annotations(18), "boxes_category=18")
    assert {pose["file_name"]: pose["image_id"] for pose in poses} == {"p0.png": 70, "p1.png": 71, "p2.png": 72}
    assert {pose["category_id"] for pose in poses} == {18}


def test_boxes_that_meet_no_picture_stop_the_command_before_a_model_is_read(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "photos")
    other = [{"image_id": "other", "category_id": 1, "bbox": BOXES[0]}]
    with pytest.raises(InputError, match="lists none of the 3 pictures"):
        run(tmp_path / "no_model.ckpt", source, other)
    with pytest.raises(InputError, match="boxes_category=<id or name>"):
        run(tmp_path / "no_model.ckpt", source, [{"image_id": "p0", "category_id": 0, "bbox": BOXES[0]}])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]
