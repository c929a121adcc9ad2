"""Settings compared over seeds: a training's score moves by some tenths of a point with the seed alone.

Runs of the same seed start from the same weights and see the same order, so that settings are compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit  # type: ignore[import-untyped]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class SettingScore:
    """The scores of one setting over its seeds: ``n`` of them, ``mean`` and sample standard deviation ``sd``.

    ``difference``: the mean, over the ``pairs`` seeds that both have, of this setting's score less the first one's;
    ``low`` to ``high`` is its interval of 95 % by Student's t, as if differences were normal. NaN where there are too
    few.
    """

    n: int
    mean: float
    sd: float
    pairs: int = 0
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan


def compare_settings(scores: Mapping[str, Mapping[str, float]]) -> dict[str, SettingScore]:
    """One row per setting that has scores, from its scores by seed; the others are compared with the first."""
    known = {setting: by_seed for setting, by_seed in scores.items() if by_seed}
    first = next(iter(scores.values()), {})
    return {setting: _setting_score(by_seed, {} if by_seed is first else first) for setting, by_seed in known.items()}


def _setting_score(by_seed: Mapping[str, float], first: Mapping[str, float]) -> SettingScore:
    values = [*by_seed.values()]
    differences = [score - first[seed] for seed, score in by_seed.items() if seed in first]
    mean = fmean(differences) if differences else math.nan
    margin = math.nan
    if len(differences) > 1:
        quantile = float(stdtrit(len(differences) - 1, (1 + CONFIDENCE) / 2))
        margin = quantile * stdev(differences) / math.sqrt(len(differences))
    sd = stdev(values) if len(values) > 1 else math.nan
    return SettingScore(len(values), fmean(values), sd, len(differences), mean, mean - margin, mean + margin)
