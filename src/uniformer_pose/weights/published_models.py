"""The released files by name: address, digest, crop size, and the results that their publishers state.

The table is ``published_models.yaml``; the environment variable ``UNIFORMER_POSE_ZOO`` may name another file of that
form, for a mirror or for models of one's own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.nearest_name import did_you_mean

ZOO_VARIABLE = "UNIFORMER_POSE_ZOO"
RESULT_NAMES = ("AP", "AP50", "AP75", "AR", "AR50")

# What the name of a released file says: crop, size of the network, and the start of its sha256.
_FILE = re.compile(
    r"top_down_(?P<height>\d+)x(?P<width>\d+)_global_(?P<size>small|base)-(?P<sha256>[0-9a-f]{8})_\d{8}\.pth"
)


@dataclass(frozen=True)
class PublishedModel:
    """One released pose model. ``results`` are the publishers', in percent, under ``RESULT_NAMES``."""

    name: str
    file_name: str
    url: str
    sha256: str
    """Its leading hexadecimal digits."""
    network: str
    """``uniformer_s`` or ``uniformer_b``."""
    height: int
    width: int
    sigma: float
    results: dict[str, float]


@dataclass(frozen=True)
class PublishedBackbone:
    """One released ImageNet classifier, to start a training from; ``url`` is None where it is to be fetched by hand."""

    name: str
    file_name: str
    url: str | None
    network: str
    """The choice of ``model=`` whose backbone it fills."""
    head_dim: int


@dataclass(frozen=True)
class PublishedModels:
    """The table of released files, and how the crops of the pose models were made (RGB, 0 to 255)."""

    pose_models: dict[str, PublishedModel]
    backbones: dict[str, PublishedBackbone]
    results_on: str
    skeleton: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    box_padding: float

    def of_file(self, file_name: str, sha256: str) -> PublishedModel | PublishedBackbone | None:
        """The released file with these bytes, or else of this name; None for any other file."""
        known = [model for model in self.pose_models.values() if sha256.startswith(model.sha256)]
        if known:  # of copies under several names, the one of this name
            return next((model for model in known if model.file_name == file_name), known[0])
        for model in self.pose_models.values():
            # The original project released the same six files without a digest in their names.
            if file_name in (model.file_name, f"{model.file_name.partition('-')[0]}.pth"):
                return model
        return next((backbone for backbone in self.backbones.values() if backbone.file_name == file_name), None)

    def address_of(self, name: str) -> tuple[str, str | None]:
        """URL and leading digits of the sha256, if known; InputError for a name that is not in the table."""
        published = self.pose_models.get(name) or self.backbones.get(name)
        if published is None:
            raise InputError(f"zoo:{name}: no such model; {did_you_mean(name, [*self.pose_models, *self.backbones])}")
        if published.url is None:
            raise InputError(
                f"zoo:{name}: published for download by hand only (github.com/Sense-X/UniFormer); give the path of "
                f"{published.file_name}"
            )
        return published.url, published.sha256 if isinstance(published, PublishedModel) else None


def published_models(path: str | Path | None = None) -> PublishedModels:
    """The table of ``path``, of the file that ``UNIFORMER_POSE_ZOO`` names, or of the package."""
    own = Path(__file__).with_suffix(".yaml")
    return _read(Path(path or os.environ.get(ZOO_VARIABLE) or own).expanduser())


def published_file(name: str) -> tuple[str, str | None]:
    """URL and leading digits of the sha256 of a zoo name, such as ``uniformer_b_coco_384x288``."""
    return published_models().address_of(name)


@cache
def _read(path: Path) -> PublishedModels:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        pose = content["pose_models"]
        return PublishedModels(
            pose_models={name: _pose_model(name, pose["source"], entry) for name, entry in pose["files"].items()},
            backbones={
                name: PublishedBackbone(
                    name=name,
                    file_name=f"{name}.pth",
                    url=None if group["source"] is None else f"{group['source']}{name}.pth",
                    network=str(entry["network"]),
                    head_dim=int(entry["head_dim"]),
                )
                for group in content.get("backbones", [])
                for name, entry in group["files"].items()
            },
            results_on=str(pose["results_on"]),
            skeleton=str(pose["skeleton"]),
            mean=tuple(map(float, pose["mean"])),
            std=tuple(map(float, pose["std"])),
            box_padding=float(pose["box_padding"]),
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {ZOO_VARIABLE} names no such table") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not a table of released files ({type(error).__name__}: {reason}); take "
            f"{Path(__file__).with_suffix('.yaml').name} of the package for a pattern"
        ) from error


def _pose_model(name: str, source: str, entry: dict[str, Any]) -> PublishedModel:
    named = _FILE.fullmatch(entry["file"])
    if named is None:
        raise ValueError(f"the name of {entry['file']} does not say crop size, network and digest")
    return PublishedModel(
        name=name,
        file_name=entry["file"],
        url=source + entry["file"],
        sha256=named["sha256"],
        network={"small": "uniformer_s", "base": "uniformer_b"}[named["size"]],
        height=int(named["height"]),
        width=int(named["width"]),
        sigma=float(entry["sigma"]),
        results={result: float(entry["results"][result]) for result in RESULT_NAMES},
    )
