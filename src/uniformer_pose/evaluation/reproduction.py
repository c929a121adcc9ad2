"""The released models on COCO: what has to be there, and published results beside measured ones in a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniformer_pose.errors import InputError
from uniformer_pose.files import write_json, write_text
from uniformer_pose.progress import markdown_table

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By model, ``published`` and ``measured``: numbers of the same names, in percent."""


def require_coco(data: Mapping[str, Any]) -> str:
    """What is measured on, in words; InputError for all of the data that is missing, at once."""
    root, boxes = Path(data["root"]).expanduser(), data["val_boxes"]
    wanted = [root / data["val_annotations"], root / data["val_images"]]
    if boxes != "gt" and not Path(boxes).expanduser().is_file():
        wanted.append(root / boxes)
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        raise InputError(
            f"missing: {', '.join(missing)}; data.root=<folder> says where COCO is: annotations_trainval2017.zip and "
            "val2017.zip of cocodataset.org, and the detector boxes (AP 56) that MMPose and HRNet link, or "
            "data.val_boxes=gt"
        )
    return f"{wanted[0].name}, boxes: {boxes}"


def write_table(run_dir: Path, models: Results, tolerance: float, conditions: str) -> str:
    """Write ``reproduction.json`` and ``reproduction.md``; returns the latter."""
    table = reproduction_table(models, tolerance, conditions)
    write_json(run_dir / "reproduction.json", {"conditions": conditions, "models": models})
    write_text(run_dir / "reproduction.md", table)
    return table


def reproduction_table(models: Results, tolerance: float, conditions: str) -> str:
    """Markdown; each cell is ``published / measured (difference)``, in bold where they differ by more than allowed."""
    columns = list(next(iter(models.values()))["published"])
    rows, beyond = [["model", *columns]], 0
    for name, results in models.items():
        cells = []
        for column in columns:
            published, measured = results["published"][column], results["measured"][column]
            cell = f"{published:.1f} / {measured:.2f} ({measured - published:+.2f})"
            differs = abs(measured - published) > tolerance + 1e-9  # a hair of rounding is forgiven
            beyond += differs
            cells.append(f"**{cell}**" if differs else cell)
        rows.append([name, *cells])
    numbers = len(models) * len(columns)
    return (
        f"{conditions}\n\nEach cell: published / measured (difference), in percent; bold beyond {tolerance:g}.\n\n"
        f"{markdown_table(rows)}\n\n{numbers - beyond} of {numbers} numbers agree within {tolerance:g}\n"
    )
