"""From predicted poses to COCO numbers: rescoring, OKS-NMS, AP and AR, errors keypoint by keypoint."""

from uniformer_pose.evaluation.coco_metrics import (
    CocoGroundTruth,
    coco_keypoint_metrics,
    coco_results,
    format_metrics_table,
    write_coco_results,
)
from uniformer_pose.evaluation.keypoint_errors import keypoint_errors
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol

__all__ = [
    "CocoGroundTruth",
    "EvaluationProtocol",
    "PosePredictions",
    "coco_keypoint_metrics",
    "coco_results",
    "format_metrics_table",
    "keypoint_errors",
    "write_coco_results",
]
