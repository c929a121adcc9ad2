"""The released models on COCO: published results beside measured ones in a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from uniformer_pose.files import write_json, write_text
from uniformer_pose.progress import markdown_table

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By model, ``published`` and ``measured``: numbers of the same names, in percent."""


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
