"""Top-down 2D human pose estimation with UniFormer; the README has the map."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from uniformer_pose.cache import cache_folder
from uniformer_pose.errors import InputError

# Read when OpenCV is loaded; its own limit lets a PNG of 50 kB take 2 GB and a minute. As data.images.MOST_PIXELS.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(250_000_000))
# Read when torch loads libgomp, whose threads else look 300,000 times whether they may go on before they sleep. A
# training step of the demo on two cores, alone / beside one busy process / beside a test run too: 0.13 / 0.46 / 4 s,
# and 0.15 / 0.33 / 0.7 s with this. Not where a person has chosen.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Importing Lightning fixes it in the temporary folder; kept, so that a resumed run need not compile its step again.
if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
    with suppress(InputError):  # no home folder
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "compiled")

if TYPE_CHECKING:
    from uniformer_pose.prediction.estimator import PoseEstimator
    from uniformer_pose.prediction.people import People
    from uniformer_pose.weights.hub import from_pretrained, push_to_hub
    from uniformer_pose.weights.loading import load_network

__all__ = ["People", "PoseEstimator", "from_pretrained", "load_network", "push_to_hub"]

_HOMES = {
    "People": "uniformer_pose.prediction.people",
    "PoseEstimator": "uniformer_pose.prediction.estimator",
    "from_pretrained": "uniformer_pose.weights.hub",
    "load_network": "uniformer_pose.weights.loading",
    "push_to_hub": "uniformer_pose.weights.hub",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and torch with it, only then: a misspelt key must not have to wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'uniformer_pose' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
