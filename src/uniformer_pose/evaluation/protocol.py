"""How predictions become a score: the choices of the test protocol, in one object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Share

ScoreMode = Literal["bbox_keypoint", "bbox", "keypoint", "bbox_rle"]
NmsMode = Literal["oks_nms", "none", "soft_oks_nms"]
MetricKind = Literal["coco", "crowd_levels", "body_parts", "mean_over_categories", "pckh"]
"""What is made of the scored poses: COCO's numbers, or those of CrowdPose, COCO-WholeBody, AP-10K and MPII."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """The published protocol by default: flip test, box score x keypoint scores, OKS-NMS at 0.9.

    ``keypoint_score_threshold`` is the least score of a keypoint that counts in a pose's score;
    ``nms_threshold`` the OKS above which the weaker of two poses goes. ``monitor`` is the logged number that stands for
    the evaluation, such as ``val/AR``; None: the one that the metric is known for (``headline``).

    Raises ``InputError`` for a mode that there is not, and for an ``nms_threshold`` that no OKS can have.
    """

    flip_test: bool = True
    score_mode: ScoreMode = "bbox_keypoint"
    nms_mode: NmsMode = "oks_nms"
    keypoint_score_threshold: Share = 0.2
    nms_threshold: Share = 0.9
    monitor: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, choices in (("score_mode", ScoreMode), ("nms_mode", NmsMode)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise InputError(f"{name} is {value!r}; choose one of {', '.join(get_args(choices))}")
        if not 0 < self.nms_threshold <= 1:
            raise InputError(f"nms_threshold is {self.nms_threshold}; an OKS lies between 0 and 1, usual is 0.9")
