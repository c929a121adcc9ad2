"""Pictures -> people, with a detection model of Hugging Face transformers: RT-DETR, D-FINE and what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import Image, PersonBoxes
from uniformer_pose.training.precision import find_device

_SCORE_FLOOR = 0.05


class TransformersDetector:
    """RGB uint8 pictures (H, W, 3) of any sizes -> the people in each: boxes of at least score 0.05.

    ``model``: a repository of the hub or a folder, with weights in safetensors format, whose config names a class
    ``person``; nothing in it is run. ``revision`` pins a commit of the repository. ``device``: None takes the GPU if
    there is one. Pictures go through the network one by one, so that none depends on the size of another.

    Raises InputError where transformers is missing, and for a model that cannot be had or used.
    """

    def __init__(self, model: str, *, revision: str | None = None, device: str | None = None) -> None:
        try:
            from transformers import AutoImageProcessor, AutoModelForObjectDetection
        except ImportError as error:
            raise InputError("detector=transformers needs it: pip install 'uniformer-pose[detector]'") from error
        self.device = find_device(device)
        safe = {"revision": revision or "main", "trust_remote_code": False}
        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(model, **safe)  # type: ignore[no-untyped-call]
            network, report = AutoModelForObjectDetection.from_pretrained(
                model, use_safetensors=True, output_loading_info=True, **safe
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(f"detector.model.model={model}: cannot be loaded ({said})") from error
        if report["missing_keys"]:
            some = ", ".join(sorted(report["missing_keys"])[:3])
            raise InputError(
                f"detector.model.model={model}: {len(report['missing_keys'])} weights are missing ({some})"
            )
        labels = [number for number, name in network.config.id2label.items() if name.lower() == "person"]
        if not labels:
            some = ", ".join(list(network.config.id2label.values())[:5])
            raise InputError(f"detector.model.model={model}: knows no class person, but {some} ...")
        self._person = int(labels[0])  # 0 or 1
        self._network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[PersonBoxes]:
        """The people of each picture, in the order of the pictures."""
        return [self._people(image) for image in images]

    def _people(self, image: Image) -> PersonBoxes:
        # A picture that is 3 pixels high may be taken for one with its channels first.
        inputs = self._processor(images=image, input_data_format="channels_last", return_tensors="pt").to(self.device)
        (found,) = self._processor.post_process_object_detection(
            self._network(**inputs), threshold=_SCORE_FLOOR, target_sizes=[image.shape[:2]]
        )
        people = found["labels"] == self._person
        return PersonBoxes.from_corners(found["boxes"][people], found["scores"][people])
