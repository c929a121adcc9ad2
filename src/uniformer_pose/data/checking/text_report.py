"""The report of a dataset check for people: at most a screen, the whole of it being in the JSON file."""

from __future__ import annotations

from uniformer_pose.data.checking.dataset_check import DatasetReport, SplitReport
from uniformer_pose.data.checking.defects import Found

_MOST_KINDS = 26  # of defects, over all splits
_WIDTH = 160
_IN_FULL = "side_without_partner: "  # says what to do at its end


def text_report(report: DatasetReport) -> str:
    """What each split holds, then its kinds of defect, errors first, each with its first example."""
    lines: list[str] = []
    room = _MOST_KINDS
    for split in report.splits:
        lines += _describe(split)
        found = split.findings.found
        lines += [_defect_line(kind) for kind in found[:room]]
        if len(found) > room:
            lines.append(f"  and {len(found) - room} more kinds, which the JSON report lists")
        if not found:
            lines.append("  nothing wrong")
        room = max(0, room - len(found))
    read = "" if report.images_read else " (no image was opened)"
    lines.append(f"{_number(report.num_errors, 'error')}, {_number(report.num_remarks, 'remark')}{read}")
    return "\n".join(line if len(line) <= _WIDTH or _IN_FULL in line else f"{line[: _WIDTH - 3]}..." for line in lines)


def _describe(split: SplitReport) -> list[str]:
    counts, more = split.counts, split.distributions
    lines = [f"{split.files.name}: {split.files.annotations}"]
    others = [f"{n} {name}" for name, n in counts.items() if n and name not in _IN_THE_LINE]
    aside = f"; {', '.join(others)}" if others else ""
    lines.append(
        f"  {counts.get('images', 0)} images, {counts.get('annotations', 0)} annotations: {counts.get('people', 0)} "
        f"people in {counts.get('images with people', 0)} images{aside}"
    )
    if more:
        height, keypoints = more["box height"], more["labelled keypoints per person"]
        sizes = ", ".join(f"{n} {name.split(' (')[0]}" for name, n in more["box area"].items())
        lines.append(
            f"  boxes: {sizes}; {height['5 %']:g} to {height['95 %']:g} pixels high (5 to 95 %), median "
            f"{height['50 %']:g}"
        )
        shares = {
            name: 1 - column["not labelled"] / max(1, sum(column.values()))
            for name, column in more["visibility by keypoint"].items()
        }
        least = sorted(shares, key=lambda name: shares[name])[:3]
        rarest = ", ".join(f"{name} {shares[name]:.0%}" for name in least)
        lines.append(f"  keypoints: {keypoints['50 %']:g} labelled per person (median); labelled least: {rarest}")
    if split.detection_counts:
        boxes = ", ".join(f"{n} {name}" for name, n in split.detection_counts.items())
        lines.append(f"  detector: {boxes}")
    return lines


_IN_THE_LINE = {"images", "annotations", "people", "images with people"}


def _defect_line(found: Found) -> str:
    first = found.examples[0]
    place = "" if first.file_name is None else f"{first.file_name}: "
    return f"  {found.severity:<6} {found.count:>6}  {found.kind}: {place}{first.detail}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
