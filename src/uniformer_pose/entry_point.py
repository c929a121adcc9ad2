"""What the entry points share: command line and config checked, one-line errors, objects from config nodes, sweeps."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
import traceback
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

from uniformer_pose.config import check_config, check_value
from uniformer_pose.errors import InputError, RunFailedError, is_refusal_of_library, place_in_users_code
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.overrides import given_values, override, parse_override
from uniformer_pose.ranges import RunName
from uniformer_pose.secrets_in_config import refuse_secrets

if TYPE_CHECKING:
    import lightning.pytorch as pl

_OPTIONS_WITH_VALUE = (
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--package",
    "-p",
    "--cfg",
    "-c",
)
_REQUIRED_GROUPS = ("model", "data", "optimizer", "trainer", "callbacks", "evaluation", "detector")


@contextmanager
def report_input_errors() -> Iterator[None]:
    """Print one line instead of a traceback: for a user's mistake (exit status 2), and a training that diverged (1).

    In a sweep the line is printed too, but the error goes on to Hydra, so that the other runs are still made. Hydra's
    own switch, the environment variable ``HYDRA_FULL_ERROR=1``, adds the traceback.
    """
    try:
        yield
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error)
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
        return users_mistake(error)
    return None


def users_mistake(error: BaseException | None) -> str | None:
    """The one line of an InputError, an absent package or arguments that a library's class refuses.

    They stand behind what Hydra and data workers wrap them in.
    """
    target = re.search(r"target '([^']*)'", str(error))
    while error is not None:
        if isinstance(error, InputError):  # a worker's arrives as another one, with a traceback before the line
            return str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
        if isinstance(error, ImportError):
            return " ".join(str(error).split()) + place_in_users_code(error)
        if target and is_refusal_of_library(error):
            return f"{target[1]}: {' '.join(str(error).split())}"
        error = error.__cause__
    return None


def prepare_command_line(config_folder: Path) -> None:
    """Check and rewrite ``sys.argv`` before Hydra reads it; called twice it changes nothing more."""
    arguments = overrides_first(sys.argv[1:])
    with report_input_errors():
        groups = config_groups(config_folder, *config_folders_of(arguments))
        refuse_unknown_choices(arguments, groups)
        refuse_search_of_one_run(arguments)
        sys.argv[1:] = accept_any_argument(arguments, groups)
        refuse_unwritable(sys.argv[1:])
    if {"-h", "--help"} & set(sys.argv[1:]):
        # Hydra's own help copies the whole list of defaults for every group there is, which takes over a second.
        sys.stdout.write(_help(groups) + "\n")
        sys.argv[1:] = [*(argument for argument in sys.argv[1:] if argument not in ("-h", "--help")), "--cfg", "job"]
    # Under torchrun and SLURM every process composes a time-stamped run directory of its own; only the first one's is
    # written to, so the others get none.
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) > 0:
        own = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
        sys.argv[1:] = overrides_first([*sys.argv[1:], *own])


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


def config_groups(*config_folders: Path) -> dict[str, set[str]]:
    """The choices of every config group; files that begin with an underscore are parts of others."""
    groups: dict[str, set[str]] = {}
    for folder in config_folders:
        for file in folder.glob("*/**/*.yaml"):
            if not file.stem.startswith("_"):
                groups.setdefault(file.parent.relative_to(folder).as_posix(), set()).add(file.stem)
    return groups


def overrides_first(arguments: Sequence[str]) -> list[str]:
    """The command line with Hydra's options last: its parser takes overrides in one place only."""
    overrides: list[str] = []
    options: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("-"):
            options.append(argument)
            options += [next(rest, "")] if argument in _OPTIONS_WITH_VALUE else []
        else:
            overrides.append(argument)
    return [*overrides, *filter(None, options)]


def config_folders_of(arguments: Sequence[str]) -> list[Path]:
    """The folders of configs that a command line adds to the program's own; InputError for one that is not there."""
    found = []
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(value or following)
        elif name == "hydra.searchpath":
            found += [entry.strip("'\" ").removeprefix("file://") for entry in value.strip("[]'\"").split(",")]
    for folder in found:
        if not Path(folder).is_dir() and not folder.startswith("pkg://"):
            raise InputError(f"{folder}: no such folder of configs")
    return [Path(folder) for folder in found]


def refuse_unknown_choices(arguments: Sequence[str], groups: Mapping[str, Collection[str]]) -> None:
    """Raise InputError for ``group=choice`` where there is no such choice; Hydra's own message is a page long."""
    if any(argument.startswith(("--config-path", "-cp")) or "pkg://" in argument for argument in arguments):
        return  # there may be choices in other places
    for argument in arguments:
        name, _, value = argument.partition("=")
        group = name.lstrip("+").partition("@")[0]
        if group in groups and value.startswith("{"):
            raise InputError(f"{argument}: {group}= names a choice; give its values one by one, {group}.<key>=<value>")
        if group in groups and re.fullmatch(r"[\w-]+(,[\w-]+)*", value):
            for choice in value.split(","):
                if choice not in groups[group] and value != "null":
                    raise InputError(f"{group}={choice}: no such choice; {did_you_mean(choice, groups[group])}")
            if value == "null" and group in _REQUIRED_GROUPS:
                raise InputError(f"{group}=null: it is required; {did_you_mean('', groups[group])}")


def refuse_search_of_one_run(arguments: Sequence[str]) -> None:
    """Raise InputError for a search of hyper-parameters without ``-m``: Hydra would make one plain run."""
    for argument in arguments:
        group, _, choice = argument.partition("=")
        if group == "hparams_search" and choice != "null" and not {"-m", "--multirun"} & {*arguments}:
            raise InputError(f"{argument}: a search makes many runs; give -m as well")


def accept_any_argument(arguments: Sequence[str], groups: Collection[str]) -> list[str]:
    """The command line as Hydra accepts it.

    ``++`` stands before every ``key=value`` that is no choice of a config group: Hydra accepts a key that is in no YAML
    file only so, but nobody should have to know which keys are, and the check of the composed config refuses those that
    no one reads. A value that Hydra's grammar cannot read, such as a path or a URL with ``=`` or ``#``, is put in
    quotes, and ``group=null`` is written as Hydra does, ``~group``.
    """
    return [_acceptable(argument, groups) for argument in arguments]


def _acceptable(argument: str, groups: Collection[str]) -> str:
    key, equals, value = argument.partition("=")
    if key in groups and value == "null":
        return f"~{key}"
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", key) or key in groups:
        return argument
    readable = argument if parse_override(argument) else override(key, value)
    return readable if key.partition(".")[0] == "hydra" else f"++{readable}"


def refuse_unwritable(arguments: Sequence[str]) -> None:
    """Raise InputError for what Hydra would write to a wrong place, or write though it is secret."""
    values = given_values(list(arguments))
    refuse_secrets(values)
    if isinstance(values.get("name"), str):
        check_value("name", values["name"], RunName)


def checked_config(config: DictConfig, schema: type) -> dict[str, Any]:
    """The composed config as plain dicts, lists and values, checked against ``schema``."""
    plain = plain_config(config)
    refuse_secrets(plain)
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    check_config(plain, schema, [override.partition("=")[0].lstrip("+~") for override in typed])
    return {field.name: field.default for field in dataclasses.fields(schema) if field.name not in plain} | plain


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
        logging.getLogger(name).propagate = True  # else, imported before Hydra's handlers are there, it is silent
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: "Tip:" not in record.getMessage())
    # Ours continue where they stopped (PersonCrops.state_dict); Lightning does not see it.
    warnings.filterwarnings("ignore", message=".*dataloader.*not resumable.*")
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
