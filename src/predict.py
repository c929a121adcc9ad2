"""Poses of people in pictures, folders and videos: source and weights -> drawn pictures, COCO results, a table.

Exit status: 0 all done, 1 some pictures or videos could not be read, 2 unusable settings, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import PredictConfig
from uniformer_pose.entry_point import checked_config, report_input_errors, run

_OF_ESTIMATOR = ("input_size", "keypoints", "head_dim", "model_class", "device", "precision", "batch_size", "engine")
_CHANGE_NO_POSE = ("output", "overwrite", "device", "batch_size", "engine")


@hydra.main(version_base="1.3", config_path="../conf", config_name="predict")
def main(config: DictConfig) -> None:
    """Check the config before any work, then predict."""
    with report_input_errors():
        failed = predict(checked_config(config, PredictConfig))
    if failed:
        sys.exit(1)


def predict(config: dict[str, Any]) -> dict[str, str]:
    """Do what a checked, plain config asks for; returns what could not be read, with the reasons."""
    # Imported here because a misspelt key should not have to wait for torch.
    from hydra.utils import instantiate

    from uniformer_pose.prediction.boxes import FullPictures
    from uniformer_pose.prediction.estimator import PoseEstimator
    from uniformer_pose.prediction.listed_boxes import listed_boxes_for
    from uniformer_pose.prediction.output import PoseOutput
    from uniformer_pose.prediction.pose_files import PoseFinder, pose_pictures, pose_videos
    from uniformer_pose.prediction.sources import find_source

    source = find_source(str(config["source"]))
    listed = listed_boxes_for(source, config["boxes"], config["boxes_category"])
    estimator = PoseEstimator(config["ckpt_path"], **{name: config[name] for name in _OF_ESTIMATOR})
    find_boxes: Any = listed or FullPictures()
    if config["boxes"] == "detector":
        find_boxes = instantiate(config["detector"], _convert_="all")
    settings = {name: value for name, value in config.items() if name not in _CHANGE_NO_POSE}
    output = PoseOutput(
        Path(config["output"] or Path("runs") / "predict" / (Path(str(config["source"])).stem or "here")),
        source.items,
        settings | {"precision": estimator.precision},
        draw=config["draw"],
        score_threshold=config["score_threshold"],
        overwrite=config["overwrite"],
    )
    pictures, videos = output.unfinished("picture"), output.unfinished("video")
    print(f"{output.folder}: {len(pictures) + len(videos)} of {len(source.items)} to do")
    find_poses = PoseFinder(estimator, find_boxes, flip_test=config["flip_test"])
    try:
        failed, remarks = pose_pictures(pictures, find_poses, output, orientation=config["image_orientation"])
        of_videos = pose_videos(videos, find_poses, output, smooth=config["smooth"])
    except KeyboardInterrupt:
        print("interrupted: what is finished stays, and the same command continues")
        sys.exit(130)
    written = output.write_results(estimator.skeleton, listed)
    print(*find_boxes.remarks(), *remarks, *of_videos[1], *source.remarks(), *written, sep="\n")
    failed |= of_videos[0] | source.refused
    if failed:
        print(f"could not be read: {len(failed)} of {len(source.items) + len(source.refused)}", file=sys.stderr)
        print(*(f"  {name}: {reason}" for name, reason in failed.items()), sep="\n", file=sys.stderr)
    return failed


if __name__ == "__main__":
    run(main)
