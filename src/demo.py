"""A local web page to look at poses: drop a picture, draw or detect boxes, see skeletons, heatmaps and COCO results.

Uses no network: it serves this machine only, unless told otherwise, and loads nothing from elsewhere. Exit status 0
after Ctrl-C, 2 for unusable settings.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import hydra
from annotated_types import Ge, Le
from omegaconf import DictConfig

from predict import detector_file_as_choice
from uniformer_pose.config_check import Node
from uniformer_pose.config_parts import Detector, Precision
from uniformer_pose.entry_point import checked_config, prepare_command_line, report_input_errors
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, Positive, Share

if TYPE_CHECKING:
    from uniformer_pose.prediction.boxes import BoxFinder

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
    with report_input_errors():
        serve(checked_config(config, DemoConfig))


def serve(config: dict[str, Any]) -> None:
    """Load the model that a checked, plain config names and serve the page until this process is told to end."""
    checkpoint = config["ckpt_path"] or newest_demo_checkpoint()
    # Imported here because a misspelt key should not have to wait for torch.
    from hydra.utils import instantiate

    from uniformer_pose.demo_page.answers import Limits, PageAnswers, rendered_examples
    from uniformer_pose.demo_page.server import PageServer
    from uniformer_pose.prediction.estimator import PoseEstimator
    from uniformer_pose.weights.download import OFFLINE_VARIABLES

    limits = Limits(
        upload_bytes=round(config["limits"]["upload_megabytes"] * 1e6),
        pixels=round(config["limits"]["megapixels"] * 1e6),
    )
    estimator = PoseEstimator(
        checkpoint,
        input_size=config["input_size"] and tuple(config["input_size"]),
        head_dim=config["head_dim"],
        model_class=config["model_class"],
        device=config["device"],
        precision=config["precision"],
    )
    os.environ[OFFLINE_VARIABLES[0]] = "1"  # from here on nothing is fetched, whatever a visitor asks for
    notes = [f"Model: {checkpoint}"]
    if config["ckpt_path"] is None:
        notes.append(
            "It is small and was trained on rendered people only. For photographs start the page with a released or "
            "your own model (ckpt_path=...)."
        )
    answers = PageAnswers(
        estimator,
        limits=limits,
        examples=rendered_examples(instantiate(config["examples"], _convert_="all")),
        make_detector=detector_maker(config["detector"]),
        notes=notes,
        score_threshold=config["score_threshold"],
    )
    with PageServer(answers, host=config["host"], port=config["port"]) as server:
        print(f"the page is at      {server.url}   (Ctrl-C ends it)", flush=True)
        if not server.is_local:
            print(
                f"                    open to whoever reaches this machine, because host={config['host']}", flush=True
            )
        if config["open_browser"] and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("the page is closed")


def newest_demo_checkpoint() -> str:
    """The best checkpoint of the last ``make demo``; InputError if there is none."""
    found = [(path.stat().st_mtime_ns, str(path)) for path in _DEMO_RUNS.glob("*/checkpoints/best.ckpt")]
    if not found:
        raise InputError(
            f"no model: there is no {_DEMO_RUNS}/*/checkpoints/best.ckpt yet; run `make demo` first (about 5 minutes), "
            "or give ckpt_path=<a file>"
        )
    return max(found)[1]


def detector_maker(config: dict[str, Any]) -> Callable[[], BoxFinder] | None:
    """What makes the config's detector when it is first wanted; None for ``detector=none``."""
    model = config["model"]
    if model is None:
        return None

    def make() -> BoxFinder:
        from hydra.utils import instantiate

        from uniformer_pose.prediction.boxes import DetectedBoxes

        try:
            detector = instantiate(model, _convert_="all")
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError | ImportError):
                cause = cause.__cause__
            if cause is None:
                raise
            if "weights" in model and model["weights"] is None:
                raise InputError(
                    "There is no person detector here: its weights are not on this machine, and this page fetches "
                    "nothing. Draw a box around each person, or fetch the weights once with src/predict.py, which "
                    "finds people with the same detector."
                ) from error
            raise InputError(f"The person detector cannot be used: {' '.join(str(cause).split())}") from error
        return DetectedBoxes(detector, instantiate(config["keep"], _convert_="all"))

    return make


if __name__ == "__main__":
    sys.argv[1:] = detector_file_as_choice(sys.argv[1:])
    prepare_command_line(Path(__file__).parents[1] / "conf")
    main()
