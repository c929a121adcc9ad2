"""Every engine gives the heatmaps of the network it was made of, and one that cannot be had is said."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import small_model
from torch import Tensor, nn

from uniformer_pose import PoseEstimator
from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.prediction.engines import Engine, InferenceNetwork, inference_network

CPU = torch.device("cpu")
ENGINES: tuple[Engine, ...] = ("eager", "folded", "openvino")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "convolution stem": {"stem": "convolution"},
    "layer scale": {"layer_scale": 0.5, "layer_scale_blocks": "all"},
    "windows that do not divide the map": {"stage3_attention": "hybrid", "window_size": 4},
}


@pytest.fixture
def with_openvino() -> None:
    pytest.importorskip("openvino")


def network(**arguments: Any) -> PoseNetwork:
    torch.manual_seed(0)
    made = PoseNetwork(
        num_keypoints=5,
        depths=[1, 1, 4, 1],
        embed_dims=[8, 8, 16, 16],
        head_dim=8,
        deconv_channels=[8, 8, 8],
        **arguments,
    ).eval()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.2, 3.0)
        for parameter in made.head.parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.3)
    return made


def prepared(network: PoseNetwork, engine: Engine, **settings: Any) -> InferenceNetwork:
    arguments: dict[str, Any] = {"device": CPU, "reduced_precision": False, "height": 96, "width": 160}
    return inference_network(network, engine=engine, **(arguments | settings))


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("variant", VARIANTS)
def test_openvino_gives_the_heatmaps_of_the_network(variant: str) -> None:
    ours = network(**VARIANTS[variant])
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        expected = ours(images)
        found = prepared(ours, "openvino")(images)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.usefixtures("with_openvino")
def test_batches_of_any_size_follow_one_another_and_earlier_answers_stay() -> None:
    ours = network()
    computed = prepared(ours, "openvino")
    images = torch.randn(5, 3, 96, 160)
    with torch.inference_mode():
        answers = [computed(images[:count]) for count in (5, 1, 3)]
        expected = ours(images)
    for answer in answers:
        torch.testing.assert_close(answer, expected[: len(answer)], atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("with_openvino")
def test_an_image_of_another_size_than_compiled_for_is_refused() -> None:
    with pytest.raises(InputError, match=r"compiled for \(batch, 3, 96, 160\)"):
        prepared(network(), "openvino")(torch.randn(1, 3, 64, 64))


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("engine", ENGINES)
def test_threads_may_share_an_engine(engine: Engine) -> None:
    computed = prepared(network(), engine)
    images = [torch.randn(count, 3, 96, 160) for count in (1, 2, 3, 2)]
    with torch.inference_mode():
        expected = [computed(batch) for batch in images]
    found: list[list[Tensor]] = [[] for _ in images]

    def work(number: int) -> None:
        with torch.inference_mode():
            found[number] = [computed(images[number]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for heatmaps, once in zip(found, expected, strict=True):
        assert len(heatmaps) == 3
        assert all(torch.allclose(again, once, atol=1e-5) for again in heatmaps)


@pytest.mark.usefixtures("with_openvino")
def test_auto_is_openvino_in_fp32_on_a_processor_and_folded_in_reduced_precision() -> None:
    assert prepared(network(), "auto").engine == "openvino"
    assert prepared(network(), "auto", reduced_precision=True).engine == "folded"


def test_without_openvino_auto_is_folded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    said: list[str] = []
    estimator = PoseEstimator(small_model(), device="cpu", announce=said.append)
    assert estimator.engine == "folded"
    assert said == ["engine: folded; OpenVINO is not installed: pip install openvino is faster on a processor"]


def test_without_openvino_asking_for_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="engine=openvino: OpenVINO is not installed"):
        prepared(network(), "openvino")


@pytest.mark.usefixtures("with_openvino")
def test_where_openvino_fails_auto_is_folded_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such instruction\nat line 3")

    monkeypatch.setattr("uniformer_pose.prediction.openvino_network.folded", fail)
    computed = prepared(network(), "auto")
    assert computed.engine == "folded"
    assert computed.remark == "engine: folded; OpenVINO failed (RuntimeError: no such instruction at line 3)"
    with pytest.raises(InputError, match="engine=openvino: RuntimeError: no such instruction at line 3; try"):
        prepared(network(), "openvino")


def test_openvino_in_reduced_precision_is_refused() -> None:
    with pytest.raises(InputError, match="computes in fp32 on the processor"):
        prepared(network(), "openvino", reduced_precision=True)


def test_an_unknown_engine_is_refused_with_the_choices() -> None:
    unknown: Any = "tensorrt"
    with pytest.raises(InputError, match="engine='tensorrt': choose auto, eager, folded, openvino"):
        PoseEstimator(small_model(), device="cpu", engine=unknown)


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("engine", ["folded", "openvino"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_keypoints_do_not_depend_on_the_engine(engine: Engine, flip_test: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = [[10, 5, 40, 80], [60, 20, 30, 50], [-20, -20, 60, 60]]
    plain, other = (PoseEstimator(small_model(), device="cpu", engine=name) for name in ("eager", engine))
    expected = plain(picture, boxes, flip_test=flip_test)
    found = other(picture, boxes, flip_test=flip_test)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("with_openvino")
def test_the_reference_heatmaps_are_those_of_every_engine(reference_folder: Path) -> None:
    model_tests = Path(__file__).parents[1] / "model"
    sys.path.insert(0, str(model_tests))
    try:
        from test_reference_heatmaps import network_with_reference_weights, normalised
    finally:
        sys.path.remove(str(model_tests))
    ours = network_with_reference_weights("s").eval()
    crops = np.load(reference_folder / "training_trajectory_uniformer_s_256x192.npz")["crops_rgb"][:1]
    images = normalised(crops)
    with torch.inference_mode():
        expected = ours(images)
        for engine in ("folded", "openvino"):
            found = prepared(ours, engine, height=256, width=192)(images)
            torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
