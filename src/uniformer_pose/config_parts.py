"""Parts of a configuration that several entry points have, as types: what each may say, and what the program sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from uniformer_pose.config_check import AlsoReads, IgnoredHere, Node, SetByProgram, SomeArgumentsOf

Precision = Literal["auto", "fp32", "bf16", "fp16"]
MatmulPrecision = Literal["highest", "high", "medium"]
Engine = Literal["auto", "eager", "folded", "openvino"]

Model = Annotated[
    Node,
    AlsoReads(pretrained=str | None, pretrained_head=bool),
    SetByProgram(num_keypoints="give a data.skeleton=... of so many keypoints"),
]
Optimizer = Annotated[Node, SetByProgram(lr="give training.learning_rate_per_256=...", params="leave it out")]
_SET_IN_DATA = SetByProgram(
    seed="give seed=...",
    geometric="give augmentation.geometric...=...",
    photometric="give augmentation.photometric...=...",
)
TrainingData = Annotated[Node, _SET_IN_DATA]
PartOfData = Annotated[dict[str, Any], SomeArgumentsOf("uniformer_pose.data.datamodule.PersonCrops"), _SET_IN_DATA]

_FOR_TRAINING = "it is for training, and nothing is trained here"
_OF_THE_MODEL = "it stays as the model was trained"
EvaluationData = Annotated[
    dict[str, Any],
    SomeArgumentsOf("uniformer_pose.data.datamodule.PersonCrops"),
    SetByProgram(seed=_FOR_TRAINING, geometric=_FOR_TRAINING, photometric=_FOR_TRAINING),
    IgnoredHere(
        mean=_OF_THE_MODEL,
        std=_OF_THE_MODEL,
        box_padding=_OF_THE_MODEL,
        batch_size="give data.eval_batch_size=...",
    ),
]
ReproductionData = Annotated[
    TrainingData,
    IgnoredHere(
        codec=_OF_THE_MODEL,
        mean=_OF_THE_MODEL,
        std=_OF_THE_MODEL,
        box_padding=_OF_THE_MODEL,
        batch_size="give data.eval_batch_size=...",
    ),
]
EvaluationTrainer = Annotated[
    Node,
    SetByProgram(
        precision="give precision=...",
        callbacks="leave it out",
        logger="leave it out",
        enable_checkpointing="leave it out",
    ),
]


@dataclass
class Augmentation:
    """What is drawn for each training crop; null for nothing."""

    geometric: Node | None = None
    photometric: Node | None = None


@dataclass
class Detector:
    """The keys of conf/detector: a detector, and which of its boxes are kept."""

    keep: Annotated[Node, SetByProgram(found="leave it out", height="leave it out", width="leave it out")]
    model: Node | None
