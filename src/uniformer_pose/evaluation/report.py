"""What an evaluation leaves behind: the table on the screen, and three files in the run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniformer_pose.evaluation.coco_metrics import (
    CocoGroundTruth,
    coco_results,
    format_metrics_table,
    write_coco_results,
)
from uniformer_pose.evaluation.keypoint_errors import keypoint_errors
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one pass over the evaluation images: COCO's ten numbers and every box's pose.

    ``complete`` is false when only a part of the images was asked for (``limit_val_batches``).
    """

    metrics: dict[str, float]
    predictions: PosePredictions
    ground_truth: CocoGroundTruth
    complete: bool


def write_report(folder: Path, evaluation: Evaluation, protocol: EvaluationProtocol) -> str:
    """Write ``metrics.json``, ``keypoint_errors.json`` and ``predictions.json`` (COCO results); returns the table.

    ``predictions.json`` is what COCO's test server takes: rescored, after NMS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ground_truth = evaluation.ground_truth
    results = coco_results(
        evaluation.predictions,
        protocol.score_mode,
        protocol.nms_mode,
        skeleton=ground_truth.skeleton,
        keypoint_score_threshold=protocol.keypoint_score_threshold,
        nms_threshold=protocol.nms_threshold,
        category_id=ground_truth.category_id,
    )
    # Under a name of its own, so that nobody takes the AP of a part for that of the whole.
    metrics_file = folder / ("metrics.json" if evaluation.complete else "metrics_partial.json")
    write_json(metrics_file, evaluation.metrics)
    write_json(folder / "keypoint_errors.json", keypoint_errors(ground_truth, evaluation.predictions))
    write_coco_results(folder / "predictions.json", results)
    return "\n".join(
        [
            "" if evaluation.complete else "Only a part of the images was evaluated.",
            format_metrics_table(evaluation.metrics),
            "",
            f"metrics             {metrics_file}",
            f"keypoint errors     {folder / 'keypoint_errors.json'}",
            f"predictions         {folder / 'predictions.json'} ({len(results)} poses)",
        ]
    )


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part; NaN becomes null."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and value != value else value
