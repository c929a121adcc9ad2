"""Weights, gradients and moments spread over the processes (torch's FSDP2), saved as if they were not."""

from __future__ import annotations

from datetime import timedelta

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


class ShardedStrategy(ModelParallelStrategy):
    """All processes share one copy of the model; each sees other people, as with DDP.

    A checkpoint is one file with whole tensors, so it continues on any number of processes, and on one without
    sharding. ``timeout``: what a process waits for the others before it ends with an error. Works on GPUs, and on
    processors, where it saves nothing but can be tested; torch's first FSDP, Lightning's ``FSDPStrategy``, does not.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=10)) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        """Take all processes; Lightning would keep those of one machine for splitting tensors."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a network over a one-dimensional mesh, block by block, so that one block at a time is gathered whole."""
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
