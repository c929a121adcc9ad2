"""What an evaluation leaves behind: tables on the screen, and files in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uniformer_pose.data.coco import AREA_OF_BOX
from uniformer_pose.evaluation.coco_metrics import (
    METRIC_NAMES,
    Scores,
    coco_keypoint_metrics,
    metrics_by_keypoint,
    metrics_by_size,
    select_poses,
)
from uniformer_pose.evaluation.error_types import ErrorTypes, error_types
from uniformer_pose.evaluation.ground_truth import CocoGroundTruth
from uniformer_pose.evaluation.pckh import PCKH_NAMES, pckh_by_keypoint
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol, MetricKind
from uniformer_pose.evaluation.results import coco_results
from uniformer_pose.evaluation.timing import format_seconds
from uniformer_pose.evaluation.visibility import judge_visibility, reliability_table, rescored, visibility_table
from uniformer_pose.files import write_json, write_text
from uniformer_pose.headline import headline
from uniformer_pose.progress import markdown_table, text_table

Table = list[list[str]]

_COLUMNS = ("AP", "AP50", "AP75", "AR")


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one pass over the evaluation images: the numbers of a ``kind`` of metric and every box's pose.

    ``ground_truth`` is that of the evaluated images. ``complete`` is false when only a part of the images was asked
    for (``limit_val_batches``, ``max_images``). ``seconds``: where the time went (``Stopwatch``), of the first process.
    """

    metrics: dict[str, float]
    predictions: PosePredictions
    ground_truth: CocoGroundTruth
    complete: bool
    seconds: dict[str, float] = field(default_factory=dict)
    kind: MetricKind = "coco"

    @property
    def part(self) -> str:
        """Of how many images the numbers are, in words; nothing where they are of all."""
        return "" if self.complete else "{images} of {of} images".format(**self.record)

    @property
    def record(self) -> dict[str, float]:
        """The metrics as files hold them: those of a part of the images say so."""
        images = len(self.ground_truth.listed_image_ids)
        part = {"partial": True, "images": images, "of": max(images, self.ground_truth.images_in_file)}
        return self.metrics | ({} if self.complete else part)


def write_report(folder: Path, evaluation: Evaluation, protocol: EvaluationProtocol) -> str:
    """Write the files of an evaluation; returns its tables, and where the files are, as text.

    ``metrics.json``: the ten numbers, or MPII's. ``metrics_by_size.json``, ``metrics_by_keypoint.json``: AP for people
    of one size, and for one keypoint; of MPII's people PCKh for one keypoint. ``error_types.json``: how many keypoints
    are mistaken in which way. ``predictions.json``: COCO results, rescored, after NMS, which PCKh knows nothing of, so
    that MPII's are all; pycocotools gives the ten numbers for them.
    ``visibility.json``, of a network that says what is visible: how well, and AP with poses rescored by that.
    ``timing.json``: seconds. ``report.md``: the tables. The metrics and the tables of a part of the images say of how
    many.
    """
    truth, predictions, part = evaluation.ground_truth, evaluation.predictions, evaluation.part
    protocol = replace(protocol, nms_mode="none") if evaluation.kind == "pckh" else protocol
    reported = select_poses(predictions, protocol, truth.skeleton.oks_sigmas)
    tables = _people_tables(folder, evaluation, *reported)
    results = coco_results(predictions, protocol, skeleton=truth.skeleton, category_id=truth.category_id)
    write_json(folder / "metrics.json", evaluation.record)
    mistakes = error_types(truth, reported[0])
    write_json(folder / "error_types.json", mistakes.counts())
    write_json(folder / "predictions.json", results, indent=None)
    time = ""
    if evaluation.seconds:
        time = format_seconds(evaluation.seconds, len(predictions))
        write_json(folder / "timing.json", {"crops": len(predictions), "seconds": evaluation.seconds})
    warning = part and f"Partial evaluation: {part}, not comparable with that of all."
    if predictions.visibility is not None:
        tables += _visibility(folder / "visibility.json", evaluation, mistakes, protocol)
    area = f", area: {AREA_OF_BOX:g} x width x height of the box" if truth.area == "box" else ""
    name = truth.file.name + (part and f" ({part})")
    markdown = [
        warning,
        *map(markdown_table, [metrics_table({name: evaluation.metrics}), *tables]),
        time and f"Time: {time}",
        f"Protocol: `{protocol}`{area}",
    ]
    write_text(folder / "report.md", "\n\n".join(filter(None, markdown)) + "\n")
    return "\n".join(
        [
            warning,
            text_table(metrics_table({"": evaluation.metrics})),
            *(f"\n{text_table(table)}" for table in tables),
            time and f"\ntime                {time}",
            f"metrics             {folder / 'metrics.json'}",
            f"as Markdown         {folder / 'report.md'}",
            f"kinds of mistakes   {folder / 'error_types.json'}",
            f"predictions         {folder / 'predictions.json'} ({len(results)} poses)",
        ]
    )


