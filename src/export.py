"""Writes a trained model for other programs: checkpoint -> safetensors, MMPose's layout or the original's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import ExportData
from uniformer_pose.entry_point import checked_config, report_input_errors, run, trained_model
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count


@dataclass
class ExportConfig:
    """The keys of conf/export.yaml."""

    ckpt_path: str
    format: Literal["safetensors", "mmpose", "original"]
    output: str | None
    overwrite: bool
    keypoints: str | None
    push_to_hub: str | None
    data: ExportData
    head_dim: Count | None
    model_class: str | None


@hydra.main(version_base="1.3", config_path="../conf", config_name="export")
def main(config: DictConfig) -> None:
    """Check the config before any work, then export."""
    with report_input_errors():
        export(checked_config(config, ExportConfig))


def export(config: dict[str, Any]) -> None:
    """Write the file that a checked, plain config asks for."""
    # Imported here because a misspelt key should not have to wait for torch.
    from uniformer_pose.weights.export import save_pretrained, write_released_layout
    from uniformer_pose.weights.fetch import DEFAULT_FILE
    from uniformer_pose.weights.hub import push_to_hub

    model, report = trained_model(config)
    print(report)
    source, chosen = Path(config["ckpt_path"]).expanduser(), config["format"]
    beside = source if source.is_file() else Path(report.path.name)
    if chosen == "safetensors":
        folder = Path(config["output"] or beside.with_name(f"{beside.stem}_safetensors"))
        _require_free(folder / DEFAULT_FILE, overwrite=config["overwrite"])
        written = save_pretrained(model, folder)
    else:
        written = Path(config["output"] or beside.with_name(f"{beside.stem}_{chosen}.pth"))
        _require_free(written, overwrite=config["overwrite"])
        write_released_layout(model, written, chosen)
    print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB)")
    if config["push_to_hub"] is not None:
        print(f"uploaded {push_to_hub(model, config['push_to_hub'])}")


def _require_free(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; give output=<another path>, or overwrite=true to replace it")


if __name__ == "__main__":
    run(main)
