"""Every engine gives the heatmaps of the network it was made of, and one that cannot be had is said."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from small_models import small_model
from uniformer_pose import PoseEstimator
from uniformer_pose.config_parts import Engine
from uniformer_pose.errors import InputError
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.prediction.engines import InferenceNetwork, OpenVinoNetwork, inference_network
from uniformer_pose.prediction.pose_pipeline import PosePipeline
from uniformer_pose.training.precision import computes_in_bf16

with_openvino = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('openvino')", reason="an extra")
with_bf16 = pytest.mark.skipif(not computes_in_bf16("cpu"), reason="this processor has no instructions for bf16")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "convolution stem and layer scale": {"stem": "convolution", "layer_scale": 0.5, "layer_scale_blocks": "all"},
    "windows that do not divide the map": {"stage3_attention": "hybrid", "window_size": 4},
}


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


def prepared(network: nn.Module, engine: Engine, **settings: Any) -> InferenceNetwork:
    arguments = {"device": torch.device("cpu"), "precision": "fp32", "height": 96, "width": 160}
    return inference_network(network, engine=engine, **(arguments | settings))


@with_openvino
@pytest.mark.parametrize("variant", VARIANTS)
def test_openvino_gives_the_heatmaps_of_the_network_for_batches_of_any_size(variant: str) -> None:
    ours = network(**VARIANTS[variant])
    computed = prepared(ours, "openvino")
    images = torch.randn(5, 3, 96, 160)
    with torch.inference_mode():
        answers = [computed(images[:count]) for count in (5, 1, 3)]  # earlier ones stay as they are
        expected = ours(images)
    assert expected.std() > 0.05
    for answer in answers:
        torch.testing.assert_close(answer, expected[: len(answer)], atol=2e-5 * float(expected.abs().max()), rtol=0)


@with_openvino
def test_its_converter_reports_to_nobody() -> None:
    prepared(network(), "openvino")
    assert sys.modules["openvino_telemetry"] is None


@with_openvino
def test_threads_may_share_an_engine() -> None:
    computed = prepared(network(), "openvino")
    images = [torch.randn(count, 3, 96, 160) for count in (1, 2, 3, 2)]
    expected = [computed(batch) for batch in images]
    found: list[list[Tensor]] = [[] for _ in images]

    def work(number: int) -> None:
        found[number] = [computed(images[number]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for heatmaps, once in zip(found, expected, strict=True):
        assert len(heatmaps) == 3
        assert all(torch.allclose(again, once, atol=1e-5) for again in heatmaps)


@with_bf16
@pytest.mark.parametrize("engine", ["eager", pytest.param("openvino", marks=with_openvino)])
def test_bf16_gives_nearly_the_heatmaps_of_fp32_and_leaves_the_network_as_it_is(engine: Engine) -> None:
    ours, images = network(), torch.randn(3, 3, 96, 160)
    with torch.inference_mode():
        reduced = prepared(ours, engine, precision="bf16")(images).float()
        expected = ours(images)
    assert expected.dtype == torch.float32
    assert 0 < (reduced - expected).abs().max() < 0.05 * expected.abs().max()


def test_formats_without_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    for precision in ("bf16", "fp16"):
        with pytest.raises(InputError, match=f"precision={precision}: .*no fast instructions.*precision=fp32"):
            prepared(network(), "auto", precision=precision)


class Operations(TorchDispatchMode):
    """Counts them; none may wait for a number of the device's."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default
        self.count += 1
        return function(*args, **(kwargs or {}))


@with_bf16
def test_weights_in_bf16_take_no_more_operations_than_fp32_and_a_pass_reads_nothing_back() -> None:
    model = small_model()
    crops = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    counts = {}
    for precision in ("fp32", "bf16"):
        network = prepared(model.network, "eager", precision=precision, height=64, width=64)
        decode = PosePipeline(model, network)
        with torch.inference_mode(), Operations() as operations:
            decode(crops, with_flip_test=True)
        counts[precision] = operations.count
    assert counts["bf16"] <= counts["fp32"] + 8  # two forward passes: images to bf16, heatmaps to fp32


def test_without_openvino_auto_is_eager_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    said: list[str] = []
    estimator = PoseEstimator(small_model(), device="cpu", announce=said.append)
    assert estimator.engine == "eager"
    assert len(said) == 1
    assert "pip install" in said[0]
    with pytest.raises(InputError, match="engine=openvino: OpenVINO is not installed"):
        prepared(network(), "openvino")


@with_openvino
def test_where_openvino_fails_auto_is_eager_and_says_why() -> None:
    class Untraceable(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no such instruction\nat line 3")

    computed = prepared(Untraceable(), "auto")
    assert computed.engine == "eager"
    assert "no such instruction at line 3" in str(computed.remark)
    with pytest.raises(InputError, match=r"engine=openvino: .*no such instruction at line 3"):
        prepared(Untraceable(), "openvino")


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("openvino", {"device": torch.device("meta")}, "computes on the processor"),
        ("tensorrt", {}, "engine='tensorrt': choose auto, eager, openvino"),
    ],
)
def test_an_engine_that_cannot_be_had_is_refused(engine: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(network(), engine, **settings)


@with_openvino
def test_an_image_of_another_size_than_compiled_for_is_refused() -> None:
    with pytest.raises(InputError, match=r"compiled for \(batch, 3, 96, 160\)"):
        prepared(network(), "openvino")(torch.randn(1, 3, 64, 64))


@with_openvino
@pytest.mark.parametrize("flip_test", [False, True])
def test_keypoints_do_not_depend_on_the_engine(flip_test: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = [[10, 5, 40, 80], [60, 20, 30, 50], [-20, -20, 60, 60]]
    plain, other = (PoseEstimator(small_model(), device="cpu", engine=name) for name in ("eager", "openvino"))
    expected = plain(picture, boxes, flip_test=flip_test)
    found = other(picture, boxes, flip_test=flip_test)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


@pytest.mark.slow
@with_openvino
def test_the_reference_heatmaps_are_those_of_openvino(reference_folder: Path) -> None:
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
        found = prepared(ours, "openvino", height=256, width=192)(images)
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def stack_for_signals() -> int | None:
    """Where this thread's own stack for signal handlers is, if it has one."""

    class Stack(ctypes.Structure):
        _fields_: ClassVar = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.start


def test_models_that_go_leave_no_stack_for_signals_that_is_gone_too() -> None:
    pytest.importorskip("openvino")
    before = stack_for_signals()
    first, second = (OpenVinoNetwork(nn.Conv2d(3, 2, 4, stride=4), height=32, width=32) for _ in range(2))
    assert stack_for_signals() == before
    del first
    del second
    gc.collect()
    assert stack_for_signals() in (before, None)
