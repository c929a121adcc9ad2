"""What tests of the page need: a network that is random but sure of itself, pictures, and the page being served."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage

from uniformer_pose.demo_page.answers import Limits, PageAnswers
from uniformer_pose.demo_page.server import PageServer
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec
from uniformer_pose.model.network import PoseNetwork
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.skeleton import load_skeleton

Image = npt.NDArray[np.uint8]
LIMITS = Limits(upload_bytes=2_000_000, pixels=1_000_000)


def random_model() -> SavedModel:
    """Its scores are near 1, so everything is drawn, at places that mean nothing but differ from person to person."""
    torch.manual_seed(0)
    network = PoseNetwork(17, depths=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16], head_dim=8, deconv_channels=[8, 8, 8])
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 128, 96))  # for BatchNorm's statistics
        last.weight.mul_(30.0)
        assert last.bias is not None
        last.bias.fill_(0.9)
    return SavedModel(
        network.eval(),
        HeatmapCodec(128, 96, sigma=2.0, method="udp"),
        load_skeleton("coco_17"),
        (123.675, 116.28, 103.53),
        (58.395, 57.12, 57.375),
        1.25,
        {},
        {},
    )


def smooth_photo(height: int = 120, width: int = 160, seed: int = 0) -> Image:
    """(height, width, 3) smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(PillowImage.fromarray(coarse).resize((width, height), PillowImage.Resampling.BICUBIC))


def encoded(image: Image, file_format: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    content = io.BytesIO()
    PillowImage.fromarray(image).save(content, file_format, **options)
    return content.getvalue()


@contextmanager
def served(answers: PageAnswers, **options: Any) -> Iterator[PageServer]:
    """The page on a free port, answered from another thread of this process."""
    with PageServer(answers, **options) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
