"""Scores a checkpoint: file -> network and preprocessing -> predictions on every image -> AP table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config_check import Node, SomeArgumentsOf
from uniformer_pose.entry_point import checked_config, prepare_command_line, quiet_lightning, report_input_errors


@dataclass
class EvalConfig:
    """The keys of conf/eval.yaml; what lies below a node is checked against the signature of its target."""

    ckpt_path: str
    data: Annotated[dict[str, Any], SomeArgumentsOf("uniformer_pose.data.datamodule.PersonCrops")]
    boxes: str | None
    split: Literal["val", "train"]
    trainer: Node
    evaluation: Node
    name: str
    run_dir: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    float32_matmul_precision: Literal["highest", "high", "medium"]


@hydra.main(version_base="1.3", config_path="../conf", config_name="eval")
def main(config: DictConfig) -> float:
    """Check the config before any work, then evaluate."""
    with report_input_errors():
        return evaluate(checked_config(config, EvalConfig))


def evaluate(config: dict[str, Any]) -> float:
    """Score the checkpoint that a checked, plain config names; returns its AP."""
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import torch
    from hydra.utils import instantiate

    from uniformer_pose.data.datamodule import PersonCrops
    from uniformer_pose.evaluation.report import write_report
    from uniformer_pose.run_record import record_run
    from uniformer_pose.saved_model import data_arguments, load_saved_model
    from uniformer_pose.training.callbacks import Pictures
    from uniformer_pose.training.pose_module import PoseModule
    from uniformer_pose.training.precision import lightning_precision
    from uniformer_pose.training.progress import progress_callback

    quiet_lightning()
    run_dir = Path(config["run_dir"])
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    model = load_saved_model(config["ckpt_path"])
    arguments = data_arguments(model, config["data"])
    if config["data"].get("codec") is not None:  # a whole data config was chosen: its images and boxes count
        print(f"crops stay {model.codec.height}x{model.codec.width} and {model.codec.method}, as in training")
    if config["split"] == "train":
        arguments |= {
            "val_annotations": arguments["train_annotations"],
            "val_images": arguments["train_images"],
            "val_boxes": "gt",
        }
    if config["boxes"] is not None:
        arguments["val_boxes"] = config["boxes"]
    data = PersonCrops(**arguments)
    module = PoseModule(model, protocol=instantiate(config["evaluation"]))
    trainer = instantiate(config["trainer"], _partial_=True, _convert_="all")(
        precision=lightning_precision(config["precision"], config["trainer"]["accelerator"]),
        callbacks=[Pictures(str(run_dir / "pictures")), progress_callback()],
        logger=False,
        enable_checkpointing=False,
    )
    if trainer.is_global_zero:
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
    trainer.validate(module, datamodule=data, verbose=False)
    if module.evaluation is not None:  # on the first process
        print(f"{config['ckpt_path']} on {data.val_annotation_file}, boxes: {data.val_boxes}")
        print(write_report(run_dir, module.evaluation, module.protocol))
        print(f"pictures            {run_dir / 'pictures'}")
    return float(trainer.callback_metrics["val/AP"])


if __name__ == "__main__":
    prepare_command_line(Path(__file__).parents[1] / "conf")
    main()
