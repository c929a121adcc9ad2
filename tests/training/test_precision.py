import pytest
import torch

from uniformer_pose.training.precision import lightning_precision


@pytest.mark.parametrize(("name", "expected"), [("fp32", "32-true"), ("bf16", "bf16-mixed"), ("fp16", "16-mixed")])
def test_a_named_precision_is_used_on_any_device(name, expected):
    assert lightning_precision(name, "cpu") == lightning_precision(name, "gpu") == expected


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bf16_on_a_gpu_that_computes_in_it(monkeypatch, accelerator, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)

    assert lightning_precision("auto", accelerator) == expected
