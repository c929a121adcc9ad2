"""Published results and measured ones -> a table with their differences, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uniformer_pose.progress import markdown_table


@dataclass(frozen=True)
class Reproduction:
    """One model: what its publishers state and what was measured here, under the same names, in percent."""

    name: str
    published: Mapping[str, float]
    measured: Mapping[str, float]

    @property
    def differences(self) -> dict[str, float]:
        """Measured minus published."""
        return {name: self.measured[name] - value for name, value in self.published.items()}

    def beyond(self, tolerance: float) -> list[str]:
        """The numbers that differ by more than ``tolerance``; a hair of rounding is forgiven."""
        return [name for name, difference in self.differences.items() if abs(difference) > tolerance + 1e-9]


def as_markdown(rows: Sequence[Reproduction], tolerance: float, conditions: str) -> str:
    """A Markdown table; each cell is ``published / measured (difference)``, in bold beyond the tolerance."""
    columns = list(rows[0].published)
    table = [["model", *columns]]
    for row in rows:
        marked = row.beyond(tolerance)
        cells = {c: f"{row.published[c]:.1f} / {row.measured[c]:.2f} ({row.differences[c]:+.2f})" for c in columns}
        table.append([row.name, *(f"**{cell}**" if c in marked else cell for c, cell in cells.items())])
    numbers, beyond = len(rows) * len(columns), sum(len(row.beyond(tolerance)) for row in rows)
    conclusion = f"{numbers - beyond} of {numbers} numbers agree within {tolerance:g}"
    explanation = "Each cell: published / measured (difference), in percent; bold beyond the tolerance."
    return "\n".join([conditions, "", explanation, "", markdown_table(table), "", conclusion, ""])


def as_json(rows: Sequence[Reproduction], tolerance: float, conditions: str) -> dict[str, Any]:
    """The same as plain numbers."""
    models = {
        row.name: {
            "published": dict(row.published),
            "measured": dict(row.measured),
            "difference": row.differences,
            "beyond_tolerance": row.beyond(tolerance),
        }
        for row in rows
    }
    return {"conditions": conditions, "tolerance": tolerance, "models": models}
