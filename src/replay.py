"""Repeats a training step that went bad: its dump -> the layer where numbers first stopped being finite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import hydra
from omegaconf import DictConfig

from uniformer_pose.entry_point import checked_config, prepare_command_line, report_input_errors
from uniformer_pose.ranges import CountOrNone


@dataclass
class ReplayConfig:
    """The keys of conf/replay.yaml."""

    dump: str
    process: CountOrNone | None
    device: str | None


@hydra.main(version_base="1.3", config_path="../conf", config_name="replay")
def main(config: DictConfig) -> None:
    """Check the config before any work, then replay."""
    with report_input_errors():
        checked = checked_config(config, ReplayConfig)
        # Imported here because a misspelt key should not have to wait for torch.
        from uniformer_pose.training.replay import replay_dump

        for line in replay_dump(Path(checked["dump"]), process=checked["process"], device=checked["device"]):
            print(line)


if __name__ == "__main__":
    prepare_command_line(Path(__file__).parents[1] / "conf")
    main()
