"""Says what is wrong with a dataset before anyone trains on it: data config -> report, contact sheets.

Exit status: 0 no errors, 1 errors found, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import Data
from uniformer_pose.entry_point import checked_config, report_input_errors, require_one_set, run
from uniformer_pose.files import write_json
from uniformer_pose.ranges import Count, RunName


@dataclass
class CheckDataConfig:
    """The keys of conf/check_data.yaml."""

    splits: list[Literal["train", "val"]]
    read_images: bool
    workers: Count
    name: RunName
    run_dir: str
    data: Data


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
    data = config["data"]
    require_one_set(data)
    # Imported here because a misspelt key should not have to wait for the libraries.
    from uniformer_pose.data.checking.dataset import check_dataset, splits_of
    from uniformer_pose.data.crop_geometry import CropSpec
    from uniformer_pose.pictures.dataset_sheet import save_dataset_sheet
    from uniformer_pose.progress import progress_bar
    from uniformer_pose.skeleton import load_skeleton

    splits, skeleton = splits_of(data, config["splits"]), load_skeleton(data["skeleton"])
    settings = {key: data.get(key) for key in ("categories", "max_images", "image_orientation", "area")}
    settings |= {key: config[key] for key in ("read_images", "workers")}
    with progress_bar("images") as on_progress:
        check_dataset(splits, skeleton, **settings, on_progress=on_progress)
    errors, remarks = (sum(split.number_of(severity) for split in splits) for severity in ("error", "remark"))
    report, codec = Path(config["run_dir"]) / "report.json", data["codec"]
    write_json(report, {"errors": errors, "remarks": remarks, **{split.name: split.to_dict() for split in splits}})
    lines = [line for split in splits for line in split.lines()]
    lines.append(f"{errors} errors, {remarks} remarks{'' if config['read_images'] else ' (no image was opened)'}")
    print("\n".join([*lines, f"report    {report}"]))
    spec = CropSpec(codec["height"], codec["width"], data["box_padding"], codec["method"] == "udp")
    for split in splits:
        if config["read_images"] and split.people is not None:
            sheet = report.with_name(f"{split.name}.png")
            save_dataset_sheet(sheet, split.people, skeleton, spec, suspects=split.suspects, unusable=split.unusable)
            print(f"pictures  {sheet}")
    return not errors


if __name__ == "__main__":
    run(main)
