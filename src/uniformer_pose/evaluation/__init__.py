"""From predicted poses to COCO numbers: rescoring, OKS-NMS, AP and AR, kinds of mistakes."""

from uniformer_pose.evaluation.coco_metrics import coco_keypoint_metrics
from uniformer_pose.evaluation.data_set_metrics import keypoint_metrics
from uniformer_pose.evaluation.error_types import error_types
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.results import coco_results

__all__ = [
    "CocoGroundTruth",
    "EvaluationProtocol",
    "PosePredictions",
    "coco_keypoint_metrics",
    "coco_results",
    "error_types",
    "keypoint_metrics",
]
