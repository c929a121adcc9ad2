"""Scores a checkpoint: file -> network and preprocessing -> predictions on every image -> tables, or a submission."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config import Node
from uniformer_pose.config_parts import Engine, EvaluationData, EvaluationTrainer, MatmulPrecision, Precision
from uniformer_pose.entry_point import checked_config, quiet_lightning, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, RunName


@dataclass
class EvalConfig:
    """The keys of conf/eval.yaml; what lies below a node is checked against the signature of its target."""

    ckpt_path: str
    head_dim: Count | None
    model_class: str | None
    data: EvaluationData
    boxes: str | list[str] | None
    split: Literal["val", "train", "test"]
    trainer: EvaluationTrainer
    evaluation: Node
    name: RunName
    run_dir: str
    precision: Precision
    engine: Engine
    float32_matmul_precision: MatmulPrecision


@hydra.main(version_base="1.3", config_path="../conf", config_name="eval")
def main(config: DictConfig) -> float:
    """Check the config before any work, then evaluate."""
    with report_input_errors():
        return evaluate(checked_config(config, EvalConfig))


def evaluate(config: dict[str, Any]) -> float:
    """Score the checkpoint that a checked, plain config names; returns its AP, of several box sources the last one's.

    The test set has no public ground truth: its poses are written for COCO's server, and NaN is returned.
    """
    sources = source_names(config["boxes"])
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.data.datamodule import PersonCrops, evaluation_arguments
    from uniformer_pose.data.worker_failures import explained_worker_failures
    from uniformer_pose.evaluation.report import metrics_table, write_report
    from uniformer_pose.evaluation.results import write_submission
    from uniformer_pose.evaluation.timing import format_seconds
    from uniformer_pose.files import write_json
    from uniformer_pose.prediction.engines import inference_network
    from uniformer_pose.progress import text_table
    from uniformer_pose.run_record import record_run
    from uniformer_pose.saved_model import data_arguments
    from uniformer_pose.training.callbacks import Pictures
    from uniformer_pose.training.out_of_memory import explained_out_of_memory
    from uniformer_pose.training.pose_module import PoseModule, PosePredictor
    from uniformer_pose.training.trainer import make_trainer
    from uniformer_pose.weights.loading import load_model

    quiet_lightning()
    run_dir = Path(config["run_dir"])
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    pictures = Pictures(str(run_dir / "pictures"))
    trainer = make_trainer(
        config["trainer"], precision=config["precision"], callbacks=[pictures], logger=False, enable_checkpointing=False
    )
    protocol = instantiate(config["evaluation"])
    codec = config["data"].get("codec")
    model, report = load_model(
        config["ckpt_path"],
        codec=None if codec is None else instantiate(codec),
        head_dim=config["head_dim"],
        skeleton=config["data"].get("skeleton"),
        model_class=config["model_class"],
    )
    rank_zero_info(str(report))
    arguments = data_arguments(model, config["data"])
    if codec is not None:  # a whole data config was chosen: its images and boxes count
        print(f"crops stay {model.codec.height}x{model.codec.width} and {model.codec.method}, as in training")
    if config["split"] == "val" and arguments["val_annotations"] == arguments.get("train_annotations"):
        rank_zero_info(f"{arguments['val_annotations']}: these are the training's own images")
    # All of them before the first is evaluated: a misspelt one must not show after an hour.
    datasets = {
        name: PersonCrops(**evaluation_arguments(arguments, config["split"], boxes)) for name, boxes in sources.items()
    }
    for data in datasets.values():
        data.setup("validate")
        if config["split"] != "test":
            _ = data.ground_truth

    if trainer.is_global_zero:
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
    computed = inference_network(
        model.network,
        engine=config["engine"],
        device=trainer.strategy.root_device,
        reduced_precision=trainer.precision != "32-true",
        height=model.codec.height,
        width=model.codec.width,
    )
    if computed.remark is not None:
        rank_zero_info(computed.remark)
    average_precision, all_metrics, rows = float("nan"), {}, {}
    for name, data in datasets.items():
        folder = run_dir / name if len(datasets) > 1 else run_dir
        pictures.folder = folder / "pictures"
        module = (PosePredictor if config["split"] == "test" else PoseModule)(model, protocol)
        module.inference_network = computed
        with explained_out_of_memory(trainer, data), explained_worker_failures(data.loaders):
            trainer.validate(module, datamodule=data, verbose=False)
        average_precision = float(trainer.callback_metrics.get("val/AP", float("nan")))
        if trainer.is_global_zero:
            print(f"{config['ckpt_path']} on {data.val_annotation_file}, boxes: {data.val_boxes}")
        if isinstance(module, PosePredictor) and module.predictions is not None:
            print(f"time                {format_seconds(module.seconds, len(module.predictions))}")
            print(
                write_submission(
                    folder,
                    module.predictions,
                    protocol,
                    model.skeleton,
                    image_file=data.val_annotation_file,
                    algorithm=config["name"],
                    complete=module.complete,
                )
            )
        elif module.evaluation is not None:  # on the first process
            print(write_report(folder, module.evaluation, protocol))
            print(f"pictures            {folder / 'pictures'}\n" if any((folder / "pictures").glob("*.png")) else "")
            all_metrics[name] = module.evaluation.record
            rows[name + (module.evaluation.part and f" ({module.evaluation.part})")] = module.evaluation.metrics
        elif trainer.is_global_zero:
            raise InputError(f"trainer.limit_val_batches={trainer.limit_val_batches}: nothing is evaluated")
    if len(all_metrics) > 1:
        write_json(run_dir / "metrics_by_boxes.json", all_metrics)
        write_json(run_dir / "metrics.json", list(all_metrics.values())[-1])  # what a sweep's summary shows
        print(text_table(metrics_table(rows, "boxes")))
        print(f"metrics             {run_dir / 'metrics_by_boxes.json'}")
    return average_precision


def source_names(boxes: str | list[str] | None) -> dict[str, str | None]:
    """Sources of boxes by a name that can be a folder's: ``gt``, ``detector``, or what a file is called."""
    listed = boxes if isinstance(boxes, list) else [boxes]
    names: dict[str, str | None] = {}
    for source in listed:
        name = "detector" if source is None else Path(source).stem
        if name in names:
            raise InputError(
                f"boxes={','.join(map(str, listed))}: two are called {name}, and so would be their folders; name each "
                "source once, and rename a file where need be"
            )
        names[name] = source
    if not names:
        raise InputError("boxes=[]: give gt, detector, files of detections, or several of them: boxes=[gt,detector]")
    return names


if __name__ == "__main__":
    run(main)
