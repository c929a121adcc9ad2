"""Turns annotations of other formats into a dataset that ``data=`` reads: YOLO-pose, a CSV of points, COCO JSON, MPII.

Exit status: 0 written, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig

from uniformer_pose.config import check_config, check_value
from uniformer_pose.entry_point import config_groups, plain_config, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.overrides import shell_command
from uniformer_pose.ranges import Share


@dataclass
class ConvertDataConfig:
    """The keys of conf/convert_data.yaml but ``from``, which is a word of Python's."""

    source: str
    val_source: str | None
    images: str | None
    val_images: str | None
    to: str
    category: str | int | list[str | int] | None
    skeleton: str | None
    exif: Literal["displayed", "stored"] | None
    val_share: Share
    on_problem: Literal["error", "skip"]


@hydra.main(version_base="1.3", config_path="../conf", config_name="convert_data")
def main(config: DictConfig) -> None:
    """Check the settings before any work, then convert."""
    try:
        with report_input_errors():
            convert_data(config)
    except KeyboardInterrupt:
        print(f"interrupted: nothing was written to {config.to}", file=sys.stderr)
        sys.exit(130)


def convert_data(config: DictConfig) -> None:
    """Write the dataset that the config asks for, and say what to do next."""
    settings = plain_config(config)
    source_format = settings.pop("from", "???")
    if source_format == "???":
        raise InputError("from is required: give from=yolo_pose|points_csv|coco|mpii|aic")
    check_value("from", source_format, Literal["yolo_pose", "points_csv", "coco", "mpii", "aic"])
    check_config(settings, ConvertDataConfig)
    if source_format in ("yolo_pose", "points_csv") and (settings["val_source"] or settings["val_images"]):
        raise InputError("val_source and val_images are for from=coco, mpii and aic; leave them out")
    # Imported here because a misspelt key should not have to wait for the libraries.
    from uniformer_pose.data.conversion.ai_challenger import read_ai_challenger
    from uniformer_pose.data.conversion.coco_keypoints import read_coco_keypoints
    from uniformer_pose.data.conversion.dataset_writer import require_free, write_dataset
    from uniformer_pose.data.conversion.mpii import read_mpii
    from uniformer_pose.data.conversion.points_table import read_points_table
    from uniformer_pose.data.conversion.source import Log, Settings
    from uniformer_pose.data.conversion.yolo_pose import read_yolo_pose
    from uniformer_pose.progress import progress_bar
    from uniformer_pose.skeleton import load_skeleton

    places = ("to", "source", "val_source", "images", "val_images")
    paths: dict[str, Any] = {key: Path(settings[key]).expanduser() for key in places if settings[key] is not None}
    name, to = config_name(paths["to"]), paths.pop("to")
    require_free(to, list(paths.values()))
    source, category = paths.pop("source"), settings["category"]
    skeleton = settings["skeleton"] or {"mpii": "mpii_16", "aic": "aic_14"}.get(source_format)
    asked = Settings(
        **paths,
        exif=settings["exif"],
        val_share=settings["val_share"],
        skeleton=None if skeleton is None else load_skeleton(skeleton),
        categories=category if category is None or isinstance(category, list) else [category],
    )
    readers = {"yolo_pose": read_yolo_pose, "points_csv": read_points_table, "coco": read_coco_keypoints}
    readers |= {"mpii": read_mpii, "aic": read_ai_challenger}
    log, made_from = Log(skip=settings["on_problem"] == "skip"), {"from": source_format, **settings}
    found = readers[source_format](source, asked, log)
    with progress_bar("images") as on_progress:
        lines = write_dataset(found, to, name, asked, log, made_from=made_from, on_progress=on_progress)
    print("\n".join([*lines, *log.lines()]))
    for purpose, script in (("check it: ", "src/check_data.py"), ("train:    ", "src/train.py")):
        print(purpose + shell_command("python", script, "--config-dir", to.absolute() / "conf", data=name))


def config_name(to: Path) -> str:
    """The folder's name as it can be typed after ``data=``; InputError where a data config of the project has it."""
    name = re.sub(r"\W+", "_", to.resolve().name, flags=re.ASCII).strip("_")
    if not name or name in config_groups()["data"]:
        raise InputError(f"to={to}: give a folder with another name: data={name} is taken, or cannot be typed")
    return name


if __name__ == "__main__":
    run(main)
