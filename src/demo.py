"""A page in the browser to look at poses: open a picture, draw or find boxes, see skeletons, heatmaps and COCO results.

Serves this machine only, unless told otherwise, and asks nothing of any other. Exit status 0 after Ctrl-C, 2 for
unusable settings.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import hydra
from annotated_types import Ge, Le
from omegaconf import DictConfig

from predict import box_finder, detector_file_as_choice
from uniformer_pose.config import Node
from uniformer_pose.config_parts import Detector, Precision
from uniformer_pose.entry_point import checked_config, report_input_errors, run, users_mistake
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, Positive, Share

_DEMO_RUNS = Path("runs/demo")


@dataclass
class LimitsConfig:
    """Of each picture that visitors of the page hand in."""

    upload_megabytes: Positive
    megapixels: Positive


@dataclass
class DemoConfig:
    """The keys of conf/demo.yaml."""

    detector: Detector
    ckpt_path: str | None
    host: str
    port: Annotated[int, Ge(0), Le(65535)]
    open_browser: bool
    score_threshold: Share
    input_size: tuple[Count, Count] | None
    head_dim: Count | None
    model_class: str | None
    device: str | None
    precision: Precision
    limits: LimitsConfig
    examples: Node


@hydra.main(version_base="1.3", config_path="../conf", config_name="demo")
def main(config: DictConfig) -> None:
    """Check the config before any work, then serve the page until Ctrl-C."""
    with report_input_errors(), tempfile.TemporaryDirectory(prefix="uniformer_pose_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        settings = checked_config(config, DemoConfig)
        demo = launched(settings)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            demo.close(verbose=False)
            print("the page is closed")


def launched(config: dict[str, Any]) -> Any:
    """The page of a checked, plain config, being served from another thread, as Gradio's blocks."""
    checkpoint = config["ckpt_path"] or newest_demo_checkpoint()
    try:
        from uniformer_pose.prediction.page import PosePage, launch
    except ModuleNotFoundError as error:
        raise InputError(f'the page needs {error.name}; install the extra: pip install -e ".[page]"') from error
    from hydra.utils import instantiate

    from uniformer_pose.prediction.estimator import PoseEstimator

    estimator = PoseEstimator(
        checkpoint,
        input_size=config["input_size"] and tuple(config["input_size"]),
        head_dim=config["head_dim"],
        model_class=config["model_class"],
        device=config["device"],
        precision=config["precision"],
    )
    os.environ["UNIFORMER_POSE_OFFLINE"] = "1"  # from here on nothing is fetched, whatever a visitor asks for
    notes = f"Model: {checkpoint}"
    if config["ckpt_path"] is None:
        notes += " (small, and trained on rendered people only; for photographs give `ckpt_path=` a released model)"
    most_pixels = round(config["limits"]["megapixels"] * 1e6)
    demo = PosePage(estimator, most_pixels=most_pixels, find_people=people_finder(config)).blocks(
        notes=notes,
        examples=instantiate(config["examples"], _convert_="all"),
        score_threshold=config["score_threshold"],
    )
    launch(
        demo,
        host=config["host"],
        port=config["port"],
        most_bytes=round(config["limits"]["upload_megabytes"] * 1e6),
        open_browser=config["open_browser"],
    )
    return demo


def newest_demo_checkpoint() -> str:
    """The best checkpoint of the last ``make demo``; InputError if there is none."""
    found = [(path.stat().st_mtime_ns, str(path)) for path in _DEMO_RUNS.glob("*/checkpoints/best.ckpt")]
    if not found:
        raise InputError(
            f"no model: there is no {_DEMO_RUNS}/*/checkpoints/best.ckpt yet; run `make demo` first (about 5 minutes), "
            "or give ckpt_path=<a file>"
        )
    return max(found)[1]


def people_finder(config: dict[str, Any]) -> Callable[[Sequence[str], Sequence[Any]], list[Any]]:
    """Names and pictures -> boxes, by the config's detector, which is made when it is first wanted."""
    make = functools.cache(lambda: box_finder({**config, "boxes": "detector"}, None))  # keeps no failure

    def find(names: Sequence[str], images: Sequence[Any]) -> list[Any]:
        try:
            finder = make()
        except Exception as error:
            reason = users_mistake(error)
            if reason is None:
                raise
            if (config["detector"]["model"] or {}).get("weights", "") is None:
                reason = (
                    "its weights are not on this machine, and the page fetches nothing; src/predict.py fetches them"
                )
            raise InputError(f"no person detector: {reason}. Or draw a box around each person.") from error
        return finder(names, images)

    return find


if __name__ == "__main__":
    sys.argv[1:] = detector_file_as_choice(sys.argv[1:])
    run(main)
