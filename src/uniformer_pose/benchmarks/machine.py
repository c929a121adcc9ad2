"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from uniformer_pose.run_record import git_revision, library_versions


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Processor, cores, memory, load, GPU, driver's version, libraries and revision of the code, as plain values.

    ``load``: how many processes the machine ran on average in the last minute; well below 1 it was free for us.
    No name of the machine or of its user is among them.
    """
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "code": git_revision(),
        "versions": library_versions(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = properties.name
        facts["gpu_memory_gigabytes"] = round(properties.total_memory / 2**30, 1)
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return facts


def machine_line(facts: dict[str, Any]) -> str:
    """The facts that matter, on one line."""
    versions = facts["versions"]
    gpu = f"{facts['gpu']} ({facts['gpu_memory_gigabytes']} GB), CUDA {versions['cuda']}; " if "gpu" in facts else ""
    return (
        f"{gpu}{facts['processor']}, {facts['cores']} cores, {facts['memory_gigabytes']} GB, load {facts['load']}, "
        f"{facts['torch_threads']} torch threads; Python {versions['python']}, torch {versions['torch']}, OpenCV "
        f"{versions['opencv-python-headless']}, Lightning {versions['lightning']}; code {facts['code'][:12]}"
    )


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
