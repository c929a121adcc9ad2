"""What an evaluation leaves behind: tables on the screen, and files in the run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniformer_pose.data.coco import AREA_OF_BOX
from uniformer_pose.evaluation.breakdown import keypoint_table, metrics_by_keypoint, metrics_by_size, size_table
from uniformer_pose.evaluation.coco_metrics import (
    METRIC_NAMES,
    CocoGroundTruth,
    coco_results,
    format_metrics_table,
    select_poses,
    write_coco_results,
)
from uniformer_pose.evaluation.keypoint_errors import keypoint_errors
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.evaluation.timing import format_seconds

Table = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one pass over the evaluation images: COCO's ten numbers and every box's pose.

    ``ground_truth`` is that of the evaluated images. ``complete`` is false when only a part of the images was asked
    for (``limit_val_batches``, ``max_images``). ``seconds``: where the time went (``Stopwatch``), of the first process.
    """

    metrics: dict[str, float]
    predictions: PosePredictions
    ground_truth: CocoGroundTruth
    complete: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """Of how many images the numbers are, in words; nothing where they are of all."""
        if self.complete:
            return ""
        images = len(self.ground_truth.listed_image_ids)
        return f"{images} of {max(images, self.ground_truth.images_in_file)} images"

    @property
    def record(self) -> dict[str, float]:
        """The metrics as files hold them: those of a part of the images say so."""
        if self.complete:
            return self.metrics
        images = len(self.ground_truth.listed_image_ids)
        return {**self.metrics, "partial": True, "images": images, "of": max(images, self.ground_truth.images_in_file)}


def write_report(folder: Path, evaluation: Evaluation, protocol: EvaluationProtocol) -> str:
    """Write the files of an evaluation; returns its tables, and where the files are, as text.

    ``metrics.json``: the ten numbers. ``metrics_by_size.json``, ``metrics_by_keypoint.json``: AP for people of one
    size, and for one keypoint. ``keypoint_errors.json``: distances. ``predictions.json``: COCO results, rescored,
    after NMS; pycocotools gives the ten numbers for them. ``timing.json``: seconds. ``report.md``: the tables. The
    metrics and the tables of a part of the images say of how many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ground_truth = evaluation.ground_truth
    results = coco_results(
        evaluation.predictions, protocol, skeleton=ground_truth.skeleton, category_id=ground_truth.category_id
    )
    poses, scores = select_poses(evaluation.predictions, protocol, ground_truth.skeleton.oks_sigmas)
    by_size = metrics_by_size(ground_truth, poses, scores)
    by_keypoint = metrics_by_keypoint(ground_truth, poses, scores)
    write_json(folder / "metrics.json", evaluation.record)
    write_json(folder / "metrics_by_size.json", by_size)
    write_json(folder / "metrics_by_keypoint.json", by_keypoint)
    write_json(folder / "keypoint_errors.json", keypoint_errors(ground_truth, evaluation.predictions))
    write_coco_results(folder / "predictions.json", results)
    part = evaluation.part and f"Partial evaluation: {evaluation.part}, not comparable with that of all."
    time = ""
    if evaluation.seconds:
        time = format_seconds(evaluation.seconds, len(evaluation.predictions))
        write_json(
            folder / "timing.json",
            {"crops": len(evaluation.predictions), "seconds": evaluation.seconds},
        )
    tables = [size_table(by_size), keypoint_table(by_keypoint)]
    name = ground_truth.file.name + (evaluation.part and f" ({evaluation.part})")
    markdown = [part, markdown_table(metrics_table({name: evaluation.metrics}))]
    area = f", area: {AREA_OF_BOX:g} x width x height of the box" if ground_truth.area == "box" else ""
    markdown += [*map(markdown_table, tables), f"Time: {time}" if time else "", f"Protocol: `{protocol}`{area}"]
    (folder / "report.md").write_text("\n\n".join(filter(None, markdown)) + "\n", encoding="utf-8")
    return "\n".join(
        [
            part,
            format_metrics_table(evaluation.metrics),
            *(f"\n{text_table(table)}" for table in tables),
            "",
            *([f"time                {time}"] if time else []),
            f"metrics             {folder / 'metrics.json'}",
            f"as Markdown         {folder / 'report.md'}",
            f"keypoint errors     {folder / 'keypoint_errors.json'}",
            f"predictions         {folder / 'predictions.json'} ({len(results)} poses)",
        ]
    )


def metrics_table(metrics_by_name: Mapping[str, Mapping[str, float]], name_of_rows: str = "") -> list[list[str]]:
    """Header and rows of text: the ten metrics of each of several evaluations; a dash for no such people."""
    rows = [[name_of_rows, *METRIC_NAMES]]
    for name, metrics in metrics_by_name.items():
        rows.append([name, *(f"{metrics[m]:.4f}" if metrics[m] >= 0 else "-" for m in METRIC_NAMES)])
    return rows


def text_table(rows: Table) -> str:
    """Rows of text, the first the header, in columns as wide as they need; the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def markdown_table(rows: Table) -> str:
    """Rows of text, the first the header, as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|---{'|---:' * (len(rows[0]) - 1)}|", *lines[1:]])


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
