"""timm's weights of a classifier -> tensors of a ``TimmPoseNetwork``'s backbone, all of them or a sentence why not.

timm itself puts a file into its classifier, since it alone knows each model's older names, and resizes tables of
positions to another image size. The file is read here before, so that nothing in it is run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.model.timm_network import WRONG_FOR_TIMM, TimmPoseNetwork, size_arguments
from uniformer_pose.weights.fetch import DEFAULT_FILE
from uniformer_pose.weights.layouts import NamedWeights, named_weights, shortened

BY_TAG = "timm"
"""What ``model.pretrained`` says for the weights of the backbone's tag, from the Hugging Face hub."""


def address_of_tag(network: TimmPoseNetwork) -> str:
    """Where the weights of the backbone's tag lie on the hub; InputError where there are none."""
    import timm

    backbone = network.arguments["backbone"]
    published = timm.get_pretrained_cfg(backbone)
    if published.hf_hub_id is None:
        others = shortened(timm.list_pretrained(f"{backbone.partition('.')[0]}.*"))
        raise InputError(f"timm has no weights of {backbone} on the hub; of this model it has {others}")
    return f"hf://{published.hf_hub_id}/{published.hf_hub_filename or DEFAULT_FILE}"


def require_same_normalization(network: TimmPoseNetwork, mean: Sequence[float], std: Sequence[float]) -> str:
    """InputError unless images are normalised (RGB, 0 to 255) as the tag's classifier had them; else a remark."""
    import timm

    backbone = network.arguments["backbone"]
    published = timm.get_pretrained_cfg(backbone)
    wanted = [[round(255 * x, 4) for x in numbers] for numbers in (published.mean, published.std)]
    if torch.allclose(torch.tensor(wanted), torch.tensor([[*mean], [*std]]), rtol=1e-3):
        return "images normalised as there"
    stated, needed = ([str([*numbers]).replace(" ", "") for numbers in pair] for pair in ((mean, std), wanted))
    raise InputError(
        f"{backbone} was trained on images of another mean and std than data.mean={stated[0]} data.std={stated[1]}; "
        f"give 'data.mean={needed[0]}' 'data.std={needed[1]}'"
    )


def classifier_weights(network: TimmPoseNetwork, contents: Mapping[str, Any]) -> NamedWeights:
    """The backbone's tensors out of a classifier's file, resized to the network's crops where they depend on them.

    Raises InputError where timm cannot put the file into its classifier, or where it fills a part of it only.
    """
    import timm

    file = named_weights(contents, has_record=False, as_they_are=True)
    backbone = network.arguments["backbone"]
    size = size_arguments(backbone, network.arguments["crop_height"], network.arguments["crop_width"])
    try:
        with torch.random.fork_rng(devices=[]), _names_left_random() as random:
            classifier = timm.create_model(
                backbone, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(file.tensors)}, **size
            )
    except WRONG_FOR_TIMM as error:
        raise InputError(f"no weights that timm can put into {backbone} for these crops ({one_line(error)})") from error
    tensors, wanted = classifier.state_dict(), network.backbone.state_dict()
    resized = [name for name, tensor in file.tensors.items() if name in wanted and tensor.shape != tensors[name].shape]
    remarks = [*file.remarks, *([f"{len(resized)} resized by timm ({shortened(resized)})"] if resized else [])]
    filled = {f"backbone.{name}": tensor for name, tensor in tensors.items() if name not in random}
    own = [f"backbone.{name}" for name in tensors if name not in wanted]
    return NamedWeights("timm classifier", filled, own, tuple(remarks))


@contextmanager
def _names_left_random() -> Iterator[list[str]]:
    """Names of what timm does not find in a file: for some models it goes on, and only its log says so."""
    names: list[str] = []

    class _Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if found := re.match(r"Missing keys \((.*)\)", record.getMessage()):
                names.extend(found[1].split(", "))

    logger, listener = logging.getLogger("timm.models._builder"), _Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield names
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
