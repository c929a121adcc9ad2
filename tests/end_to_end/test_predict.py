"""Poses of people's own pictures from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uniformer_pose.model.network import PoseNetwork
from weights_by_name import weights_by_name

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reference_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UniFormer-S with the reference weights, as a file that says nothing but names and tensors."""
    with torch.device("meta"):
        entries = PoseNetwork(17, [3, 4, 8, 3]).state_dict()
    path = tmp_path_factory.mktemp("reference") / "reference.pth"
    torch.save(weights_by_name({name: tuple(entry.shape) for name, entry in entries.items()}), path)
    return path


@pytest.mark.parametrize("flip_test", [False, True], ids=["plain", "flip test"])
def test_keypoints_on_pictures_are_those_of_the_reference(
    run_script: Any, reference_folder: Path, reference_file: Path, tmp_path: Path, flip_test: bool
) -> None:
    reference = json.loads((reference_folder / "image_keypoints_uniformer_s_256x192.json").read_text())
    pictures = reference_folder / "rendered_people"
    finished = run_script(
        "predict.py",
        [
            f"source={pictures}",
            f"ckpt_path={reference_file}",
            "input_size=[256,192]",
            f"boxes={pictures / 'annotations.json'}",
            f"output={tmp_path / 'out'}",
            f"flip_test={str(flip_test).lower()}",
            "device=cpu",
            "draw=false",
        ],
        tmp_path,
        OMP_NUM_THREADS="1",
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "out" / "poses.json").read_text())
    distances = []
    for person in reference["people"]:
        (pose,) = [
            pose
            for pose in found
            if pose["file_name"] == person["file_name"] and np.allclose(pose["bbox"], person["bbox_xywh"], atol=1e-6)
        ]
        keypoints = np.reshape(pose["keypoints"], (17, 3))
        expected = person["flip_test" if flip_test else "plain"]["keypoints_xy"]
        distances.append(np.abs(keypoints[:, :2] - expected).max(axis=1))
    assert np.mean(np.concatenate(distances) < 0.01) >= 0.95


def test_a_folder_with_a_broken_picture_is_done_but_for_that_one(
    run_script: Any, trained_run: Path, synthetic_root: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for picture in sorted((synthetic_root / "images" / "val").iterdir())[:3]:
        (photos / picture.name).write_bytes(picture.read_bytes())
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "notes.md").write_text("mine")
    command = [f"source={photos}", f"ckpt_path={trained_run / 'checkpoints' / 'best.ckpt'}", "boxes=full", "device=cpu"]
    finished = run_script("predict.py", command, tmp_path)
    assert finished.returncode == 1, finished.stderr
    assert "could not be read: 1 of 4" in finished.stderr
    assert "broken.jpg: " in finished.stderr
    assert "skipped (not an image or video): 1 .md" in finished.stdout
    output = tmp_path / "runs" / "predict" / "photos"
    assert len(list((output / "drawn").iterdir())) == 3
    assert len(json.loads((output / "poses.json").read_text())) == 3
    assert (output / "poses.csv").read_text().startswith("file,frame,seconds,person,track,keypoint,x,y,score")

    (photos / "broken.jpg").unlink()
    again = run_script("predict.py", command, tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 of 3 to do" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ckpt_path is required"),
        (["source=nowhere", "ckpt_path=x"], "source=nowhere: no such file or folder"),
        (["source=https://host/a.jpg", "ckpt_path=x"], "addresses are not opened"),
        (["source=.", "ckpt_path=x", "boxs=full"], "no such key; did you mean boxes?"),
        (["source=.", "ckpt_path=x", "detector=yolo"], "detector=yolo: no such choice"),
    ],
)
def test_a_wrong_command_ends_in_one_line(arguments: list[str], message: str, run_script: Any, tmp_path: Path) -> None:
    finished = run_script("predict.py", arguments, tmp_path)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert finished.stderr.count("\n") == 1
