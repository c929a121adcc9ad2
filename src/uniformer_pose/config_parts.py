"""Parts of a configuration that several entry points have, as types: what each may say, and what the program sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from uniformer_pose.config import Keys, Node
from uniformer_pose.ranges import Count, Positive, RunName, Seed, Share

Precision = Literal["auto", "fp32", "bf16", "fp16"]
MatmulPrecision = Literal["highest", "high", "medium"]
Engine = Literal["auto", "eager", "openvino"]

_PERSON_CROPS = "uniformer_pose.data.datamodule.PersonCrops"
_FOR_TRAINING = "it is for training, and nothing is trained here"
_OF_THE_MODEL = dict.fromkeys(("mean", "std", "box_padding"), "it stays as the model was trained")
_OF_THE_MODEL |= {"batch_size": "give data.eval_batch_size=..."}
_SET_IN_DATA = Keys(
    set_by_program={"seed": "give seed=..."}
    | {name: f"give augmentation.{name}...=..." for name in ("geometric", "photometric")}
)

Model = Annotated[
    Node,
    Keys(
        also_read={"pretrained": str | None, "pretrained_head": bool},
        set_by_program={"num_keypoints": "give a data.skeleton=... of so many keypoints"},
    ),
]
Optimizer = Annotated[
    Node,
    Keys(
        also_read={"lr_per_256": Positive, "decay_norms_and_biases": bool},
        set_by_program={"lr": "give optimizer.lr_per_256=...", "params": "leave it out"},
    ),
]
TrainingData = Annotated[Node, _SET_IN_DATA]
PartOfData = Annotated[dict[str, Any], replace(_SET_IN_DATA, some_of=_PERSON_CROPS)]
EvaluationData = Annotated[
    dict[str, Any],
    Keys(
        set_by_program=dict.fromkeys(("seed", "geometric", "photometric"), _FOR_TRAINING),
        ignored=_OF_THE_MODEL,
        some_of=_PERSON_CROPS,
    ),
]
ReproductionData = Annotated[Node, replace(_SET_IN_DATA, ignored={"codec": _OF_THE_MODEL["mean"], **_OF_THE_MODEL})]
Training = Annotated[
    Node,
    Keys(
        set_by_program={
            "model": "give model=...",
            "protocol": "give evaluation=...",
            "optimization": "give optimizer=... or scheduler=...",
        }
    ),
]
Trainer = Annotated[
    Node,
    Keys(
        set_by_program={
            "precision": "give precision=...",
            "callbacks": "give callbacks.<name>={_target_: ...}",
            "logger": "give logger=... or logger.<name>={_target_: ...}",
        }
    ),
]
EvaluationTrainer = Annotated[
    Node,
    Keys(
        set_by_program={
            "precision": "give precision=...",
            **dict.fromkeys(("callbacks", "logger", "enable_checkpointing"), "leave it out"),
        }
    ),
]


@dataclass
class Scheduler:
    """torch's learning rate schedulers by a name, stepped after each optimizer step or after each epoch."""

    per_step: dict[str, Node | None] | None = None
    per_epoch: dict[str, Node | None] | None = None


@dataclass
class Augmentation:
    """What is drawn for each training crop; null for nothing."""

    geometric: Node | None = None
    photometric: Node | None = None


@dataclass
class TrainConfig:
    """The keys of conf/train.yaml; what lies below a node is checked against the signature of its target.

    Here, and not in the program: a launcher of sweeps sends a class of ``__main__`` to other machines by value.
    """

    model: Model
    data: TrainingData
    optimizer: Optimizer
    scheduler: Scheduler
    training: Training
    trainer: Trainer
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


@dataclass
class PosesConfig:
    """The keys of conf/_poses.yaml, for programs that find people and their poses."""

    detector: Node
    ckpt_path: str
    input_size: tuple[Count, Count] | None
    head_dim: Count | None
    model_class: str | None
    device: str | None
    precision: Precision
    score_threshold: Share


@dataclass
class PredictConfig(PosesConfig):
    """The keys of conf/predict.yaml."""

    source: str | int
    output: str | None
    boxes: str
    boxes_category: str | int | list[str | int] | None
    image_orientation: Literal["stored", "displayed"] | None
    flip_test: bool
    draw: bool
    overwrite: bool
    smooth: bool
    batch_size: Count
    engine: Engine


@dataclass
class DemoConfig(PosesConfig):
    """The keys of conf/demo.yaml."""

    host: str
    port: Annotated[int, Ge(0), Le(65535)]
    open_browser: bool
    upload_megabytes: Positive
    megapixels: Positive
    examples: Node
