"""Trains one model on one dataset and scores it: config -> data, network, trainer -> fit -> AP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.entry_point import checked_config, one_of_each, quiet_lightning, report_input_errors, run
from uniformer_pose.overrides import shell_command
from uniformer_pose.run import folder_of_first_process, is_first_process, library_versions, only_training_in, record_run
from uniformer_pose.start_up import import_training_libraries
from uniformer_pose.training.resume.settings import finished_as_asked, write_finished

if TYPE_CHECKING:
    from uniformer_pose.data.crop_loaders import CropLoaders
    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.training.loss import Loss
    from uniformer_pose.training.pose_module import PoseModule


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> float:
    """Check the config before any work, then train; the best score is what a sweep optimises."""
    with report_input_errors():
        return train(checked_config(config, TrainConfig, import_training_libraries))


def train(config: dict[str, Any]) -> float:
    """Run the training that a checked, plain config describes, or the rest of it; returns the best model's score.

    That is ``evaluation.monitor``.
    """
    run_dir = folder_of_first_process(config)
    finished = finished_as_asked(run_dir, config) if config["resume"] == "auto" else None
    if finished is None:
        with only_training_in(run_dir):
            return _train(config, run_dir)
    if is_first_process():
        monitor = config["evaluation"]["monitor"].removeprefix("val/")
        print(
            f"{run_dir}: finished, {monitor} {finished:.4f}; for a new run give name=<another> or run_id=<another>, to "
            "train longer a larger trainer.max_epochs"
        )
    return finished


def _train(config: dict[str, Any], run_dir: Path) -> float:
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import lightning.pytorch as pl
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.training.optimization import Optimization
    from uniformer_pose.training.out_of_memory import explained_out_of_memory
    from uniformer_pose.training.pose_module import logged_names
    from uniformer_pose.training.resume.checkpoint_files import DurableCheckpoints
    from uniformer_pose.training.resume.start import checkpoint_to_resume
    from uniformer_pose.training.trainer import make_trainer

    quiet_lightning()
    checkpoint = checkpoint_to_resume(config, run_dir)
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    callbacks, files = one_of_each(config["callbacks"]), DurableCheckpoints()
    data = instantiate(config["data"], _partial_=True, _convert_="all")(
        seed=config["seed"], **one_of_each(config["augmentation"] or {})
    )
    trainer = make_trainer(
        config["trainer"],
        precision=config["precision"],
        plugins=[files],
        callbacks=[*callbacks.values()],
        logger=[*one_of_each(config["logger"] or {}).values()],
        evaluated=logged_names(data.val_sets),
    )
    loss = instantiate(config["loss"])
    module = instantiate(config["training"], _partial_=True, _convert_="all")(
        optimization=Optimization.of_config(config["optimizer"], config["scheduler"]),  # before data are read
        loss=loss,
        model=_model(config, data, loss, checkpoint),
        protocol=instantiate(config["evaluation"]),
    )
    if trainer.is_global_zero:
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
    rank_zero_info(f"run directory: {run_dir}")

    with explained_out_of_memory():
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        # The callback's word, not a look at the disk: all processes must agree.
        best = getattr(callbacks.get("best_checkpoint"), "best_model_path", "")
        if trainer.enable_validation:
            trainer.validate(module, datamodule=data, ckpt_path=best or None, weights_only=True, verbose=False)

    score = float(trainer.callback_metrics.get(module.monitor, float("nan")))
    if trainer.is_global_zero:
        _report(run_dir, module, best or getattr(callbacks.get("last_checkpoint"), "best_model_path", ""))
    files.require_all_written()
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        write_finished(run_dir, config, score)
    return score


def _model(config: dict[str, Any], data: CropLoaders, loss: Loss, checkpoint: Path | None) -> SavedModel:
    """The network with its weights and what goes with it; what is wrong with the data ends the run here."""
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.model.network_size import network_size
    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.weights.start import require_fitting, starting_network

    head = instantiate(config["head"])
    fits = {"chosen": config["codec"], "train_poses": data.train_poses}
    require_fitting(data.codec, head, loss, **fits)
    network, other, weights = starting_network(
        config["model"],
        data.skeleton,
        data.codec,
        head=head,
        normalization=(data.mean, data.std),
        resumed_from=checkpoint,
    )
    rank_zero_info(weights)
    rank_zero_info(f"network: {network_size(network, data.codec.height, data.codec.width)}")
    data.setup("fit")
    how = (data.codec, data.skeleton, data.mean, data.std, data.box_padding)
    return SavedModel(network, *how, config, library_versions(), other)


def _report(run_dir: Path, module: PoseModule, checkpoint: str) -> None:
    """The tables of the last evaluation, if any, and where the weights are."""
    from uniformer_pose.evaluation.report import write_reports

    if module.evaluations:
        print(write_reports(run_dir, module.evaluations, module.protocol))
    if checkpoint:
        other = module.model.other_network
        model_class = {} if other is None else {"model_class": other.path}
        print(f"checkpoint          {checkpoint}")
        print(f"to evaluate it      {shell_command('python', 'src/eval.py', ckpt_path=checkpoint, **model_class)}")


if __name__ == "__main__":
    run(main)
