"""How well a network knows which keypoints are labelled and which are visible (``head.visibility``).

Judged on the people who were found: they pair up with poses as in ``error_types``, down to an OKS of 0.1, whatever
boxes the poses were looked for in. Calibration is the expected calibration error of Naeini, Cooper and Hauskrecht,
"Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, in ten bins of equal width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from uniformer_pose.evaluation.error_types import ErrorTypes
from uniformer_pose.evaluation.predictions import PosePredictions

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Judgement = Mapping[str, Any]

_NUMBERS = ("accuracy", "roc_auc", "roc_auc_of_same", "calibration_error")
_BINS = 10


def judge_visibility(found: ErrorTypes) -> dict[str, Judgement]:
    """``judge`` over the keypoints of people who were found: ``labelled`` (v > 0), and of those ``visible`` (v = 2)."""
    matched = found.poses >= 0
    visibility = found.predictions.visibility
    if visibility is None:
        raise ValueError("these predictions say nothing of visibility")
    probabilities = visibility[found.poses[matched]]
    v = found.ground_truth.visibility[found.people[matched]]
    everywhere = np.ones(v.shape, dtype=bool)
    return {
        "labelled": judge(probabilities[..., 0], v > 0, everywhere),
        "visible": judge(probabilities[..., 1], v == 2, v > 0),
    }


def judge(probabilities: Array, is_true: BoolArray, asked: BoolArray) -> dict[str, Any]:
    """How well probabilities (P, K) tell what is true, of the keypoints that are asked for.

    ``keypoints`` how many those are, ``share`` how many of them are true, ``accuracy`` at 0.5, ``calibration_error``,
    ``bins``, and ``roc_auc``: the share of pairs, one true and one not, of which the true one is given more; equal ones
    count half. ``roc_auc_of_same``, of pairs of the same keypoint alone, is 0.5 for who knows no more than how often
    each keypoint is true. NaN is what has no meaning: everything of no keypoints, and what compares, of no pairs.
    """
    given, truths = probabilities[asked], is_true[asked]
    of_each = [_ordered_pairs(p[w], t[w]) for p, t, w in zip(probabilities.T, is_true.T, asked.T, strict=True)]
    ordered, pairs = np.array([_ordered_pairs(given, truths), np.sum(of_each, axis=0)]).T
    place = np.minimum((given * _BINS).astype(np.int64), _BINS - 1)
    counts, promised, true = (np.bincount(place, weights, _BINS) for weights in (None, given, truths))
    right, off = ((given >= 0.5) == truths).sum(), np.abs(promised - true).sum()
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        (share, accuracy, error), roc_aucs = np.array([truths.sum(), right, off]) / len(given), ordered / pairs
        columns = (np.arange(_BINS) / _BINS, counts, promised / counts, true / counts)
    names = ("from", "keypoints", "mean_probability", "share")
    bins = [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]
    numbers = dict(zip(_NUMBERS, map(float, (accuracy, *roc_aucs, error)), strict=True))
    return {"keypoints": len(given), "share": float(share), **numbers, "bins": bins}


def _ordered_pairs(given: Array, truths: BoolArray) -> tuple[float, int]:
    """Of pairs, one true and one not: of how many the true one is given more, equal ones as half; and how many."""
    true, false = int(truths.sum()), int((~truths).sum())
    _, place, counts = np.unique(given, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of equals, their mean
    return float(ranks[place[truths]].sum() - true * (true + 1) / 2), true * false


def visibility_metrics(judged: Mapping[str, Judgement]) -> dict[str, float]:
    """The numbers by the names under which they are logged, such as ``visibility_labelled_roc_auc``."""
    return {f"visibility_{question}_{name}": of[name] for question, of in judged.items() for name in _NUMBERS}


def rescored(predictions: PosePredictions) -> PosePredictions:
    """The same poses, each keypoint's score times the probability that it is labelled: OKS skips those that are not."""
    if predictions.visibility is None:
        raise ValueError("these predictions say nothing of visibility")
    return replace(predictions, keypoint_scores=predictions.keypoint_scores * predictions.visibility[..., 0])


def visibility_table(judged: Mapping[str, Judgement]) -> list[list[str]]:
    """Header and rows of text, one for each question; a dash for what has no meaning."""
    rows = [
        [question, str(of["keypoints"]), *(_number(of[name]) for name in ("share", *_NUMBERS))]
        for question, of in judged.items()
    ]
    return [["visibility", "keypoints", "share", "accuracy", "ROC-AUC", "of same", "calibration error"], *rows]


def reliability_table(judged: Mapping[str, Judgement]) -> list[list[str]]:
    """Header and rows of text, one for each tenth of probability: what was promised, and how many were so."""
    header = [f"{question}{column}" for question in judged for column in (": keypoints", " predicted", " true")]
    rows = []
    for number, bins in enumerate(zip(*(of["bins"] for of in judged.values()), strict=True)):
        cells = [(str(b["keypoints"]), _number(b["mean_probability"]), _number(b["share"])) for b in bins]
        rows.append([f"{number / _BINS:.1f} to {(number + 1) / _BINS:.1f}", *(text for cell in cells for text in cell)])
    return [["probability", *header], *rows]


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
