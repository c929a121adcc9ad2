"""Evaluates the released models by the published protocol: weights and COCO -> published and measured results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config import Node
from uniformer_pose.config_parts import EvaluationTrainer, MatmulPrecision, Precision, ReproductionData
from uniformer_pose.entry_point import checked_config, quiet_lightning, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import NotNegative, RunName

if TYPE_CHECKING:
    from uniformer_pose.weights.published_models import PublishedModel


@dataclass
class ReproduceConfig:
    """The keys of conf/reproduce.yaml; what lies below a node is checked against the signature of its target."""

    data: ReproductionData
    trainer: EvaluationTrainer
    evaluation: Node
    models: str | list[str]
    weights: str | None
    tolerance: NotNegative
    precision: Precision
    float32_matmul_precision: MatmulPrecision
    name: RunName
    run_dir: str
    where_to_get: dict[str, str]


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
    from uniformer_pose.evaluation.reproduction import Reproduction, as_json, as_markdown, as_text
    from uniformer_pose.files import write_json
    from uniformer_pose.run_record import record_run
    from uniformer_pose.saved_model import data_arguments
    from uniformer_pose.training.pose_module import PoseModule
    from uniformer_pose.training.trainer import make_trainer
    from uniformer_pose.weights.loading import load_model
    from uniformer_pose.weights.published_models import published_models

    quiet_lightning()
    trainer = make_trainer(
        config["trainer"], precision=config["precision"], callbacks=[], logger=False, enable_checkpointing=False
    )
    table = published_models()
    chosen = _chosen(config["models"], table.pose_models)
    _require_data(config["data"], config["where_to_get"])
    folder = None if config["weights"] is None else Path(config["weights"]).expanduser()
    addresses = _addresses(chosen, folder)

    run_dir = Path(config["run_dir"])
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    protocol = instantiate(config["evaluation"])
    conditions = f"Published: {table.results_on}. Measured: {Path(config['data']['val_annotations']).name}, boxes: "
    conditions += (
        f"{config['data']['val_boxes']}, {'flip test' if protocol.flip_test else 'no flip test'}, "
        f"score {protocol.score_mode}, {protocol.nms_mode} at {protocol.nms_threshold:g}, {config['precision']}."
    )
    rows: list[Reproduction] = []
    for number, published in enumerate(chosen, start=1):
        rank_zero_info(f"{number}/{len(chosen)} {published.name}")
        model, report = load_model(addresses[published.name], skeleton=config["data"].get("skeleton"))
        rank_zero_info(f"{report}, crops of {model.codec.height}x{model.codec.width}")
        module = PoseModule(model, protocol=protocol)
        if trainer.is_global_zero and not rows:
            record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
        data = PersonCrops(**data_arguments(model, config["data"]))
        trainer.validate(module, datamodule=data, verbose=False)
        if module.evaluation is None:
            if trainer.is_global_zero:
                raise InputError(f"trainer.limit_val_batches={trainer.limit_val_batches}: nothing is evaluated")
            continue
        if module.evaluation.part and not rows:
            conditions += f" Only {module.evaluation.part}: not comparable."
        measured = {name: 100 * module.evaluation.metrics[name] for name in published.results}
        rows.append(Reproduction(published.name, published.results, measured))
        # After every model: an hour's work must not be lost to an interruption.
        write_json(run_dir / "reproduction.json", as_json(rows, config["tolerance"], conditions))
        markdown = as_markdown(rows, config["tolerance"], conditions)
        (run_dir / "reproduction.md").write_text(markdown, encoding="utf-8")
    if rows:
        print(f"\n{conditions}\n\n{as_text(rows, config['tolerance'])}")
        print(
            f"\ntable               {run_dir / 'reproduction.md'}\nnumbers             {run_dir / 'reproduction.json'}"
        )


def _chosen(models: str | list[str], known: dict[str, PublishedModel]) -> list[PublishedModel]:
    from uniformer_pose.nearest_name import did_you_mean

    names = list(known) if models == "all" else [models] if isinstance(models, str) else models
    for name in names:
        if name not in known:
            raise InputError(f"models: no published model {name}; {did_you_mean(name, known)}")
    if not names:
        raise InputError("models=[]: give at least one name, or models=all")
    return [known[name] for name in names]


def _require_data(data: dict[str, Any], where_to_get: dict[str, str]) -> None:
    """Raise InputError for all of the data that is missing, at once, before an hour is spent on the rest."""
    from uniformer_pose.data.coco import read_detections, read_ground_truth
    from uniformer_pose.skeleton import load_skeleton

    root = Path(data["root"]).expanduser()
    annotations, images, boxes = root / data["val_annotations"], root / data["val_images"], data["val_boxes"]
    detections = next((path for path in (Path(boxes).expanduser(), root / boxes) if path.is_file()), None)
    missing = []
    if not annotations.is_file():
        missing.append(f"{annotations} ({where_to_get['annotations']})")
    if boxes != "gt" and detections is None:
        missing.append(f"{root / boxes} ({where_to_get['boxes']})")
    if not images.is_dir():
        missing.append(f"{images} ({where_to_get['images']})")
    elif not missing:
        skeleton = load_skeleton(data["skeleton"])
        if detections is None:
            people = read_ground_truth(annotations, images, skeleton, categories=data["categories"])
        else:
            people = read_detections(detections, annotations, images, skeleton, categories=data["categories"])
        if data["max_images"] is not None:
            people = people.first_images(data["max_images"])
        absent = [name for name in people.file_names if not (images / str(name)).is_file()]
        if absent:
            missing.append(
                f"{len(absent)} of {people.num_images} images, first {images / str(absent[0])} "
                f"({where_to_get['images']})"
            )
    if missing:
        raise InputError(f"missing: {'; '.join(missing)}. data.root=<folder> says where COCO is")


def _addresses(chosen: Sequence[PublishedModel], folder: Path | None) -> dict[str, str]:
    """Where each model's weights come from, all of them fetched now: a missing one must not show after an hour."""
    from uniformer_pose.weights.address import local_file

    addresses = {}
    for published in chosen:
        by_hand = None if folder is None else folder / published.file_name
        if by_hand is not None and by_hand.is_file():
            addresses[published.name] = str(by_hand)
        else:
            addresses[published.name] = str(local_file(f"zoo:{published.name}"))
    return addresses


if __name__ == "__main__":
    run(main)
