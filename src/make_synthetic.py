"""Write a dataset of synthetic people in COCO's form or another: ``python src/make_synthetic.py skeleton=mpii_16``.

Exit status: 0 written or already there, 2 unusable settings, 130 interrupted.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig

from uniformer_pose.entry_point import checked_config, report_input_errors, run
from uniformer_pose.progress import progress_bar
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic import SyntheticSettings, write_synthetic_dataset
from uniformer_pose.synthetic.landmarks import not_shown


@dataclass(frozen=True)
class MakeSyntheticConfig(SyntheticSettings):
    """The keys of conf/make_synthetic.yaml."""

    root: str = ""
    skeleton: str = "coco_17"
    workers: int = 0
    overwrite: bool = False


@hydra.main(version_base="1.3", config_path="../conf", config_name="make_synthetic")
def main(config: DictConfig) -> None:
    """Write the dataset that conf/make_synthetic.yaml and the command line describe."""
    with report_input_errors():
        settings = checked_config(config, MakeSyntheticConfig)
    root = settings.pop("root")
    started = time.monotonic()
    try:
        with report_input_errors(), progress_bar("images") as on_progress:
            skeleton = load_skeleton(settings.pop("skeleton"))
            written = write_synthetic_dataset(root, skeleton=skeleton, on_progress=on_progress, **settings)
    except KeyboardInterrupt:
        print(f"interrupted: no annotations were written to {root}; run the same command again", file=sys.stderr)
        sys.exit(130)
    if not written:
        print(f"{root} holds this dataset already; nothing to do")
        return
    seconds = time.monotonic() - started
    images = settings["num_train_images"] + settings["num_val_images"]
    print(f"wrote {images} images to {root} in {seconds:.1f} s ({images / seconds:.0f} images/s)")
    if unlabelled := not_shown(skeleton.keypoint_names):
        share = f"{len(unlabelled)} of the {skeleton.num_keypoints} keypoints of {skeleton.name}"
        print(f"unlabelled: {share}, points of face and hands that the figure does not have (see its category)")


if __name__ == "__main__":
    run(main)
