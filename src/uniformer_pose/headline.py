"""The one number that stands for an evaluation: what checkpoints, schedules, early ends, sweeps and tables go by.

It is ``evaluation.monitor``, under the name by which it is logged; in configs ``${headline_of_data:}`` is that of the
data's own metric. Without torch, since configs are composed before it is imported.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def headline(metric: str) -> str:
    """The name of the number that a kind of metric is known for."""
    return "PCKh" if metric == "pckh" else "AP"


def monitored(monitor: str | None, metric: str) -> str:
    """``evaluation.monitor``, or where it is None what an evaluation with this kind of metric is known for."""
    return monitor or f"val/{headline(metric)}"


def headline_of_data(*, _root_: DictConfig) -> str | None:
    """As it is logged for a composed config's data, of several sets the first; None where a checkpoint has to tell."""
    data: Any = _root_.get("data") or {}
    sets = data.get("sets")
    metric = (next(iter(sets.values())) if sets else data).get("metric")
    return None if metric is None and data.get("_partial_") else monitored(None, metric or "coco")


OmegaConf.register_new_resolver("headline_of_data", headline_of_data, replace=True)
