"""How predictions become a score: the choices of the test protocol, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EvaluationProtocol:
    """The published protocol by default: flip test, box score x keypoint scores, OKS-NMS at 0.9.

    ``keypoint_score_threshold`` is the least score of a keypoint that counts in a pose's score;
    ``nms_threshold`` the OKS above which the weaker of two poses goes.
    """

    flip_test: bool = True
    score_mode: Literal["bbox_keypoint", "bbox", "keypoint", "bbox_rle"] = "bbox_keypoint"
    nms_mode: Literal["oks_nms", "none", "soft_oks_nms"] = "oks_nms"
    keypoint_score_threshold: float = 0.2
    nms_threshold: float = 0.9
