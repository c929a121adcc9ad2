"""A command line of src/train.py taken as far as its checked config, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException

from train import checked_train_config
from uniformer_pose.entry_point import accept_any_argument, config_groups, refuse_unknown_choices
from uniformer_pose.errors import InputError

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = config_groups(CONF)


def checked_command_line(arguments: Sequence[str]) -> dict[str, Any]:
    """The checked config; InputError as the user sees it.

    What Hydra itself refuses, it prints without a traceback, in a sentence of its own; that is one of ours here.
    """
    refuse_unknown_choices(arguments, GROUPS)
    accepted = accept_any_argument(arguments, GROUPS)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=[*accepted, "++run_dir=runs/here"])
    except CompactHydraException as error:
        raise InputError(ascii(f"argument {error}")[:500]) from error
    return checked_train_config(config)


checked_command_line([])  # imports the targets, which takes seconds, before any input is timed
