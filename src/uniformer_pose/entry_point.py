"""What the entry points share: one-line errors, objects from config nodes, and what a sweep cannot do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from uniformer_pose.errors import InputError

if TYPE_CHECKING:
    import lightning.pytorch as pl


@contextmanager
def report_input_errors() -> Iterator[None]:
    """Print the one line of a user's mistake instead of a traceback, and exit with status 2.

    In a sweep the line is printed too, but the error goes on to Hydra, so that the other runs are still made.
    """
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        raise SystemExit(2) from None


def one_of_each(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The objects that a group of named config nodes describes; a node of null is left out."""
    from hydra.utils import instantiate

    return {name: instantiate(node, _convert_="all") for name, node in nodes.items() if node is not None}


def refuse_unlaunchable_sweep(trainer: pl.Trainer) -> None:
    """Stop a sweep whose runs would have to start processes of their own.

    Lightning starts the other processes of a run by repeating the command line, ``-m`` included: each of them would
    begin a sweep of its own.
    """
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or trainer.world_size == 1:
        return
    if launcher.cluster_environment.creates_processes_externally:
        return
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError(
            f"a sweep (-m) cannot start the {trainer.world_size} processes of each run itself; use trainer.devices=1, "
            "or start the runs one by one without -m"
        )
