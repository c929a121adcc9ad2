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
    from uniformer_pose.evaluation.reproduction import reproduction_table
    from uniformer_pose.files import write_json, write_text
    from uniformer_pose.run import record_run
    from uniformer_pose.saved_model import data_arguments
    from uniformer_pose.training.pose_module import PoseModule
    from uniformer_pose.training.trainer import make_trainer
    from uniformer_pose.weights.fetch import local_file
    from uniformer_pose.weights.loading import load_model
    from uniformer_pose.weights.zoo import read_zoo

    quiet_lightning()
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    trainer = make_trainer(
        config["trainer"], precision=config["precision"], callbacks=[], logger=False, enable_checkpointing=False
    )
    zoo, run_dir, data = read_zoo(), Path(config["run_dir"]), config["data"]
    protocol = instantiate(config["evaluation"])
    names = list(zoo.pose_models) if config["models"] == "all" else config["models"]
    names = [names] if isinstance(names, str) else names
    _require_data(data)
    files = [local_file(f"zoo:{name}") for name in names]  # all of them now: none must be missing after an hour
    measured_on = f"{Path(data['val_annotations']).name}, boxes: {data['val_boxes']}, {protocol}, {config['precision']}"
    conditions = f"Published: {zoo.results_on}. Measured: {measured_on}."
    models: dict[str, dict[str, dict[str, float]]] = {}
    for name, file in zip(names, files, strict=True):
        model, report = load_model(file, skeleton=data.get("skeleton"))
        rank_zero_info(f"{name}: {report}, crops of {model.codec.height}x{model.codec.width}")
        if trainer.is_global_zero and not models:
            record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
        module = PoseModule(model, protocol=protocol)
        trainer.validate(module, datamodule=PersonCrops(**data_arguments(model, data)), verbose=False)
        if module.evaluation is None:
            if trainer.is_global_zero:
                raise InputError(f"trainer.limit_val_batches={trainer.limit_val_batches}: nothing is evaluated")
            continue
        if module.evaluation.part and not models:
            conditions += f" Only {module.evaluation.part}: not comparable."
        if not trainer.is_global_zero:
            continue
        published = zoo.pose_models[name].results
        measured = {result: 100 * module.evaluation.metrics[result] for result in published}
        models[name] = {"published": published, "measured": measured}
        # After every model: an hour's work must not be lost to an interruption.
        table = reproduction_table(models, config["tolerance"], conditions)
        write_json(run_dir / "reproduction.json", {"conditions": conditions, "models": models})
        write_text(run_dir / "reproduction.md", table)
    if models:
        print(f"\n{table}\nwritten to {run_dir / 'reproduction.md'}")


def _require_data(data: dict[str, Any]) -> None:
    """Raise InputError for all of the data that is missing, at once, before an hour is spent on the rest."""
    root, boxes = Path(data["root"]).expanduser(), data["val_boxes"]
    wanted = {
        root / data["val_annotations"]: "annotations_trainval2017.zip of cocodataset.org",
        root / data["val_images"]: "val2017.zip of cocodataset.org",
        root / boxes: "detector boxes (AP 56), linked from MMPose's and HRNet's documentation, or data.val_boxes=gt",
    }
    if boxes == "gt" or Path(boxes).expanduser().is_file():
        del wanted[root / boxes]
    missing = [f"{path} ({where})" for path, where in wanted.items() if not path.exists()]
    if missing:
        raise InputError(f"missing: {'; '.join(missing)}. data.root=<folder> says where COCO is")


if __name__ == "__main__":
    run(main)
