"""Trains one model on one dataset and scores it: config -> data, network, trainer -> fit -> AP."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config import Keys, Node
from uniformer_pose.config_parts import (
    Augmentation,
    MatmulPrecision,
    Model,
    Optimizer,
    Precision,
    Scheduler,
    TrainingData,
)
from uniformer_pose.entry_point import checked_config, quiet_lightning, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.overrides import shell_command
from uniformer_pose.ranges import RunName, Seed
from uniformer_pose.run_directory import (
    CHECKPOINTS,
    FinishedTraining,
    folder_of_first_process,
    is_first_process,
    only_training_in,
    register_run_folder,
    write_finished,
)
from uniformer_pose.training.resume import finished_as_asked

_OF_OTHER_GROUPS = {"model": "model", "protocol": "evaluation", "optimization": "optimizer=... or scheduler"}


@dataclass
class TrainConfig:
    """The keys of conf/train.yaml; what lies below a node is checked against the signature of its target."""

    model: Model
    data: TrainingData
    optimizer: Optimizer
    scheduler: Scheduler
    training: Annotated[
        Node,
        Keys(set_by_program={name: f"give {to}=..." for name, to in _OF_OTHER_GROUPS.items()}),
    ]
    trainer: Annotated[
        Node,
        Keys(
            set_by_program={
                "precision": "give precision=...",
                "callbacks": "give callbacks.<name>={_target_: ...}",
                "logger": "give logger=... or logger.<name>={_target_: ...}",
            }
        ),
    ]
    callbacks: dict[str, Node | None]
    evaluation: Node
    name: RunName
    run_id: str | int | None
    resume: Literal["auto"] | None
    run_dir: str
    seed: Seed
    precision: Precision
    float32_matmul_precision: MatmulPrecision
    ckpt_path: str | None
    augmentation: Augmentation | None = None
    logger: dict[str, Node | None] | None = None


# A launcher of sweeps may send this class to another machine by value, where the names in its annotations mean nothing.
TrainConfig.__annotations__ = get_type_hints(TrainConfig, include_extras=True)


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> float:
    """Check the config before any work, then train; the best AP is what a sweep optimises."""
    with report_input_errors():
        return train(checked_train_config(config))


def checked_train_config(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, checked."""
    return checked_config(config, TrainConfig)


def train(config: dict[str, Any]) -> float:
    """Run the training that a checked, plain config describes, or the rest of it; returns the best model's AP."""
    run_dir = folder_of_first_process(Path(config["run_dir"]), config, sys.argv, os.environ)
    finished = finished_as_asked(run_dir, config) if config["resume"] == "auto" else None
    if finished is not None:
        if is_first_process(os.environ):
            print(
                f"{run_dir}: finished (trainer.max_epochs={finished.max_epochs}), AP {finished.average_precision:.4f}; "
                "for a new run give name=<another> or run_id=<another>, to train longer a larger trainer.max_epochs"
            )
        return finished.average_precision
    with only_training_in(run_dir, is_first_process=is_first_process(os.environ)):
        return _train(config, run_dir)


