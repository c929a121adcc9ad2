"""What the entry points share: a command line as Hydra reads it, a checked config, every mistake in one line."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from uniformer_pose.config import check_config, check_value
from uniformer_pose.errors import InputError, RunFailedError, is_refusal_of_library, place_in_users_code
from uniformer_pose.headline import headline  # noqa: F401 - registers a resolver of the configs
from uniformer_pose.nearest_name import did_you_mean
from uniformer_pose.overrides import given_values, override, parse_override
from uniformer_pose.ranges import RunName
from uniformer_pose.secrets_in_config import refuse_secrets

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.weights.contract import LoadReport

CONF = Path(__file__).parents[2] / "conf"


def run(main: Callable[[], object]) -> None:
    """Run what ``hydra.main`` has decorated, with the command line that a user typed.

    A mistake in the command line or the composed config is one line and status 2, ``--help`` is the program's own.
    """
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(help_of(Path(sys.argv[0]).stem))
        return
    try:
        sys.argv[1:] = command_line(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it else prints by the page
        main()
    except Exception as error:
        raise SystemExit(_report(error)) from None


@contextmanager
def report_input_errors() -> Iterator[None]:
    """Print one line instead of a traceback: for a user's mistake (exit status 2), and a training that diverged (1).

    In a sweep the line is printed too, but the error goes on to Hydra, so that the other runs are still made.
    """
    try:
        yield
    except Exception as error:
        status = _report(error)
        if _is_sweep():
            raise CompactHydraException(users_mistake(error)) from error
        raise SystemExit(status) from None


def _report(error: Exception) -> int:
    """Print the one line of an error and return the exit status; raise it again if nobody foresaw it."""
    line = users_mistake(error)
    if line is None:
        raise error
    print(f"error: {line}", file=sys.stderr)
    return 1 if isinstance(error, RunFailedError) or isinstance(error.__cause__, RunFailedError) else 2


def users_mistake(error: BaseException | None) -> str | None:
    """The one line of an error that is not ours: a mistake, an absent package, arguments that a library refuses.

    It may stand behind what Hydra and data workers wrap it in. None for what needs a traceback.
    """
    target = re.search(r"target '([^']*)'", str(error))
    while error is not None:
        text = " ".join(str(error).split())
        if isinstance(error, RunFailedError) or type(error) is CompactHydraException:  # the latter is of a sweep's run
            return str(error)
        if isinstance(error, InputError):  # a worker's arrives as another one, with a traceback before the line
            return str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
        if isinstance(error, (ConfigCompositionException, OverrideParseException, SearchPathException)):
            return _line_of_hydra(error)
        if isinstance(error, OmegaConfBaseException):
            return f"{error.full_key}: {str(error).splitlines()[0]}"
        if isinstance(error, OSError) and _is_of_hydra(error):
            return f"hydra.run.dir={error.filename}: cannot be made ({error.strerror}); give another folder"
        if isinstance(error, ImportError):
            return text + place_in_users_code(error)
        if type(error).__module__.startswith("wandb."):  # no account, no network
            return f"{text} Or record without an account: logger.wandb.offline=true"
        if target and is_refusal_of_library(error):
            return f"{target[1]}: {text}"
        error = error.__cause__
    return None


def _is_of_hydra(error: BaseException) -> bool:
    """Whether it is Hydra that fails with a file, which makes the folder of a run."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    last = next((file for file in reversed(files) if not re.search(r"<frozen|pathlib", file)), "")
    return f"{os.sep}hydra{os.sep}" in last


