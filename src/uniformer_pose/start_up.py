"""A program's first seconds: Lightning and timm without what they import only because it happens to be installed."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError
from typing import Any

# torchmetrics imports the first three for metrics that nothing here uses, and timm the last: 1,600 of the 5,000 modules
# and 3 of the 9 seconds of a processor until the first step of a training.
_TAKEN_ALONG = ("matplotlib", "scipy", "transformers", "wandb")


def import_training_libraries() -> None:
    """Import Lightning (and torchmetrics with it) and timm as if ``_TAKEN_ALONG`` were not installed.

    Whoever imports one of these later gets it. For programs only: torchmetrics goes on believing that they are absent,
    so in somebody's notebook its own plots would be refused.
    """
    if "lightning" in sys.modules:
        return
    imports: Any = importlib.import_module("lightning_utilities.core.imports")
    hidden = [name for name in _TAKEN_ALONG if name not in sys.modules]
    version = imports._version  # by which torchmetrics decides; it asks for no setting

    def version_of_others(name: str) -> str:
        if name in hidden:
            raise PackageNotFoundError(name)
        return str(version(name))

    imports._version = version_of_others
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks what cannot be found
    try:
        importlib.import_module("lightning.pytorch")
        importlib.import_module("timm")
    finally:
        imports._version = version
        for name in hidden:
            sys.modules.pop(name, None)
