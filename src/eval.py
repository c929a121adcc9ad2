"""Scores a checkpoint: file -> network and preprocessing -> predictions on every image -> tables, or a submission."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.config_parts import EvalConfig
from uniformer_pose.entry_point import checked_config, quiet_lightning, report_input_errors, run, trained_model
from uniformer_pose.errors import InputError
from uniformer_pose.start_up import import_training_libraries

if TYPE_CHECKING:
    from uniformer_pose.data.datamodule import PersonCrops
    from uniformer_pose.training.pose_module import PoseModule


@hydra.main(version_base="1.3", config_path="../conf", config_name="eval")
def main(config: DictConfig) -> float:
    """Check the config before any work, then evaluate."""
    with report_input_errors():
        return evaluate(checked_config(config, EvalConfig, import_training_libraries))


def evaluate(config: dict[str, Any]) -> float:
    """Score the checkpoint that a checked, plain config names; returns its score.

    That is ``evaluation.monitor``, of several box sources the last one's. The test set has no public ground truth: its
    poses are written for COCO's server, and NaN is returned.
    """
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.utilities import rank_zero_info

    from uniformer_pose.evaluation.datasets import evaluation_datasets
    from uniformer_pose.evaluation.report import write_comparison
    from uniformer_pose.prediction.engines import inference_network
    from uniformer_pose.run import record_run
    from uniformer_pose.training.out_of_memory import explained_out_of_memory
    from uniformer_pose.training.pictures import Pictures
    from uniformer_pose.training.pose_module import PoseModule
    from uniformer_pose.training.precision import resolved
    from uniformer_pose.training.trainer import make_trainer

    quiet_lightning()
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    run_dir, pictures, is_scored = Path(config["run_dir"]), Pictures(""), config["split"] != "test"
    trainer = make_trainer(
        config["trainer"], precision=config["precision"], callbacks=[pictures], logger=False, enable_checkpointing=False
    )
    model, report = trained_model(config)  # whose keypoints the data's are found among
    rank_zero_info(str(report))
    datasets = evaluation_datasets(model, config["data"], split=config["split"], boxes=config["boxes"])
    device, size = trainer.strategy.root_device, {"height": model.codec.height, "width": model.codec.width}
    precision = resolved(config["precision"], device.type)
    network = inference_network(model.network, engine=config["engine"], device=device, precision=precision, **size)
    if network.remark is not None:
        rank_zero_info(network.remark)
    prefixes = _prefixes(datasets, config["evaluation"])
    protocol = instantiate(config["evaluation"], monitor=None)  # each set is evaluated by itself
    if trainer.is_global_zero:
        record_run(run_dir, config_yaml=OmegaConf.to_yaml(config), command=sys.argv)
    evaluations, scores = {}, dict[str, float]()
    for name, data in datasets.items():
        folder = run_dir / name if len(datasets) > 1 else run_dir
        pictures.folder = folder / "pictures"
        module = PoseModule(model, protocol, inference_network=network, is_scored=is_scored)
        with explained_out_of_memory():
            trainer.validate(module, datamodule=data, verbose=False)
        if is_scored and module.evaluation is None:
            raise InputError(f"trainer.limit_val_batches={trainer.limit_val_batches}: nothing is evaluated")
        if module.evaluation is not None:
            evaluations[name] = module.evaluation
            logged, prefix = trainer.callback_metrics, prefixes[data.name]
            scores |= {prefix + number.removeprefix("val/"): float(value) for number, value in logged.items()}
        if trainer.is_global_zero:
            print(f"{config['ckpt_path']} on {data.val_annotation_file}, boxes: {data.val_boxes}")
            print(_report(folder, module, data, algorithm=config["name"]))
    if len(evaluations) > 1 and trainer.is_global_zero:
        print(write_comparison(run_dir, evaluations, by_set=len(prefixes) > 1))
    return scores.get(config["evaluation"]["monitor"], float("nan"))


def _prefixes(datasets: Mapping[str, PersonCrops], evaluation: dict[str, Any]) -> dict[str, str]:
    """What stands before each set's numbers, as in its training; ``evaluation.monitor`` becomes what it stands for."""
    from uniformer_pose.headline import monitored
    from uniformer_pose.training.pose_module import log_prefixes, require_logged

    sets = {data.name: data for data in datasets.values()}
    known = [*sets.values()]
    evaluation["monitor"] = monitored(evaluation.get("monitor"), known[0].metric)
    require_logged(evaluation["monitor"], known)
    return dict(zip(sets, log_prefixes(known), strict=True))


def _report(folder: Path, module: PoseModule, data: PersonCrops, *, algorithm: str) -> str:
    """Write what one pass gave: tables and poses, or a submission for the test server."""
    from uniformer_pose.evaluation.report import write_report
    from uniformer_pose.evaluation.results import write_submission

    if module.evaluation is not None:
        tables = write_report(folder, module.evaluation, module.protocol)
        return f"{tables}\npictures            {folder / 'pictures'}\n"
    how, images = (module.metric.predictions, module.protocol, data.scored_skeleton), data.val_annotation_file
    return write_submission(folder, *how, image_file=images, algorithm=algorithm, complete=module.is_complete)


if __name__ == "__main__":
    run(main)
