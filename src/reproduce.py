"""Evaluates the released models by the published protocol: weights and COCO -> published and measured results."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config import Node
from uniformer_pose.config_parts import EvaluationTrainer, MatmulPrecision, Precision, ReproductionData
from uniformer_pose.entry_point import checked_config, quiet_lightning, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import NotNegative, RunName


@dataclass
class ReproduceConfig:
    """The keys of conf/reproduce.yaml; what lies below a node is checked against the signature of its target."""

    data: ReproductionData
    trainer: EvaluationTrainer
    evaluation: Node
    models: str | list[str]
    tolerance: NotNegative
    precision: Precision
    float32_matmul_precision: MatmulPrecision
    name: RunName
    run_dir: str


@hydra.main(version_base="1.3", config_path="../conf", config_name="reproduce")
def main(config: DictConfig) -> None:
    """Check the config before any work, then evaluate one model after the other."""
    with report_input_errors():
        reproduce(checked_config(config, ReproduceConfig))


def reproduce(config: dict[str, Any]) -> None:
    """Print and write the table that a checked, plain config asks for."""
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.data.datamodule import PersonCrops
    from uniformer_pose.evaluation.reproduction import write_table
    from uniformer_pose.run import record_run
    from uniformer_pose.saved_model import data_arguments
    from uniformer_pose.training.pose_module import PoseModule
    from uniformer_pose.training.trainer import make_trainer
    from uniformer_pose.weights.fetch import local_file
    from uniformer_pose.weights.loading import load_model
    from uniformer_pose.weights.zoo import read_zoo

    quiet_lightning()
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    zoo, run_dir, data = read_zoo(), Path(config["run_dir"]), config["data"]
    trainer = make_trainer(
        config["trainer"], precision=config["precision"], callbacks=[], logger=False, enable_checkpointing=False
    )
    protocol = instantiate(config["evaluation"])
    there = instantiate(data, _convert_="all")
    there.setup("validate")  # what is missing must not show after an hour
    measured_on = f"{there.val_annotation_file.name}, boxes: {there.val_boxes}"
    conditions = f"Published: {zoo.results_on}. Measured: {measured_on}, {protocol}, {config['precision']}."
    names = list(zoo.pose_models) if config["models"] == "all" else config["models"]
    files = {name: local_file(f"zoo:{name}") for name in ([names] if isinstance(names, str) else names)}
    if trainer.is_global_zero:
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
    models: dict[str, dict[str, dict[str, float]]] = {}
    for name, file in files.items():  # fetched before: none must be missing after an hour
        model, report = load_model(file, skeleton=data.get("skeleton"))
        rank_zero_info(f"{name}: {report}, crops of {model.codec.height}x{model.codec.width}")
        module = PoseModule(model, protocol=protocol)
        trainer.validate(module, datamodule=PersonCrops(**data_arguments(model, data)), verbose=False)
        if not trainer.is_global_zero:
            continue
        if module.evaluation is None:
            raise InputError(f"trainer.limit_val_batches={trainer.limit_val_batches}: nothing is evaluated")
        if module.evaluation.part and not models:
            conditions += f" Only {module.evaluation.part}: not comparable."
        published = zoo.pose_models[name].results
        measured = {result: 100 * module.evaluation.metrics[result] for result in published}
        models[name] = {"published": published, "measured": measured}
        table = write_table(run_dir, models, config["tolerance"], conditions)  # an hour's work must not be lost
    if models:
        print(f"\n{table}\nwritten to {run_dir / 'reproduction.md'}")


if __name__ == "__main__":
    run(main)
