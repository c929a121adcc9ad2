"""torch.compile of a training step: one graph for the shapes of the first batch, or the plain step after a warning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn

from uniformer_pose.errors import one_line

CompileStep = Literal["auto"] | bool
"""``auto`` is true on CUDA."""


class CompiledStep:
    """A function compiled whole (``fullgraph``) at its first call, which takes a minute or two.

    Its kernels are kept (``TORCHINDUCTOR_CACHE_DIR``), so that a resumed run need not compile them again. What cannot
    be compiled is computed as it stands.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._plain = function
        self._step: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives for these arguments."""
        if self._step is self._plain:
            return self._plain(*arguments)
        try:
            return self._step(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:  # before anything was computed
            rank_zero_warn(
                f"the training step cannot be compiled ({one_line(error)}); the training goes on without, slower; "
                "training.compile_step=false does not try"
            )
            self._step = self._plain
            return self._plain(*arguments)


def compiled_where_asked(function: Callable[..., Any], choice: CompileStep, device: torch.device) -> Callable[..., Any]:
    """The function, compiled if ``choice`` asks for it on this device."""
    wanted = device.type == "cuda" if choice == "auto" else choice
    return CompiledStep(function) if wanted else function
