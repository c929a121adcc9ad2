"""After a sweep (``-m``): one table of all runs, best first, in the sweep's folder and on the screen.

Beside the entry points this is the only file that Hydra calls: it is a Hydra callback, named in conf/train.yaml.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback


class SweepSummary(Callback):
    """Writes ``summary.csv`` into the sweep's folder from each run's ``metrics.json`` and overrides."""

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Read what the runs left on disk: that works for every launcher, and for runs of an earlier attempt."""
        folder = Path(str(config.hydra.sweep.dir))
        rows = summary_rows(folder)
        if not rows:
            return
        with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        words = [row["overrides"].split() for row in rows]
        everywhere = set(words[0]).intersection(*words) if len(rows) > 1 else set()
        shown = [" ".join(word for word in run if word not in everywhere) for run in words]  # what tells runs apart
        width = max(map(len, ["overrides", *shown]))
        lines = [f"{'run':>4}  {'overrides':<{width}}  {'AP':>6}"]
        lines += [
            f"{row['run']:>4}  {overrides:<{width}}  {row.get('AP') or 'failed':>6}"
            + (f"  {row['images']} of {row['of']} images" if row.get("partial") else "")
            for row, overrides in zip(rows, shown, strict=True)
        ]
        sys.stdout.write("\n".join([*lines, f"written to {folder / 'summary.csv'}", ""]))


def summary_rows(folder: Path) -> list[dict[str, str]]:
    """One row per run below ``folder``: its number, its overrides, and its metrics (empty where it failed)."""
    names: list[str] = []
    found: list[tuple[str, str, dict[str, float]]] = []
    for overrides_file in folder.glob("*/.hydra/overrides.yaml"):
        run = overrides_file.parent.parent
        overrides = yaml.safe_load(overrides_file.read_text(encoding="utf-8")) or []
        metrics_file = run / "metrics.json"
        metrics = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.is_file() else {}
        metrics = {name: value for name, value in metrics.items() if value is not None}  # null stands for NaN
        names += [name for name in metrics if name not in names]
        found.append((run.name, " ".join(str(override).removeprefix("++") for override in overrides), metrics))
    found.sort(key=lambda run: (-run[2].get("AP", -2.0), len(run[0]), run[0]))  # 10 comes after 9
    names = names or ["AP"]
    return [
        {"run": run, "overrides": overrides} | {name: _shown(metrics.get(name, "")) for name in names}
        for run, overrides, metrics in found
    ]


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
