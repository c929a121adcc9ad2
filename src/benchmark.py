"""Measures loader, step, inference, evaluation, whole trainings, or growth: config -> table, JSON, what to change.

Exit status: 0 measured, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import hydra
from annotated_types import MinLen
from omegaconf import DictConfig

from uniformer_pose.config_check import Node
from uniformer_pose.config_parts import (
    Augmentation,
    Engine,
    EvaluationTrainer,
    MatmulPrecision,
    Model,
    Optimizer,
    Precision,
    TrainingData,
)
from uniformer_pose.entry_point import checked_config, prepare_command_line, quiet_lightning, report_input_errors
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, CountOrNone, RunName, Seed

if TYPE_CHECKING:
    import torch

    from uniformer_pose.benchmarks.report import BenchmarkResult
    from uniformer_pose.data.datamodule import PersonCrops
    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.training.pose_module import PoseModule

Counts = Annotated[list[Count], MinLen(1)]
_STEPS_END_TO_END = 40
_FEWEST_STEPS_END_TO_END = 10


@dataclass
class BenchmarkConfig:
    """The keys of conf/benchmark.yaml; what lies below a node is checked against the signature of its target."""

    what: Literal["loader", "step", "inference", "evaluation", "end_to_end", "scale", "summary"]
    model: Model
    data: TrainingData
    optimizer: Optimizer
    trainer: EvaluationTrainer
    evaluation: Node
    rounds: Count
    samples: Count
    steps: Count
    workers: list[CountOrNone]
    batch_sizes: Counts
    engines: list[Engine]
    images: Count
    people_per_image: Counts
    annotated_images: Counts
    input_sizes: list[tuple[Count, Count]]
    processes: Counts
    compile_step: bool | Literal["auto"]
    ckpt_path: str | None
    threads: Count | None
    precision: Precision
    float32_matmul_precision: MatmulPrecision
    seed: Seed
    out: str | None
    name: RunName
    run_dir: str
    augmentation: Augmentation | None = None


@hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Check the config before any work, then measure."""
    try:
        with report_input_errors():
            benchmark(checked_config(config, BenchmarkConfig))
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)


def benchmark(config: dict[str, Any]) -> None:
    """Measure what a checked, plain config asks for; print it and write its JSON."""
    # Imported here because a misspelt key should not have to wait for torch and Lightning.
    import torch

    from uniformer_pose.benchmarks.machine import machine_facts
    from uniformer_pose.benchmarks.report import result_text, summary_page, write_result, write_whole

    if config["what"] == "summary":
        folder = Path(config["out"] or "benchmarks")
        write_whole(folder / "README.md", summary_page(folder))
        print(f"summary   {folder / 'README.md'}")
        return
    torch.set_float32_matmul_precision(config["float32_matmul_precision"])
    torch.manual_seed(config["seed"])
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    device = _device(config["trainer"].get("accelerator", "auto"))
    out = Path(config["out"] or Path(config["run_dir"]) / "result.json")
    if out.suffix != ".json":
        raise InputError(f"out={out}: give a file whose name ends in .json")
    machine = machine_facts(device)  # before the work: its load is not the machine's
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result, drawing = _measured(config, device)
    print(result_text(result, machine))
    used = {name: value for name, value in config.items() if name not in ("run_dir", "out", "name")}
    used["trainer"].pop("default_root_dir", None)  # where on this machine is nobody's business
    command = ["python", "src/benchmark.py", *(a.removeprefix("++") for a in sys.argv[1:])]
    write_result(out, result, machine=machine, settings=used, command=command, date=date)
    print(f"\nresult    {out}")
    if drawing is not None:
        write_whole(out.with_suffix(".svg"), drawing)
        print(f"curves    {out.with_suffix('.svg')}")


def _measured(config: dict[str, Any], device: torch.device) -> tuple[BenchmarkResult, str | None]:
    """The outcome, and a drawing where there is one."""
    from hydra.utils import instantiate

    from uniformer_pose.benchmarks.curves import curves_svg
    from uniformer_pose.benchmarks.end_to_end import benchmark_end_to_end
    from uniformer_pose.benchmarks.evaluation import benchmark_evaluation
    from uniformer_pose.benchmarks.loader import benchmark_loader
    from uniformer_pose.benchmarks.measurement import clock_of
    from uniformer_pose.benchmarks.scale import benchmark_scale
    from uniformer_pose.benchmarks.step import benchmark_step
    from uniformer_pose.work_progress import work_progress

    quiet_lightning()  # which has been imported by now
    # Of a dozen trainings the outcome is to be read, not what each of them says.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with work_progress("rounds") as on_progress:
        shared: dict[str, Any] = {"rounds": config["rounds"], "on_progress": on_progress}
        match config["what"]:
            case "loader":
                plain, prepared = _plain_and_prepared(config)
                samples = {"samples": config["samples"], "workers": config["workers"]}
                return benchmark_loader(plain, prepared, **samples, **shared), None
            case "step":
                import torch

                return benchmark_step(
                    _module_maker(config),
                    instantiate(config["optimizer"], _convert_="all"),
                    device=device,
                    number_format=_number_format(config),
                    batch_size=config["data"]["batch_size"],
                    steps=config["steps"],
                    compile_step=config["compile_step"],
                    clock=clock_of(device, torch.get_num_threads()),
                    **shared,
                ), None
            case "inference":
                return _inference(config, device, shared), None
            case "evaluation":
                data = _data(config)
                data.setup("validate")
                return benchmark_evaluation(
                    data, images=config["images"], people_per_image=config["people_per_image"], **shared
                ), None
            case "end_to_end":
                steps = config["steps"] if config["steps"] >= _FEWEST_STEPS_END_TO_END else _STEPS_END_TO_END
                return benchmark_end_to_end(
                    lambda kind: _data(config, kind),
                    _module_maker(config),
                    _trainer_maker(config),
                    steps=steps,
                    **shared,
                ), None
            case _:
                data = _data(config)
                data.setup("fit")
                result, curves = benchmark_scale(
                    data,
                    _model(config).network,
                    samples=config["samples"],
                    people_per_image=config["people_per_image"],
                    images=config["annotated_images"],
                    input_sizes=config["input_sizes"],
                    workers=config["workers"],
                    processes=config["processes"],
                    **shared,
                )
                return result, curves_svg(curves)


