"""After a sweep (``-m``): one table of all runs, best first, in the sweep's folder and on the screen.

Beside the entry points this is the only file that Hydra calls: it is a Hydra callback, named in conf/_run.yaml.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback

from uniformer_pose.progress import text_table


class SweepSummary(Callback):
    """Writes ``summary.csv`` into the sweep's folder from each run's ``metrics.json`` and overrides."""

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Read what the runs left on disk: that works for every launcher, and for runs of an earlier attempt."""
        folder = Path(str(config.hydra.sweep.dir))
        rows = summary_rows(folder)
        if not rows:
            return
        with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list({name: None for row in rows for name in row}))
            writer.writeheader()
            writer.writerows(rows)
        words = [row["overrides"].split() for row in rows]
        everywhere = set(words[0]).intersection(*words) if len(rows) > 1 else set()
        table = [["run", "overrides", "AP", ""]]
        for row, run in zip(rows, words, strict=True):
            part = f"{row['images']} of {row['of']} images" if row.get("partial") else ""
            different = " ".join(word for word in run if word not in everywhere)  # what tells runs apart
            table.append([row["run"], different, row.get("AP", "failed"), part])
        sys.stdout.write(f"{text_table(table)}\nwritten to {folder / 'summary.csv'}\n")


def summary_rows(folder: Path) -> list[dict[str, str]]:
    """One row per run below ``folder``: its number, its overrides, and its metrics (none where it failed)."""
    rows = []
    for overrides_file in folder.glob("*/.hydra/overrides.yaml"):
        run = overrides_file.parent.parent
        overrides = yaml.safe_load(overrides_file.read_text(encoding="utf-8")) or []
        metrics_file = run / "metrics.json"
        metrics = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.is_file() else {}
        texts = {
            name: f"{value:.4f}" if isinstance(value, float) else str(value)
            for name, value in metrics.items()
            if value is not None  # NaN
        }
        words = " ".join(str(override).removeprefix("++") for override in overrides)
        rows.append({"run": run.name, "overrides": words} | texts)
    return sorted(rows, key=lambda row: (-float(row.get("AP", -2)), len(row["run"]), row["run"]))  # 10 comes after 9
