"""Parts of a configuration that several entry points have, as types: what each may say, and what the program sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from uniformer_pose.config import Keys, Node
from uniformer_pose.ranges import Count, LayerDecay, Positive, RunName, Seed, Share

Precision = Literal["auto", "fp32", "bf16", "fp16"]
MatmulPrecision = Literal["highest", "high", "medium"]
Engine = Literal["auto", "eager", "openvino"]

_AS_TRAINED = "it stays as the model was trained"
_OF_THE_MODEL = {"mean|std|box_padding": _AS_TRAINED, "batch_size": "give data.eval_batch_size=..."}
_SET_IN_DATA = {
    "seed": "seed",
    "geometric": "augmentation.geometric",
    "photometric": "augmentation.photometric",
    "stages": "augmentation.stages",
    "model_skeleton": "data.skeleton",
    "name": "",
    "_partial_": "data",  # not a whole data config
}

Data = Annotated[Node, Keys(set_by_program=_SET_IN_DATA)]
"""A whole data config, to train on or to look at."""
EvaluationData = Annotated[
    Node,
    Keys(
        also_read={"sets": dict[str, dict[str, Any]]},  # of a model that was trained on several
        set_by_program=dict.fromkeys(_SET_IN_DATA.keys() - {"_partial_"}, ""),
        ignored=_OF_THE_MODEL,
    ),
]
ReproductionData = Annotated[Node, Keys(set_by_program=_SET_IN_DATA, ignored=_OF_THE_MODEL | {"codec": _AS_TRAINED})]
ExportData = Annotated[Node, Keys(ignored={"(?!codec|skeleton).*": "it needs data.codec and data.skeleton alone"})]
EvaluationTrainer = Annotated[
    Node, Keys(set_by_program={"precision": "precision", "callbacks": "", "logger": "", "enable_checkpointing": ""})
]

_Model = Annotated[
    Node,
    Keys(
        also_read={"pretrained": str | None, "pretrained_head": bool},
        set_by_program={
            "num_keypoints": "data.skeleton",
            "head": "head",
            "crop_height": "data.codec.height",
            "crop_width": "data.codec.width",
        },
    ),
]
_Optimizer = Annotated[
    Node,
    Keys(
        also_read={
            "lr_per_256": Positive,
            "decay_norms_and_biases": bool,
            "layer_decay": LayerDecay | None,
            "head_lr_scale": Positive | None,
        },
        set_by_program={"lr": "optimizer.lr_per_256", "params": ""},
    ),
]
_Training = Annotated[
    Node, Keys(set_by_program={"model": "model", "protocol": "evaluation", "optimization": "optimizer", "loss": "loss"})
]
_Trainer = Annotated[
    Node, Keys(set_by_program={"precision": "precision", "callbacks": "callbacks", "logger": "logger"})
]


@dataclass
class TrainConfig:
    """The keys of conf/train.yaml; what lies below a node is checked against the signature of its target.

    Here, and not in the program: a launcher of sweeps sends a class of ``__main__`` to other machines by value.
    """

    model: _Model
    head: Node
    data: Data
    loss: Node
    optimizer: _Optimizer
    scheduler: dict[Literal["per_step", "per_epoch"], dict[str, Node | None] | None]
    training: _Training
    trainer: _Trainer
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
    codec: str | None = None
    augmentation: dict[Literal["geometric", "photometric", "stages"], Node | dict[str, Node | None] | None] | None = (
        None
    )
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
    keypoints: str | None
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
