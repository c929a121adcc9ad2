"""A benchmark's outcome as a table for people and a JSON file for later, and all such files on one page."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniformer_pose.benchmarks.machine import machine_line
from uniformer_pose.benchmarks.measurement import Measurement, quartiles
from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.report import markdown_table, text_table

_FORMAT = 1
_PARTS = ("comparisons", "facts", "verdict")


@dataclass
class Comparison:
    """Sides measured in turn; the first is what the others are compared with."""

    title: str
    sides: list[Measurement]


@dataclass
class BenchmarkResult:
    """What one benchmark found: comparisons, single facts with their unit in the name, and sentences of judgement."""

    what: str
    comparisons: list[Comparison] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    verdict: list[str] = field(default_factory=list)


def result_text(result: BenchmarkResult, machine: Mapping[str, Any]) -> str:
    """The whole outcome as text for a terminal."""
    parts = [machine_line(dict(machine))]
    for comparison in result.comparisons:
        parts += ["", comparison.title, text_table(comparison_table(comparison_record(comparison)))]
    if result.facts:
        parts.append("")
        parts += [f"{name:<44}  {_shown(value)}" for name, value in result.facts.items()]
    return "\n".join([*parts, "", *result.verdict])


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values: every round, and what is made of them."""
    first = comparison.sides[0]
    sides = []
    for side in comparison.sides:
        low, high = side.quartiles
        sides.append(
            {
                "name": side.name,
                "per_second": side.median_rate,
                "per_second_quartiles": [low, high],
                "milliseconds_each": 1000 / side.median_rate,
                "ratio_to_first": side.ratio_to(first),
                "ratio_quartiles": list(
                    quartiles([mine / theirs for mine, theirs in zip(side.rates, first.rates, strict=True)])
                ),
                "peak_gpu_bytes": side.peak_bytes,
                "units": side.units,
                "seconds": side.seconds,
                "wall_seconds": side.wall_seconds,
            }
        )
    return {"title": comparison.title, "unit": first.unit, "clock": first.clock, "sides": sides}


def comparison_table(record: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of text of one comparison's record."""
    with_memory = any(side["peak_gpu_bytes"] is not None for side in record["sides"])
    header = [f"{record['clock']} clock", f"{record['unit']}/s", "quartiles", "ms each", "x first", "its quartiles"]
    rows = [header + (["peak MB"] if with_memory else [])]
    for side in record["sides"]:
        low, high = side["per_second_quartiles"]
        ratio_low, ratio_high = side["ratio_quartiles"]
        row = [
            side["name"],
            f"{side['per_second']:.4g}",
            f"{low:.4g} - {high:.4g}",
            f"{side['milliseconds_each']:.4g}",
            f"{side['ratio_to_first']:.3f}",
            f"{ratio_low:.3f} - {ratio_high:.3f}",
        ]
        if with_memory:
            row.append("-" if side["peak_gpu_bytes"] is None else f"{side['peak_gpu_bytes'] / 2**20:.0f}")
        rows.append(row)
    return rows


def write_result(
    path: Path,
    result: BenchmarkResult,
    *,
    machine: Mapping[str, Any],
    settings: Mapping[str, Any],
    command: Sequence[str],
    date: str,
) -> None:
    """Write the outcome as JSON, whole or not at all; InputError where the file cannot be written."""
    record = {
        "format": _FORMAT,
        "what": result.what,
        "date": date,
        "command": shlex.join(command),
        "machine": machine,
        "settings": settings,
        "comparisons": [comparison_record(comparison) for comparison in result.comparisons],
        "facts": result.facts,
        "verdict": result.verdict,
    }
    write_whole(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """A text file, whole or not at all, its folder made; InputError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror or error}); give another file with out=...") from error


def summary_page(folder: Path) -> str:
    """Markdown with the newest outcome of each benchmark in ``folder``; its files are ``<date>_<what>[_<name>].json``.

    Files that differ in their name behind the date are different benchmarks. Raises InputError for a file that is not
    one of ours, and where there is none.
    """
    newest: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        newest[path.stem.partition("_")[2] or path.stem] = (path, _read(path))
    if not newest:
        raise InputError(f"{folder}: no results (<date>_<what>.json); write some with out={folder}/<date>_<what>.json")
    parts = [
        "# Benchmarks",
        "Both sides of a comparison take turns in one process; medians over the rounds, with quartiles. The `cpu` "
        "clock counts this process's processor time, which other work on the machine hardly changes; `wall` and `gpu` "
        "are what they say. Every round is in the JSON files. This page: `python src/benchmark.py what=summary`.",
    ]
    for path, record in newest.values():
        parts += [
            f"## {record['what']} ({record['date'][:10]})",
            f"`{record['command']}`",
            f"{machine_line(record['machine'])}. All rounds: [{path.name}]({path.name})",
        ]
        for comparison in record["comparisons"]:
            parts += [f"**{comparison['title']}**", markdown_table(comparison_table(comparison))]
        if record["facts"]:
            facts = [["fact", "value"], *([name, _shown(value)] for name, value in record["facts"].items())]
            parts.append(markdown_table(facts))
        parts += [f"- {sentence}" for sentence in record["verdict"]]
        picture = path.with_suffix(".svg")
        if picture.exists():
            parts.append(f"![{record['what']}]({picture.name})")
    return "\n\n".join(parts) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        written = record["format"]
        content = {name: record[name] for name in ("what", "date", "command", "machine", *_PARTS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no result of src/benchmark.py ({error}); remove it, or measure anew") from error
    if written != _FORMAT:
        raise InputError(f"{path}: format {written}, but this version reads {_FORMAT}; measure anew")
    return content


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
