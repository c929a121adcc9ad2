"""A page in the browser to look at poses: open a picture, draw or find boxes, see skeletons, heatmaps and COCO results.

Serves this machine only, unless told otherwise, and asks nothing of any other. Exit status 0 after Ctrl-C, 2 for
unusable settings.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from typing import Any

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import DemoConfig
from uniformer_pose.entry_point import checked_config, report_input_errors, run

_OF_ESTIMATOR = ("input_size", "keypoints", "head_dim", "model_class", "device", "precision")


@hydra.main(version_base="1.3", config_path="../conf", config_name="demo")
def main(config: DictConfig) -> None:
    """Check the config before any work, then serve the page until Ctrl-C."""
    with report_input_errors(), tempfile.TemporaryDirectory(prefix="uniformer_pose_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        page = served(checked_config(config, DemoConfig))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            page.close(verbose=False)
            print("the page is closed")


def served(config: dict[str, Any]) -> Any:
    """The page of a checked, plain config, being served from another thread, as Gradio's blocks."""
    from hydra.utils import instantiate

    from uniformer_pose.prediction.estimator import PoseEstimator
    from uniformer_pose.prediction.page import PosePage, launch

    estimator = PoseEstimator(config["ckpt_path"], **{name: config[name] for name in _OF_ESTIMATOR})
    os.environ["UNIFORMER_POSE_OFFLINE"] = "1"  # from here on nothing is fetched, whatever a visitor asks for
    page = PosePage(
        estimator,
        most_pixels=round(config["megapixels"] * 1e6),
        make_detector=lambda: instantiate(config["detector"], _convert_="all"),
    ).blocks(config["ckpt_path"], instantiate(config["examples"], _convert_="all"), config["score_threshold"])
    most_bytes = round(config["upload_megabytes"] * 1e6)
    launch(page, host=config["host"], port=config["port"], most_bytes=most_bytes, open_browser=config["open_browser"])
    return page


if __name__ == "__main__":
    run(main)
