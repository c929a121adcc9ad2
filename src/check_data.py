"""Says what is wrong with a dataset before anyone trains on it: data config -> report, contact sheets.

Exit status: 0 clean, 1 defects found, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import PartOfData
from uniformer_pose.entry_point import checked_config, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, CountOrNone, RunName


@dataclass
class CheckDataConfig:
    """The keys of conf/check_data.yaml."""

    splits: list[Literal["train", "val"]]
    read_images: bool
    workers: Count
    fail_on: Literal["error", "remark"]
    max_examples: CountOrNone
    sheet_people: CountOrNone
    name: RunName
    run_dir: str
    data: PartOfData | None = None


@hydra.main(version_base="1.3", config_path="../conf", config_name="check_data")
def main(config: DictConfig) -> None:
    """Check the config before any work, then the data; end with the status that the data deserve."""
    try:
        with report_input_errors():
            clean = check_data(checked_config(config, CheckDataConfig))
    except KeyboardInterrupt:
        print("interrupted: no report was written", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if clean else 1)


def check_data(config: dict[str, Any]) -> bool:
    """Print and write the report that a checked, plain config asks for; returns whether the data are clean."""
    data = config.get("data")
    if data is None or data.get("codec") is None:  # none was chosen, or one that only changes another
        raise InputError("data is required: give data=<one of conf/data>, such as data=coco_256x192")
    # Imported here because a misspelt key should not have to wait for the libraries.
    from uniformer_pose.data.checking.dataset_check import check_dataset
    from uniformer_pose.data.checking.text_report import text_report
    from uniformer_pose.data.crop_geometry import CropSpec
    from uniformer_pose.pictures.dataset_sheet import choose_people, save_dataset_sheet
    from uniformer_pose.progress import progress_bar
    from uniformer_pose.skeleton import load_skeleton

    skeleton = load_skeleton(data["skeleton"])
    with progress_bar("images") as on_progress:
        report = check_dataset(
            split_files(data, config["splits"]),
            skeleton,
            batch_size=data["batch_size"],
            read_images=config["read_images"],
            workers=config["workers"],
            max_examples=config["max_examples"],
            categories=data["categories"],
            max_images=data["max_images"],
            image_orientation=data.get("image_orientation"),
            area=data["area"],
            on_progress=on_progress,
        )
    print(text_report(report))
    for split in report.splits:
        if split.max_images is not None:
            print(f"partial   {split.files.name}: only its first {split.max_images} images (data.max_images)")
    run_dir, codec = Path(config["run_dir"]), data["codec"]
    run_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
    (run_dir / "report.json").write_text(text + "\n", encoding="utf-8")
    print(f"report    {run_dir / 'report.json'}")
    for split in report.splits if config["read_images"] and config["sheet_people"] > 0 else ():
        if split.people is None:
            continue
        shown, doubts = choose_people(split.people, split.suspects, split.bad_images, config["sheet_people"])
        sheet = run_dir / f"{split.files.name}.png"
        save_dataset_sheet(
            sheet,
            split.people,
            shown,
            skeleton,
            title=f"{split.files.annotations.name}: {len(shown)} of {len(split.people)} people",
            doubts=doubts,
            spec=CropSpec(codec["height"], codec["width"], data["box_padding"], codec["method"] == "udp"),
        )
        print(f"pictures  {sheet}")
    return not report.num_errors and not (config["fail_on"] == "remark" and report.num_remarks)


def split_files(data: dict[str, Any], splits: list[Literal["train", "val"]]) -> list[Any]:
    """Where the splits that are asked for lie, by the rules of ``PersonCrops``."""
    from uniformer_pose.data.checking.dataset_check import SplitFiles

    root, found = Path(data["root"]).expanduser(), []
    for name in ("train", "val"):
        if name not in splits:
            continue
        annotations, images = root / data[f"{name}_annotations"], root / data[f"{name}_images"]
        for path in (annotations, images):
            if not path.exists():
                raise InputError(f"{path} does not exist; {data.get('if_missing') or 'set data.root=<folder>'}")
        boxes = None
        if name == "val" and data["val_boxes"] != "gt":
            as_it_stands = Path(data["val_boxes"]).expanduser()
            boxes = as_it_stands if as_it_stands.is_file() else root / data["val_boxes"]
        found.append(SplitFiles(name, annotations, images, boxes))
    if not found:
        raise InputError("splits=[]: name train, val or both: splits=[train,val]")
    return found


if __name__ == "__main__":
    run(main)