def _line_of_hydra(error: CompactHydraException) -> str:
    if isinstance(error, MissingConfigException):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [o for o in (error.options or config_groups().get(group) or ()) if not o.startswith("_")]
        if options:
            return f"{group.replace('/', '.')}={choice}: no such choice; {did_you_mean(choice, options)}"
    line = str(error).splitlines()[0]
    if line.startswith("Could not override 'data/sets'"):
        return "data.sets=[...] is for data=joint; of one set say data=<set>_<size> alone"
    referred, _, others = line.partition("possible interpolation keys: ")
    absent = [name for name in re.findall(r"\$\{(\w+)\}", referred) if others and name not in others.split(", ")]
    absent += re.findall(r"You must specify '(\w+)'", line)
    if absent:  # a group, or one that the defaults refer to
        return f"{absent[0]} is required: give {absent[0]}=..."
    return f"{error.override}: {line}" if isinstance(error, OverrideParseException) else line


def command_line(arguments: Sequence[str]) -> list[str]:
    """A command line as Hydra accepts it; InputError for what Hydra would do wrong, or write though it is secret."""
    searched = [argument for argument in arguments if re.match(r"hparams_search=(?!null)", argument)]
    if searched and not {"-m", "--multirun"} & {*arguments}:
        raise InputError(f"{searched[0]}: a search makes many runs; give -m as well")  # Hydra would make one plain run
    accepted = accept_any_argument(arguments, config_groups())
    values = given_values(accepted)
    refuse_secrets(values)
    if isinstance(values.get("name"), str):
        check_value("name", values["name"], RunName)
    # Under torchrun and SLURM every process composes a time-stamped run directory of its own; only the first one's is
    # written to, so the others get none.
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) > 0:
        overrides = (place for place, word in enumerate(accepted) if "=" in word and not word.startswith("-"))
        end = max(overrides, default=len(accepted) - 1) + 1  # Hydra takes overrides in one place only
        accepted[end:end] = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
    return accepted


def accept_any_argument(arguments: Sequence[str], groups: Collection[str]) -> list[str]:
    """Arguments with ``++`` before every ``key=value`` that is no choice of a config group.

    Hydra accepts a key that is in no YAML file only so, but nobody should have to know which keys are, and the check of
    the composed config refuses those that no one reads. A value that Hydra's grammar cannot read, such as a path or a
    URL with ``=`` or ``#``, is put in quotes, and ``group=null`` is written as Hydra does, ``~group``. A group below a
    group may be written with a dot, as the keys that its choice will have: ``data.sets=[coco,aic]``.
    """
    accepted = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if (group := key.replace(".", "/")) in groups:
            key, argument = group, f"{group}{equals}{value}"
            _refuse_repeated_choice(argument)
        if key in groups and value == "null":
            accepted.append(f"~{key}")
        elif not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", key) or key in groups:
            accepted.append(argument)
        else:
            readable = argument if parse_override(argument) else override(key, value)
            accepted.append(readable if key.partition(".")[0] == "hydra" else f"++{readable}")
    return accepted


def _refuse_repeated_choice(argument: str) -> None:
    """InputError for ``group=[one,one]``, of which Hydra would make one."""
    parsed = parse_override(argument)
    chosen = parsed.value() if parsed and not parsed.is_sweep_override() else None
    repeated = [name for name in chosen if chosen.count(name) > 1] if isinstance(chosen, list) else []
    if repeated:
        raise InputError(f"{argument.replace('/', '.')}: {repeated[0]} stands there more than once; name each once")


def config_groups(config_folder: Path = CONF) -> dict[str, set[str]]:
    """The choices of every config group; files that begin with an underscore are parts of others."""
    groups: dict[str, set[str]] = {}
    for file in config_folder.glob("*/**/*.yaml"):
        if not file.stem.startswith("_"):
            groups.setdefault(file.parent.relative_to(config_folder).as_posix(), set()).add(file.stem)
    return groups


def require_one_set(data: Mapping[str, Any]) -> None:
    """InputError for a data config of several sets, where one is to be looked at."""
    if "sets" not in data:
        return
    first = next(iter(data["sets"]), "coco")
    choices = sorted(choice for choice in config_groups()["data"] if choice.startswith(f"{first}_"))
    raise InputError(f"data=joint: this program takes one set at a time, such as data={(*choices, first)[0]}")


