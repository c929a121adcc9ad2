"""Published results and measured ones -> a table with their differences, on the screen, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MARK = "!"


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


def as_text(rows: Sequence[Reproduction], tolerance: float) -> str:
    """Three lines a model, one column a number; a difference beyond the tolerance has an exclamation mark."""
    columns = list(rows[0].published)
    width = max(len(row.name) for row in rows)
    lines = [" " * (width + 12) + "".join(f"{column:>8} " for column in columns)]
    for row in rows:
        marked = row.beyond(tolerance)
        lines += [
            f"{row.name:<{width}}  published " + "".join(f"{row.published[c]:8.1f} " for c in columns),
            f"{'':<{width}}  measured  " + "".join(f"{row.measured[c]:8.2f} " for c in columns),
            f"{'':<{width}}  difference"
            + "".join(f"{row.differences[c]:+8.2f}{_MARK if c in marked else ' '}" for c in columns),
        ]
    return "\n".join(line.rstrip() for line in [*lines, "", conclusion(rows, tolerance)])


def as_markdown(rows: Sequence[Reproduction], tolerance: float, conditions: str) -> str:
    """A Markdown table; each cell is ``published / measured (difference)``, in bold beyond the tolerance."""
    columns = list(rows[0].published)
    lines = [
        conditions,
        "",
        "Each cell: published / measured (difference), in percent.",
        "",
        "| model | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        marked = row.beyond(tolerance)
        cells = [f"{row.published[c]:.1f} / {row.measured[c]:.2f} ({row.differences[c]:+.2f})" for c in columns]
        shown = [f"**{cell}**" if c in marked else cell for c, cell in zip(columns, cells, strict=True)]
        lines.append(f"| {row.name} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", conclusion(rows, tolerance), ""])


def as_json(rows: Sequence[Reproduction], tolerance: float, conditions: str) -> dict[str, Any]:
    """The same as plain numbers."""
    return {
        "conditions": conditions,
        "tolerance": tolerance,
        "models": {
            row.name: {
                "published": dict(row.published),
                "measured": dict(row.measured),
                "difference": row.differences,
                "beyond_tolerance": row.beyond(tolerance),
            }
            for row in rows
        },
    }


def conclusion(rows: Sequence[Reproduction], tolerance: float) -> str:
    """One sentence: how many of the numbers agree."""
    numbers = sum(len(row.published) for row in rows)
    beyond = sum(len(row.beyond(tolerance)) for row in rows)
    agree = f"{numbers - beyond} of {numbers} numbers agree within {tolerance:g}"
    return agree if not beyond else f"{agree}; the other {beyond} are marked"
