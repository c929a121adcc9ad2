"""Sides of a comparison take turns in one process, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from uniformer_pose.entry_point import CONF, one_of_each
from uniformer_pose.saved_model import SavedModel
from uniformer_pose.weights.start import starting_network

Work = Callable[[], int]
"""Does one round and returns how many crops, poses or images that were."""


def take_turns(sides: dict[str, Work], unit: str, *, rounds: int, warmup: int = 1, wall: bool = False) -> None:
    """Time every side ``rounds`` times, every other round backwards, and print medians and quartiles a second.

    The clock is this process's processor time, which others hardly change; ``wall`` where other processes or a GPU work
    for a side. The last column compares with the first side, round by round.
    """
    clock = time.perf_counter if wall else time.process_time
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warmup, rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            start = clock()
            done = sides[name]()
            if number >= 0:
                rates[name].append(done / (clock() - start))
        if sys.stderr.isatty():
            print(f"\rround {number + 1}/{rounds}", end="", file=sys.stderr, flush=True)
    first = next(iter(rates.values()))
    print(f"\n{unit + ' a second':44} {'median':>9} {'quartiles':>19} {'ms each':>9} {'x first':>8}")
    for name, values in rates.items():
        low, median, high = quartiles(values)
        ratio = statistics.median(mine / other for mine, other in zip(values, first, strict=True))
        print(f"{name:44} {median:9.4g} {f'{low:.4g} - {high:.4g}':>19} {1000 / median:9.4g} {ratio:8.3f}")


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The first quarter, the median and the third quarter of some values; of a single one, itself."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def training_config(overrides: list[str]) -> DictConfig:
    """The config that ``src/train.py`` would compose for these overrides."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", [*overrides, "++run_dir=runs/benchmark"])
    OmegaConf.resolve(config)
    torch.manual_seed(config.seed)
    return config


def data_module(config: DictConfig, **changes: Any) -> Any:
    """The data module of the config, not yet set up."""
    make = hydra.utils.instantiate(config.data, _partial_=True, _convert_="all")
    return make(seed=config.seed, **one_of_each(config.augmentation or {}), **changes)


def random_model(config: DictConfig, data: Any) -> SavedModel:
    """The network of the config with random weights, and what goes with it."""
    model, head = {**config.model, "pretrained": None}, hydra.utils.instantiate(config.head)
    network, other, _ = starting_network(model, data.skeleton, data.codec, head=head)
    return SavedModel(network, data.codec, data.skeleton, data.mean, data.std, data.box_padding, {}, {}, other)
