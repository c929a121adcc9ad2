"""Stores the pixels of the training images, so that a crop decodes nothing: data config -> prepared folder.

Exit status: 0 done, 1 some images cannot be read, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import Data
from uniformer_pose.entry_point import checked_config, report_input_errors, require_one_set, run
from uniformer_pose.errors import InputError
from uniformer_pose.overrides import shell_command
from uniformer_pose.ranges import Count


@dataclass
class PrepareConfig:
    """The keys of conf/prepare.yaml."""

    to: str | None
    workers: Count
    data: Data


@hydra.main(version_base="1.3", config_path="../conf", config_name="prepare")
def main(config: DictConfig) -> None:
    """Check the config before any work, then prepare."""
    try:
        with report_input_errors():
            complete = prepare(checked_config(config, PrepareConfig))
    except KeyboardInterrupt:
        print("interrupted: nothing is prepared", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if complete else 1)


def prepare(config: dict[str, Any]) -> bool:
    """Prepare what a checked, plain config asks for; returns whether every image could be read."""
    data = config["data"]
    require_one_set(data)
    # Imported here because a misspelt key should not have to wait for the libraries.
    from hydra.utils import instantiate

    from uniformer_pose.data.prepared import prepare_images
    from uniformer_pose.progress import progress_bar

    module = instantiate(data, _convert_="all")
    people = module.read_train_people()
    print(people.summary())
    if not len(people):
        raise InputError(f"{people.source_file}: no people to train on; give a file with annotated people")
    folder = module.root / "prepared" if config["to"] is None else Path(config["to"]).expanduser()
    started = time.monotonic()
    with progress_bar("images") as on_progress:
        result = prepare_images(people, folder, workers=config["workers"], on_progress=on_progress)
    print(
        f"{folder}: {result.images - len(result.bad)} of {result.images} images, {result.bytes / 1e6:.1f} MB; "
        f"{time.monotonic() - started:.1f} s"
    )
    print(*result.remarks, sep="\n", end="\n" if result.remarks else "")
    if result.bad:
        print(f"{len(result.bad)} images cannot be read; data.on_bad_image=skip trains without them. The first:")
        print(*list(result.bad.values())[:5], sep="\n")
    command = shell_command("python", "src/train.py", "...", **{"data.prepared": folder})
    print(f"to train with it    {command}")
    return not result.bad


if __name__ == "__main__":
    run(main)
