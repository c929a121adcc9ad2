"""What the entry points share: command line and config checked, one-line errors, objects from config nodes, sweeps."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from uniformer_pose.config_check import check_config
from uniformer_pose.errors import InputError, RunFailedError
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.redaction import redact_hydra_records, redact_log_messages, text_without_secrets

if TYPE_CHECKING:
    import lightning.pytorch as pl


@contextmanager
def report_input_errors() -> Iterator[None]:
    """Print one line instead of a traceback: for a user's mistake (exit status 2), and a training that diverged (1).

    In a sweep the line is printed too, but the error goes on to Hydra, so that the other runs are still made. What
    Hydra has recorded of the command is cleared of secrets first.
    """
    try:
        redact_hydra_records()
        yield
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        line = text_without_secrets(line)
        print(f"error: {line}", file=sys.stderr)
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise CompactHydraException(line) from error  # of which Hydra prints no traceback either
        raise SystemExit(1 if isinstance(error, RunFailedError) else 2) from None


def _one_line(error: Exception) -> str | None:
    """The line for the user; None for an error of ours, whose traceback somebody has to see."""
    if isinstance(error, RunFailedError):
        return str(error)
    if type(error).__module__.startswith("wandb."):  # no account, no network
        return f"{' '.join(str(error).split())} Or record without an account: logger.wandb.offline=true"
    if isinstance(error, (InputError, InstantiationException)):
        return _users_mistake(error)
    return None


def _users_mistake(error: BaseException | None) -> str | None:
    """The one line of an InputError or a package that is absent, behind what Hydra and data workers wrap them in."""
    while error is not None:
        if isinstance(error, InputError):  # a worker's arrives as another one, with a traceback before the line
            return str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
        if isinstance(error, ImportError):
            return " ".join(str(error).split())
        error = error.__cause__
    return None


def prepare_command_line(config_folder: Path) -> None:
    """Check and rewrite ``sys.argv`` before Hydra reads it; called twice it changes nothing more."""
    redact_log_messages()
    groups = config_groups(config_folder)
    with report_input_errors():
        refuse_unknown_choices(sys.argv[1:], groups)
    sys.argv[1:] = accept_any_argument(sys.argv[1:], groups)
    if {"-h", "--help"} & set(sys.argv[1:]):
        # Hydra's own help copies the whole list of defaults for every group there is, which takes over a second.
        sys.stdout.write(_help(groups) + "\n")
        sys.argv[1:] = [*(argument for argument in sys.argv[1:] if argument not in ("-h", "--help")), "--cfg", "job"]
    # Under torchrun and SLURM every process composes a time-stamped run directory of its own; only the first one's is
    # written to, so the others get none.
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) > 0:
        sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]


def _help(groups: Mapping[str, Collection[str]]) -> str:
    """What stands above the composed config in the answer to ``--help``."""
    program = f"python {sys.argv[0]}"
    choices = (f"{group}: {', '.join(sorted(groups[group]))}" for group in sorted(groups))
    return "\n".join(
        [
            f"{program} group=choice ... key.of.it=value ...",
            f"{program} -m key=value,other    one run for each value",
            f"{program} --hydra-help          options of Hydra, which composes the config",
            "",
            "Groups and their choices:",
            *choices,
            "",
            "The config as composed from this command line; any value of it can be given:",
        ]
    )


def config_groups(config_folder: Path) -> dict[str, set[str]]:
    """The choices of every config group; files that begin with an underscore are parts of others."""
    groups: dict[str, set[str]] = {}
    for file in config_folder.glob("*/**/*.yaml"):
        if not file.stem.startswith("_"):
            groups.setdefault(file.parent.relative_to(config_folder).as_posix(), set()).add(file.stem)
    return groups


def refuse_unknown_choices(arguments: Sequence[str], groups: Mapping[str, Collection[str]]) -> None:
    """Raise InputError for ``group=choice`` where there is no such choice; Hydra's own message is a page long."""
    if any(argument.startswith(("--config", "-c", "hydra.searchpath")) for argument in arguments):
        return  # there may be choices in other folders
    for argument in arguments:
        name, _, value = argument.partition("=")
        group = name.lstrip("+").partition("@")[0]
        if group in groups and re.fullmatch(r"[\w-]+(,[\w-]+)*", value):
            for choice in value.split(","):
                if choice not in groups[group] and choice != "null":
                    raise InputError(f"{group}={choice}: no such choice; {did_you_mean(choice, groups[group])}")


def accept_any_argument(arguments: Sequence[str], groups: Collection[str]) -> list[str]:
    """The command line with ``++`` before every ``key=value`` that is no choice of a config group.

    Hydra accepts a key that is in no YAML file only so, but nobody should have to know which keys are: the check of
    the composed config refuses those that no one reads.
    """

    def is_value(argument: str) -> bool:
        key, equals, _ = argument.partition("=")
        plain = re.fullmatch(r"[A-Za-z_][\w.-]*", key)
        return bool(equals and plain and key not in groups and key.partition(".")[0] != "hydra")

    return [f"++{_quoted_url(argument)}" if is_value(argument) else argument for argument in arguments]


def _quoted_url(argument: str) -> str:
    """``key=https://...`` with the URL in quotes: Hydra's grammar stops at the ``#`` and ``=`` that URLs have."""
    key, _, value = argument.partition("=")
    return f'{key}="{value}"' if re.fullmatch(r"https?://[^\s,\"\\]+", value) else argument


def checked_config(config: DictConfig, schema: type) -> dict[str, Any]:
    """The composed config as plain dicts, lists and values, checked against ``schema``."""
    plain = plain_config(config)
    check_config(plain, schema)
    return plain


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The composed config as plain dicts, lists and values; InputError for a reference that leads nowhere."""
    try:
        return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    except InterpolationToMissingValueError as error:
        required = str(error).splitlines()[0].rpartition(" ")[2]
        raise InputError(f"{required} is required: give {required}=...") from None
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from None


def one_of_each(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The objects that a group of named config nodes describes; a node of null is left out."""
    from hydra.utils import instantiate

    return {name: instantiate(node, _convert_="all") for name, node in nodes.items() if node is not None}


def quiet_lightning() -> None:
    """One line per message: Lightning's own handlers repeat what Hydra's already write, and it advertises."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: "Tip:" not in record.getMessage())
    # Ours continue where they stopped (PersonCrops.state_dict); Lightning does not see it.
    warnings.filterwarnings("ignore", message=".*dataloader.*not resumable.*")
    # PoseModule.configure_model does nothing unless trainer=fsdp asks for it.
    warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # of Lightning 2.6 on torch 2.15, about itself


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
