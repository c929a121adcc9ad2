"""A command line of src/train.py taken as far as its checked config, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from programs import composed
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import checked_config


def checked_command_line(arguments: Sequence[str]) -> dict[str, Any]:
    """The checked config; InputError as the user sees it."""
    return checked_config(composed("train", *arguments), TrainConfig)


checked_command_line([])  # imports the targets, which takes seconds, before any input is timed