def help_of(program: str) -> str:
    """The keys of a program with their comments, and its groups with their choices."""
    files, keys = [program], {"": ""}
    chosen: dict[str, str | None] = {}
    for name in files:
        text = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
        keys[""] = keys[""] or "".join(re.findall(r"\A(?:#.*\n)+", text))
        for block, key in re.findall(r"^((\w+):.*\n(?:[ \t].*\n)*)", text, re.M):
            keys.setdefault(key, block)
        for entry in (yaml.safe_load(text) or {}).get("defaults", []):
            files += [entry] if isinstance(entry, str) and entry != "_self_" else []
            chosen |= entry if isinstance(entry, dict) else {}
    choices = [
        f"  {group}={chosen[group] or 'null'}: {', '.join(sorted(names))}"
        for group, names in config_groups().items()
        if group in chosen
    ]
    return "\n".join(
        [
            "".join(block for key, block in keys.items() if key not in ("defaults", "hydra")),
            "Groups, what is chosen, and the choices (conf/<group>/<choice>.yaml; any key of it is <group>.<key>=...):",
            *sorted(choices),
            "",
            f"python src/{program}.py -m key=one,other is one run for each value, --cfg job shows the composed config,",
            "--hydra-help the options of Hydra, which composes it",
        ]
    )


def checked_config(
    config: DictConfig, schema: type, before_targets: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """The composed config as plain dicts, lists and values, checked against ``schema`` (``check_config``)."""
    plain = plain_config(config)
    refuse_secrets(plain)
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    check_config(plain, schema, [override.partition("=")[0].lstrip("+~") for override in typed], before_targets)
    return {field.name: field.default for field in dataclasses.fields(schema) if field.name not in plain} | plain


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The composed config as plain dicts, lists and values; InputError for a reference that leads nowhere."""
    try:
        return dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    except InterpolationToMissingValueError as error:
        required = str(error).splitlines()[0].rpartition(" ")[2]
        raise InputError(f"{required} is required: give {required}=...") from None
    except OmegaConfBaseException as error:
        raise InputError(users_mistake(error) or "") from None


def trained_model(config: Mapping[str, Any]) -> tuple[SavedModel, LoadReport]:
    """The model of ``ckpt_path``, as the other keys say that a file may leave open, and the line on what was loaded."""
    from hydra.utils import instantiate

    from uniformer_pose.weights.loading import load_model

    codec = config["data"].get("codec")
    return load_model(
        config["ckpt_path"],
        codec=None if codec is None else instantiate(codec),
        head_dim=config["head_dim"],
        skeleton=config.get("keypoints"),
        assumed_skeleton=config["data"].get("skeleton"),
        model_class=config["model_class"],
    )


def one_of_each(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The objects that a group of named config nodes describes; a node of null is left out."""
    from hydra.utils import instantiate

    return {name: instantiate(node, _convert_="all") for name, node in nodes.items() if node is not None}


def quiet_lightning() -> None:
    """One line per message, and none of what Lightning and others advertise or say of themselves."""
    logging.getLogger("lightning").handlers.clear()  # Hydra's write it already
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not re.search("Tip:|TPU available", record.getMessage()))
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # which some library imports, and which lists its fonts
    # Ours continue where they stopped (PersonCrops.state_dict); Lightning does not see it.
    warnings.filterwarnings("ignore", message=".*dataloader.*not resumable.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # of Lightning 2.6 on torch 2.15, about itself


def refuse_unlaunchable_sweep(trainer: pl.Trainer) -> None:
    """Stop a sweep whose runs have several processes on this machine.

    Lightning starts the others by repeating the command line, ``-m`` included: each would begin a sweep of its own.
    """
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    starts_processes = trainer.world_size > 1 and cluster is not None and not cluster.creates_processes_externally
    if starts_processes and _is_sweep():
        raise InputError(
            f"a sweep (-m) cannot start the {trainer.world_size} processes of each run itself; use trainer.devices=1, "
            "or start the runs one by one without -m"
        )


def _is_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
