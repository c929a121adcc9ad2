"""Trains one model on one dataset and scores it: config -> data, network, trainer -> fit -> AP."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config_check import AlsoReads, Node
from uniformer_pose.entry_point import checked_config, prepare_command_line, quiet_lightning, report_input_errors
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.crop_size import HEATMAP_STRIDE, check_crop_size, check_network_stride


@dataclass
class TrainConfig:
    """The keys of conf/train.yaml; what lies below a node is checked against the signature of its target."""

    model: Annotated[Node, AlsoReads(pretrained=str | None, pretrained_head=bool)]
    data: Node
    augmentation: dict[str, Node | None]
    optimizer: Node
    training: Node
    trainer: Node
    callbacks: dict[str, Node | None]
    logger: dict[str, Node | None]
    evaluation: Node
    name: str
    run_dir: str
    seed: int
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    float32_matmul_precision: Literal["highest", "high", "medium"]
    ckpt_path: str | None


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(config: DictConfig) -> float:
    """Check the config before any work, then train; the best AP is what a sweep optimises."""
    with report_input_errors():
        return train(checked_train_config(config))


def checked_train_config(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, checked, with the sizes that no single signature can judge."""
    plain = checked_config(config, TrainConfig)
    codec = plain["data"].get("codec")
    if isinstance(codec, dict) and {"height", "width"} <= codec.keys():
        check_crop_size(codec["height"], codec["width"])
        check_network_stride(codec.get("stride", HEATMAP_STRIDE))
    return plain


def train(config: dict[str, Any]) -> float:
    """Run the training that a checked, plain config describes; returns the best model's AP."""
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import lightning.pytorch as pl
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.entry_point import one_of_each, refuse_unlaunchable_sweep
    from uniformer_pose.evaluation.report import write_report
    from uniformer_pose.run_record import library_versions, record_run, without_secrets
    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.training.callbacks import Pictures
    from uniformer_pose.training.precision import lightning_precision
    from uniformer_pose.training.progress import progress_callback
    from uniformer_pose.weights.loading import load_into, require_resumable

    quiet_lightning()
    run_dir = Path(config["run_dir"])
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    if config["trainer"].get("overfit_batches"):
        raise InputError(
            f"trainer.overfit_batches={config['trainer']['overfit_batches']}: would replace the sampler that draws the "
            "augmentation; use debug=overfit, or data.max_images=<n>"
        )

    data = instantiate(config["data"], _partial_=True, _convert_="all")(
        seed=config["seed"], **one_of_each(config["augmentation"])
    )
    model_config = dict(config["model"])
    pretrained, pretrained_head = model_config.pop("pretrained", None), model_config.pop("pretrained_head", True)
    network = instantiate(model_config, num_keypoints=data.skeleton.num_keypoints, _convert_="all")
    if pretrained is not None:
        rank_zero_info(str(load_into(network, pretrained, with_head=pretrained_head)))

    model = SavedModel(
        network,
        data.codec,
        data.skeleton,
        data.mean,
        data.std,
        data.box_padding,
        without_secrets(config),
        library_versions(),
    )
    module = instantiate(config["training"], _partial_=True, _convert_="all")(
        model=model,
        protocol=instantiate(config["evaluation"]),
        optimizer=instantiate(config["optimizer"], _convert_="all"),
    )
    callbacks = one_of_each(config["callbacks"])
    trainer = instantiate(config["trainer"], _partial_=True, _convert_="all")(
        precision=lightning_precision(config["precision"], config["trainer"]["accelerator"]),
        callbacks=[*callbacks.values(), progress_callback()],
        logger=list(one_of_each(config["logger"]).values()),
    )
    refuse_unlaunchable_sweep(trainer)
    if trainer.is_global_zero:
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
    if config["ckpt_path"] is not None:
        require_resumable(config["ckpt_path"])  # whole and harmless, or one line says what is wrong

    trainer.fit(module, datamodule=data, ckpt_path=config["ckpt_path"], weights_only=True)

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
    elif best:
        trainer.validate(module, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    if module.evaluation is not None:  # on the first process, unless nothing was evaluated
        print(write_report(run_dir, module.evaluation, module.protocol))
        print(f"pictures            {run_dir / 'pictures'}")
    if best and trainer.is_global_zero:
        print(f"best checkpoint     {best}\nto evaluate it      python src/eval.py ckpt_path={best}")
    return float(trainer.callback_metrics.get("val/AP", float("nan")))


if __name__ == "__main__":
    prepare_command_line(Path(__file__).parents[1] / "conf")
    main()
