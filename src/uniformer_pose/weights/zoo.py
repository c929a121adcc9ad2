"""The released files by name: address, digest, crop size, and the results that their publishers state.

The table is ``zoo.yaml``; the environment variable ``UNIFORMER_POSE_ZOO`` may name another file of that form, for a
mirror or for models of one's own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.nearest_name import did_you_mean

ZOO_VARIABLE = "UNIFORMER_POSE_ZOO"

# What the name of a released pose model says: crop, size of the network, and the start of its sha256.
_FILE = re.compile(
    r"top_down_(?P<height>\d+)x(?P<width>\d+)_global_(?P<network>small|base)-(?P<sha256>[0-9a-f]{8})_\d{8}\.pth"
)
_NETWORKS = {"small": "uniformer_s", "base": "uniformer_b"}


@dataclass(frozen=True)
class Released:
    """One released file: a pose model, or an ImageNet classifier to start a training from.

    ``url`` is None where it is to be fetched by hand, ``network`` the choice of ``model=`` that it fills, ``sha256``
    the digest's leading digits. Only a pose model has a crop size, ``sigma`` and the publishers' ``results``, in
    percent.
    """

    name: str
    file_name: str
    url: str | None
    network: str
    head_dim: int = 64
    sha256: str | None = None
    height: int = 0
    width: int = 0
    sigma: float = 0.0
    results: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Zoo:
    """The table, and how the crops of its pose models were made (RGB, 0 to 255)."""

    pose_models: dict[str, Released]
    backbones: dict[str, Released]
    results_on: str
    skeleton: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    box_padding: float

    def of_file(self, file_name: str, sha256: str) -> Released | None:
        """The released file of this name, or else with these bytes; None for any other file."""
        for model in (*self.pose_models.values(), *self.backbones.values()):
            # The original project released the six pose models without a digest in their names.
            if file_name in (model.file_name, f"{model.file_name.partition('-')[0]}.pth"):
                return model
        return next((model for model in self.pose_models.values() if sha256.startswith(str(model.sha256))), None)


def read_zoo(path: str | Path | None = None) -> Zoo:
    """The table of ``path``, of the file that ``UNIFORMER_POSE_ZOO`` names, or of the package."""
    return _read(Path(path or os.environ.get(ZOO_VARIABLE) or Path(__file__).with_suffix(".yaml")).expanduser())


def released_address(name: str) -> tuple[str, str | None]:
    """URL and leading digits of the sha256, if known, of a name such as ``uniformer_b_coco_384x288``."""
    zoo = read_zoo()
    models = zoo.pose_models | zoo.backbones
    if name not in models:
        raise InputError(f"zoo:{name}: no such model; {did_you_mean(name, models)}")
    url = models[name].url
    if url is None:
        raise InputError(
            f"zoo:{name}: published for download by hand only (github.com/Sense-X/UniFormer); give the path of "
            f"{models[name].file_name}"
        )
    return url, models[name].sha256


@cache
def _read(path: Path) -> Zoo:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        pose = content["pose_models"]
        backbones = [_released(group) for group in content.get("backbones", [])]
        table = {
            **pose,
            "pose_models": _released(pose),
            "backbones": {k: v for group in backbones for k, v in group.items()},
        }
        return TypeAdapter(Zoo).validate_python(table)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {ZOO_VARIABLE} names no such table") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not a table of released files ({one_line(error)}); take zoo.yaml of the package for a pattern"
        ) from error


def _released(group: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Fields of ``Released`` by name: what the table says of a group's files, and what their names do."""
    released = {}
    for name, entry in group["files"].items():
        file_name, source = entry.get("file", f"{name}.pth"), group["source"]
        said = _FILE.fullmatch(file_name)
        by_name = {} if said is None else {**said.groupdict(), "network": _NETWORKS[said["network"]]}
        url = None if source is None else f"{source}{file_name}"
        released[name] = {**entry, **by_name, "name": name, "file_name": file_name, "url": url}
    return released
