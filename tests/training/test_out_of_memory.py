import lightning.pytorch as pl
import pytest
import torch

from uniformer_pose.errors import RunFailedError
from uniformer_pose.training.out_of_memory import explained_out_of_memory, is_out_of_memory, memory_advice


class RunOut(pl.Callback):
    """Memory that ends in a training step or in an evaluation."""

    def __init__(self, error, evaluating):
        self.error, self.evaluating = error, evaluating

    def on_train_batch_start(self, *_):
        if not self.evaluating:
            raise self.error

    def on_validation_batch_start(self, *_):
        if self.evaluating:
            raise self.error


GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB")


def run_out_of_memory(tiny, error, *, evaluating):
    data = tiny.data()
    trainer = tiny.trainer(callbacks=[RunOut(error, evaluating)])
    with pytest.raises(RunFailedError) as raised, explained_out_of_memory(trainer, data):
        trainer.fit(tiny.module(), datamodule=data)
    return str(raised.value)


def test_a_gpu_without_memory_is_told_with_sizes_and_three_knobs(tiny):
    line = run_out_of_memory(tiny, GPU, evaluating=False)

    assert line.startswith("the GPU's memory ran out (2.50 GiB more were asked for) while training on 2 crops of 64x64")
    for knob in ("data.batch_size=1 trainer.accumulate_grad_batches=2", "model.checkpointed_blocks=", "precision=bf16"):
        assert knob in line
    assert "\n" not in line


def test_an_evaluation_without_memory_has_knobs_of_its_own(tiny):
    line = run_out_of_memory(tiny, MemoryError(), evaluating=True)

    assert line.startswith("the machine's memory ran out while evaluating 3 crops of 64x64")
    assert "data.eval_batch_size" in line


def test_what_torch_raises_for_a_processor_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)

    assert is_out_of_memory(raised.value)
    line = memory_advice(
        str(raised.value),
        where="machine",
        evaluating=False,
        batch_size=8,
        accumulated=1,
        eval_batch_size=8,
        height=256,
        width=192,
        precision="32-true",
    )
    assert line.startswith("the machine's memory ran out (4611686018427387904 bytes more were asked for)")


def test_other_errors_pass(tiny):
    with pytest.raises(RuntimeError, match="shapes do not match"), explained_out_of_memory(tiny.trainer(), tiny.data()):
        raise RuntimeError("shapes do not match")
