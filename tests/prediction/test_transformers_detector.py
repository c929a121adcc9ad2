"""The detector of transformers, with a tiny network of random weights in a folder, and without any network access."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from uniformer_pose.errors import InputError

transformers = pytest.importorskip("transformers", reason="the extra `detector` is not installed")

from uniformer_pose.prediction.detectors.transformers_detector import TransformersDetector  # noqa: E402

PICTURES = [
    cv2.resize(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8), size)
    for seed, size in enumerate([(120, 90), (80, 140), (64, 3)])  # the last 3 pixels high, like channels
]


def save_model(folder: Path, names: dict[int, str]) -> Path:
    """An RT-DETR with everything small, whose person has a score for every query."""
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, num_queries=10, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16,
        decoder_layers=1, decoder_attention_heads=2, num_denoising=0, id2label=names,
        label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    transformers.RTDetrForObjectDetection(config).eval().save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), {0: "N/A", 1: "person"})


def test_people_are_those_of_the_library_in_pixels_of_each_picture(folder: Path) -> None:
    found = TransformersDetector(str(folder), device="cpu")(PICTURES)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    for picture, people in zip(PICTURES, found, strict=True):
        with torch.inference_mode():
            outputs = network(**processor(picture, return_tensors="pt", input_data_format="channels_last"))
        (theirs,) = processor.post_process_object_detection(outputs, 0.05, target_sizes=[picture.shape[:2]])
        rows = theirs["labels"] == 1
        corners = theirs["boxes"][rows].numpy()
        assert len(people) > 0
        np.testing.assert_allclose(people.boxes_xywh[:, :2], corners[:, :2], atol=1e-4)
        np.testing.assert_allclose(people.boxes_xywh[:, 2:], corners[:, 2:] - corners[:, :2], atol=1e-4)
        np.testing.assert_allclose(people.scores, theirs["scores"][rows].numpy(), atol=1e-6)


def test_a_person_has_the_number_that_the_config_says(folder: Path, tmp_path: Path) -> None:
    first = TransformersDetector(str(save_model(tmp_path, {0: "person", 1: "dog"})), device="cpu")(PICTURES)
    second = TransformersDetector(str(folder), device="cpu")(PICTURES)
    assert not np.array_equal(first[0].scores, second[0].scores)  # same weights, another class


def break_model(folder: Path, kind: str) -> None:
    weights = folder / "model.safetensors"
    if kind == "pickle":
        torch.save({}, folder / "pytorch_model.bin")
        weights.unlink()
    elif kind == "missing weights":
        from safetensors.torch import load_file, save_file

        save_file({k: v for k, v in load_file(weights).items() if "encoder" not in k}, weights, {"format": "pt"})
    elif kind == "code":
        config = json.loads((folder / "config.json").read_text())
        (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
        auto = {"AutoConfig": "evil.Config", "AutoModelForObjectDetection": "evil.Model"}
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": auto, "model_type": "evil"}))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pickle", "cannot be loaded"),
        ("missing weights", "weights are missing"),
        ("code", "cannot be loaded"),
        ("no person", "no class person"),
        ("absent", "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "model"
    if kind != "absent":
        save_model(folder, {0: "cat", 1: "dog"} if kind == "no person" else {0: "person", 1: "dog"})
        break_model(folder, kind)
    with pytest.raises(InputError, match=said) as caught:
        TransformersDetector(str(folder), device="cpu")
    assert str(caught.value).isprintable()
    assert not (folder / "ran").exists()


def test_without_the_library_one_line_says_what_to_install() -> None:
    module = "uniformer_pose.prediction.detectors.transformers_detector"
    script = f"import sys; sys.modules['transformers'] = None\nfrom {module} import *\nTransformersDetector('a')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "InputError: detector=transformers needs it: pip install 'uniformer-pose[detector]'" in done.stderr
