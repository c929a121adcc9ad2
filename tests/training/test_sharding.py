import subprocess
import sys
from pathlib import Path

import pytest
import torch


def state_of(path):
    """All tensors of a checkpoint that a training continues from, by name."""
    checkpoint = torch.load(path, weights_only=True)
    moments = checkpoint["optimizer_states"][0]["state"]
    weights = dict(checkpoint["state_dict"])
    return weights | {f"{key}.{name}": value for key, values in moments.items() for name, value in values.items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name].cpu(), second[name].cpu()) for name in first)


@pytest.mark.slow
def test_a_training_goes_from_one_process_to_two_that_share_the_model_and_back_without_losing_a_bit(tiny):
    def on_one_process(epochs, source, saved):
        trainer = tiny.trainer(max_epochs=epochs, limit_val_batches=0)
        trainer.fit(tiny.module(warmup_steps=0), datamodule=tiny.data(), ckpt_path=source, weights_only=True)
        trainer.save_checkpoint(tiny.folder / saved)
        return state_of(tiny.folder / saved)

    alone = on_one_process(1, None, "alone.ckpt")
    script = Path(__file__).with_name("sharded_training.py")
    files = [str(tiny.folder / name) for name in ("alone.ckpt", "sharded.ckpt", "trained_on.ckpt")]
    arguments = [script, tiny.folder, *files]
    finished = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    sharded, trained_on = state_of(files[1]), state_of(files[2])

    assert same(sharded, alone)
    assert not same(trained_on, sharded)
    assert all(tensor.isfinite().all() for tensor in trained_on.values())
    assert same(on_one_process(2, files[2], "back.ckpt"), trained_on)
