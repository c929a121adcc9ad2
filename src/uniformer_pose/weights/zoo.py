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

import yaml
from pydantic import TypeAdapter

from uniformer_pose.errors import InputError, one_line
from uniformer_pose.nearest_name import did_you_mean

ZOO_VARIABLE = "UNIFORMER_POSE_ZOO"

# <name>-<8 digits>_<date>.pth as MMPose writes it, or <name>-<8 or more>.pth as PyTorch does, with a letter in it.
_DIGEST_IN_NAME = re.compile(r"-(?:([0-9a-f]{8})_\d{8}\.pth|((?=\d*[a-f])[0-9a-f]{8,64})\.\w+)$")


@dataclass(frozen=True)
class Released:
    """One released file: a pose model, or an ImageNet classifier to start a training from.

    ``url`` is None where it is to be fetched by hand, ``network`` the choice of ``model=`` that it fills. Only a pose
    model has a crop size, ``sigma`` and the publishers' ``results``, in percent.
    """

    name: str
    network: str
    url: str | None = None
    head_dim: int = 64
    height: int = 0
    width: int = 0
    sigma: float = 0.0
    results: dict[str, float] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """What the file is called where it is published."""
        return f"{self.name}.pth" if self.url is None else self.url.rpartition("/")[2]

    @property
    def sha256(self) -> str | None:
        """The digest's leading digits, if known."""
        return digest_in_name(self.file_name)


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
        models = (*self.pose_models.values(), *self.backbones.values())
        for model in models:
            # The original project released the six pose models without a digest in their names.
            if file_name in (model.file_name, f"{model.file_name.partition('-')[0]}.pth"):
                return model
        return next((model for model in models if model.sha256 and sha256.startswith(model.sha256)), None)


def digest_in_name(name: str) -> str | None:
    """What stands in a file's name where publishers put the start of its sha256; anything else may stand there too."""
    found = _DIGEST_IN_NAME.search(name)
    return None if found is None else found[1] or found[2]


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
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in ("pose_models", "backbones"):
            table[group] = {name: {**entry, "name": name} for name, entry in table[group].items()}
        return TypeAdapter(Zoo).validate_python(table)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not a table of released files ({one_line(error)}); take zoo.yaml of the package for a pattern"
        ) from error