def _inference(config: dict[str, Any], device: torch.device, shared: dict[str, Any]) -> BenchmarkResult:
    import torch
    from hydra.utils import instantiate

    from uniformer_pose.benchmarks.inference import benchmark_inference, pictures_of, random_pictures
    from uniformer_pose.benchmarks.measurement import clock_of
    from uniformer_pose.prediction.estimator import PoseEstimator
    from uniformer_pose.weights.loading import load_model

    ground_truth, pictures = None, random_pictures(config["samples"])
    if config["ckpt_path"] is None:
        model = _model(config)
        print("random weights and noise: speeds only; ckpt_path=<file> and data=... add deviations and AP")
    else:
        data = _data(config)
        model, report = load_model(config["ckpt_path"], skeleton=data.skeleton)
        print(report)
        data.setup("validate")
        if data.val_people is not None:
            pictures = pictures_of(data.val_people, config["samples"])
        ground_truth = data.ground_truth

    def maker(engine: Engine) -> Callable[[int], PoseEstimator]:
        return lambda batch_size: PoseEstimator(
            model, device=device, precision=config["precision"], batch_size=batch_size, engine=engine
        )

    return benchmark_inference(
        model,
        pictures,
        {f"PoseEstimator, engine={engine}": maker(engine) for engine in config["engines"]},
        device=device,
        batch_sizes=config["batch_sizes"],
        clock=clock_of(device, torch.get_num_threads()),
        protocol=instantiate(config["evaluation"]),
        ground_truth=ground_truth,
        **shared,
    )


def _data(config: dict[str, Any], kind: type[PersonCrops] | None = None, **changes: Any) -> PersonCrops:
    """The data module that the config describes, or one of another ``kind``."""
    from hydra.utils import instantiate

    from uniformer_pose.entry_point import one_of_each

    node = {**config["data"], **changes}
    if kind is not None:
        node["_target_"] = f"{kind.__module__}.{kind.__qualname__}"
    data: PersonCrops = instantiate(node, _partial_=True, _convert_="all")(
        seed=config["seed"], **one_of_each(config["augmentation"] or {})
    )
    return data


def _plain_and_prepared(config: dict[str, Any]) -> tuple[PersonCrops, PersonCrops | None]:
    """The data read from images, and from prepared crops where the config names some; both ready for training."""
    if config["data"].get("prepared") is None:
        plain, prepared = _data(config), None
    else:
        plain, prepared = _data(config, prepared=None), _data(config)
        prepared.setup("fit")
    plain.setup("fit")
    return plain, prepared


def _model(config: dict[str, Any]) -> SavedModel:
    """A network with random weights and what goes with it."""

    from uniformer_pose.run_record import library_versions
    from uniformer_pose.saved_model import SavedModel
    from uniformer_pose.weights.start import starting_network

    data = _data(config)
    network, other, line = starting_network(config["model"], data.skeleton, data.codec)
    print(line)
    return SavedModel(
        network, data.codec, data.skeleton, data.mean, data.std, data.box_padding, {}, library_versions(), other
    )


def _module_maker(config: dict[str, Any]) -> Callable[[], PoseModule]:
    from hydra.utils import instantiate

    from uniformer_pose.training.pose_module import PoseModule

    def make() -> PoseModule:
        return PoseModule(
            _model(config),
            protocol=instantiate(config["evaluation"]),
            optimizer=instantiate(config["optimizer"], _convert_="all"),
        )

    return make


def _trainer_maker(config: dict[str, Any]) -> Callable[..., Any]:
    from uniformer_pose.training.trainer import make_trainer

    node = {**config["trainer"], "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}

    def make(callbacks: list[Any], **settings: Any) -> Any:
        return make_trainer(
            node,
            precision=config["precision"],
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            **settings,
        )

    return make


def _number_format(config: dict[str, Any]) -> Any:
    from uniformer_pose.training.precision import lightning_precision

    by_name = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
    return by_name[lightning_precision(config["precision"], config["trainer"].get("accelerator", "auto"))]


def _device(accelerator: str) -> torch.device:
    """The device of a trainer's accelerator; the first of its kind."""
    import torch

    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InputError(f"trainer.accelerator={accelerator}: torch finds no GPU here; choose trainer=cpu")
    with_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", 0) if with_gpu else torch.device("cpu")


if __name__ == "__main__":
    prepare_command_line(Path(__file__).parents[1] / "conf")
    main()