def _people_tables(folder: Path, evaluation: Evaluation, poses: PosePredictions, scores: Scores) -> list[Table]:
    """Write the metrics by size and by keypoint, as far as the kind has them; returns their tables."""
    truth = evaluation.ground_truth
    if evaluation.kind == "pckh":
        by_keypoint = pckh_by_keypoint(truth, evaluation.predictions)
        write_json(folder / "metrics_by_keypoint.json", by_keypoint)
        return [_people_table("keypoint", by_keypoint, PCKH_NAMES[:2])]
    by_size, by_keypoint = metrics_by_size(truth, poses, scores), metrics_by_keypoint(truth, poses, scores)
    write_json(folder / "metrics_by_size.json", by_size)
    write_json(folder / "metrics_by_keypoint.json", by_keypoint)
    return [size_table(by_size), keypoint_table(by_keypoint)]


def _visibility(file: Path, evaluation: Evaluation, mistakes: ErrorTypes, protocol: EvaluationProtocol) -> list[Table]:
    """Write how well the network knows what is visible, and what rescoring by that would give; returns the tables.

    No score counts in PCKh.
    """
    judged, plain = judge_visibility(mistakes), evaluation.metrics
    people = int((mistakes.poses >= 0).sum())
    if evaluation.kind == "pckh":
        write_json(file, {**judged, "people": people})
        return [visibility_table(judged), reliability_table(judged)]
    changed = coco_keypoint_metrics(evaluation.ground_truth, rescored(evaluation.predictions), protocol)
    write_json(file, {**judged, "AP": plain["AP"], "AP_rescored": changed["AP"], "people": people})
    by_scores = metrics_table({"as they are": plain, "times P(labelled)": changed}, "keypoint scores")
    return [visibility_table(judged), reliability_table(judged), by_scores]


def write_reports(folder: Path, evaluations: Mapping[str, Evaluation], protocol: EvaluationProtocol) -> str:
    """``write_report`` of each set, of several in a folder of its name, with their comparison."""
    if len(evaluations) == 1:
        return write_report(folder, next(iter(evaluations.values())), protocol)
    reports = [f"{name}\n{write_report(folder / name, of_set, protocol)}\n" for name, of_set in evaluations.items()]
    return "\n".join([*reports, write_comparison(folder, evaluations, by_set=True)])


def write_comparison(folder: Path, evaluations: Mapping[str, Evaluation], *, by_set: bool = False) -> str:
    """Write the metrics of several evaluations, by the names of their boxes; returns their table.

    ``by_set``: by the names of their sets, or ``<set>/<boxes>``. ``metrics.json``, which a sweep's summary shows, has
    those of the last boxes, of further sets as ``<set>/AP``.
    """
    what, records = "set" if by_set else "boxes", {name: each.record for name, each in evaluations.items()}
    sets = {name: name.partition("/")[0] if by_set else "" for name in records}
    first = next(iter(sets.values()))
    prefixes = {name: "" if of_set == first else f"{of_set}/" for name, of_set in sets.items()}
    together = {f"{prefixes[name]}{key}": value for name, record in records.items() for key, value in record.items()}
    file = folder / f"metrics_by_{what}.json"
    write_json(file, records)
    write_json(folder / "metrics.json", together)
    tables = []
    for names in dict.fromkeys(headline(each.kind) for each in evaluations.values()):
        rows = {n + (e.part and f" ({e.part})"): e.metrics for n, e in evaluations.items() if headline(e.kind) == names}
        tables.append(text_table(metrics_table(rows, what)))
    return "\n\n".join(tables) + f"\nmetrics             {file}"


def metrics_table(metrics_by_name: Mapping[str, Mapping[str, float]], name_of_rows: str = "") -> Table:
    """Header and rows of text: the ten metrics, and AP of levels or parts, of each of several evaluations; or PCKh's.

    A dash stands for no such people.
    """
    known = dict.fromkeys(name for of in metrics_by_name.values() for name in of)
    others = (name for name in known if name.startswith("AP_"))
    names = (*METRIC_NAMES, *others) if "AP" in known else PCKH_NAMES
    rows = [[name, *_numbers(metrics, names)] for name, metrics in metrics_by_name.items()]
    return [[name_of_rows, *names], *rows]


def size_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Header and rows of text of what ``metrics_by_size`` gave."""
    ends = ["and more" if row["to_pixels"] is None else f"to {row['to_pixels']}" for row in rows]
    names = [f"{row['from_pixels']} {end} px" for row, end in zip(rows, ends, strict=True)]
    return _people_table("person size", dict(zip(names, rows, strict=True)))


def keypoint_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows of text of what ``metrics_by_keypoint`` gave."""
    return _people_table("keypoint", rows)


def _people_table(name_of_rows: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str] = _COLUMNS) -> Table:
    lines = [[name, str(row["people"]), *_numbers(row, columns)] for name, row in rows.items()]
    return [[name_of_rows, "people", *columns], *lines]


def _numbers(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{row[name]:.4f}" if row.get(name, -1) >= 0 else "-" for name in names]