def _train(config: dict[str, Any], run_dir: Path) -> float:
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import lightning.pytorch as pl
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.entry_point import one_of_each
    from uniformer_pose.evaluation.report import write_report
    from uniformer_pose.run_record import library_versions, record_run
    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.training.agreement import CheckpointOfFirstProcess
    from uniformer_pose.training.checkpoint_files import DurableCheckpoints, require_space
    from uniformer_pose.training.optimization import Optimization
    from uniformer_pose.training.out_of_memory import explained_out_of_memory
    from uniformer_pose.training.pictures import Pictures
    from uniformer_pose.training.resume import keep_replaced_config, same_logger_runs
    from uniformer_pose.training.safe_logging import forgiving
    from uniformer_pose.training.trainer import make_trainer
    from uniformer_pose.weights.start import starting_network

    quiet_lightning()
    checkpoint = _checkpoint_to_resume(config, run_dir) if is_first_process(os.environ) else None
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    if config["trainer"].get("overfit_batches"):
        raise InputError(
            f"trainer.overfit_batches={config['trainer']['overfit_batches']}: would replace the sampler that draws the "
            "augmentation; use debug=overfit, or data.max_images=<n>"
        )

    callbacks = one_of_each(config["callbacks"])
    checkpoint_files = DurableCheckpoints()
    trainer = make_trainer(  # before any work: it knows whether this machine has what is asked for
        config["trainer"],
        precision=config["precision"],
        plugins=[checkpoint_files],
        callbacks=[*callbacks.values(), CheckpointOfFirstProcess(checkpoint)],
        logger=False,
    )
    data = instantiate(config["data"], _partial_=True, _convert_="all")(
        seed=config["seed"], **one_of_each(config["augmentation"] or {})
    )
    network, other_network, line = starting_network(config["model"], data.skeleton, data.codec, resumed_from=checkpoint)
    rank_zero_info(line)
    data.setup("fit")
    if not config["trainer"].get("fast_dev_run"):  # only now: what is wrong with the data begins no run anywhere
        loggers = config["logger"] or {}
        loggers = same_logger_runs(loggers, run_dir) if is_first_process(os.environ) else loggers
        trainer.loggers = [forgiving(logger) for logger in one_of_each(loggers).values()]

    model = SavedModel(
        network,
        data.codec,
        data.skeleton,
        data.mean,
        data.std,
        data.box_padding,
        config,
        library_versions(),
        other_network,
    )
    module = instantiate(config["training"], _partial_=True, _convert_="all")(
        model=model,
        protocol=instantiate(config["evaluation"]),
        optimization=Optimization.of_config(config["optimizer"], config["scheduler"]),
    )
    if trainer.is_global_zero:
        require_space(
            run_dir / CHECKPOINTS,
            sum(parameter.numel() for parameter in network.parameters()),
            averaged="ema" in callbacks,
        )
        keep_replaced_config(run_dir)
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)

    with explained_out_of_memory(trainer, data):
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)

    # The callback's word, not a look at the disk: all processes must agree on whether to evaluate once more.
    best_checkpoint = callbacks.get("best_checkpoint")
    best = getattr(best_checkpoint, "best_model_path", "")
    # The weights in memory may be the best ones, and just scored.
    saved_at = getattr(best_checkpoint, "_last_global_step_saved", None)
    just_scored = module.evaluated_at_step is not None and module.evaluated_at_step == saved_at == trainer.global_step
    pictures = callbacks.get("pictures")
    if just_scored:
        if isinstance(pictures, Pictures):
            pictures.keep_last_as_final()
    elif best or (trainer.enable_validation and "val/AP" not in trainer.callback_metrics):
        # Without a best one there was nothing left to train, and nothing had been evaluated.
        trainer.validate(module, datamodule=data, ckpt_path=best or None, weights_only=True, verbose=False)
    if module.evaluation is not None and trainer.is_global_zero:
        print(write_report(run_dir, module.evaluation, module.protocol))
        if any((run_dir / "pictures").glob("*.png")):
            print(f"pictures            {run_dir / 'pictures'}")
    saved = best or getattr(callbacks.get("last_checkpoint"), "best_model_path", "")
    if saved and trainer.is_global_zero:
        name = "best checkpoint     " if best else "last checkpoint     "
        named = {} if other_network is None else {"model_class": other_network.path}
        print(f"{name}{saved}\nto evaluate it      {shell_command('python', 'src/eval.py', ckpt_path=saved, **named)}")
    average_precision = float(trainer.callback_metrics.get("val/AP", float("nan")))
    if checkpoint_files.failures:
        failed = "; ".join(f"{path} ({reason})" for path, reason in checkpoint_files.failures.items())
        raise InputError(
            f"the training is complete, but not all of it is on the disk: {failed}; free some space, then the same "
            "command with resume=auto repeats what is missing"
        )
    if trainer.is_global_zero and not config["trainer"].get("fast_dev_run"):
        write_finished(run_dir, FinishedTraining(trainer.max_epochs or -1, average_precision, model.config))
    return average_precision


def _checkpoint_to_resume(config: dict[str, Any], run_dir: Path) -> Path | None:
    """The whole checkpoint to continue from, if any, with lines that say so and name what has changed since."""
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.training.checkpoint_files import (
        logged_step,
        newest_whole_checkpoint,
        progress_of,
        recorded_config,
    )
    from uniformer_pose.training.csv_log import cut_log
    from uniformer_pose.training.resume import changed_settings, require_same_experiment
    from uniformer_pose.weights.loading import require_resumable

    if config["resume"] == "auto" and config["ckpt_path"] is not None:
        raise InputError(f"ckpt_path={config['ckpt_path']} and resume=auto: give one of them")
    if config["resume"] is None and config["run_id"] is not None and any((run_dir / CHECKPOINTS).glob("*.ckpt")):
        raise InputError(
            f"run_id={config['run_id']}: {run_dir} holds a run already; continue it with resume=auto, or give "
            "another run_id"
        )
    if config["ckpt_path"] is not None:
        checkpoint = Path(config["ckpt_path"])
        require_resumable(config["ckpt_path"])  # whole and harmless, or one line says what is wrong
    elif config["resume"] is None:
        return None
    else:
        newest = newest_whole_checkpoint(run_dir / CHECKPOINTS)
        if newest is None:
            rank_zero_info(f"resume=auto: no checkpoint to continue from in {run_dir}, so this is a new run")
            return None
        checkpoint = newest
    changes = changed_settings(recorded_config(checkpoint), config)
    require_same_experiment(checkpoint, changes)
    epochs, max_epochs = progress_of(checkpoint)[0], config["trainer"].get("max_epochs")
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise InputError(f"trainer.max_epochs={max_epochs}: {checkpoint} stands after epoch {epochs}; give more")
    rank_zero_info(f"resuming from {checkpoint}")
    if changes:
        named = ", ".join(f"{change} ({change.outcome})" for change in changes)
        rank_zero_info(f"from here on with other settings than before: {named}")
    if config["resume"] == "auto":
        last_step, evaluation_pending = logged_step(checkpoint)
        cut_log(run_dir / "csv" / "metrics.csv", last_step=last_step, evaluation_pending=evaluation_pending)
    return checkpoint


register_run_folder()

if __name__ == "__main__":
    run(main)
