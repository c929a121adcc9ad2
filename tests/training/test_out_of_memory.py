import pytest
import torch

from uniformer_pose.errors import RunFailedError
from uniformer_pose.training.out_of_memory import explained_out_of_memory


def for_a_processor():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)
    return raised.value


@pytest.mark.parametrize("where", ["GPU", "machine", "machine as torch says it"])
def test_memory_that_ran_out_is_one_line_with_what_to_turn(where):
    errors = {"GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"), "machine": MemoryError()}
    with pytest.raises(RunFailedError) as raised, explained_out_of_memory():
        raise errors.get(where) or for_a_processor()

    line = str(raised.value)
    assert line.startswith(f"the {where.partition(' ')[0]}'s memory")
    for knob in ("data.batch_size", "trainer.accumulate_grad_batches", "data.eval_batch_size", "precision=bf16"):
        assert knob in line
    assert "\n" not in line


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes do not match"), explained_out_of_memory():
        raise RuntimeError("shapes do not match")
