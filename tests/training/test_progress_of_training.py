import re
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from uniformer_pose.training import progress
from uniformer_pose.training.progress import Bars, LineProgress, progress_callback


def lines_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if re.match("epoch|evaluation", line)]


def test_a_log_file_gets_a_line_at_the_end_of_each_epoch_and_evaluation(tiny, capsys):
    tiny.trainer(max_epochs=2, callbacks=[LineProgress()]).fit(tiny.module(), datamodule=tiny.data())

    lines = lines_of(capsys)
    number = r"-?\d\S*"
    patterns = [
        rf"epoch 1/2  batch 3/3  \d+ s, done  train/loss={number}  train/pck={number}",
        rf"evaluation  \d+ s, done  train/loss={number}  train/pck={number}  val/AP={number}",
        rf"epoch 2/2  batch 3/3  \d+ s, done  train/loss={number}  train/pck={number}  val/AP={number}",
        rf"evaluation  \d+ s, done  train/loss={number}  train/pck={number}  val/AP={number}",
    ]
    assert len(lines) == 4
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_lines_come_every_so_many_seconds_and_say_what_is_left(tiny, capsys, monkeypatch):
    ticks = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))

    tiny.trainer(callbacks=[LineProgress(seconds=0)]).fit(tiny.module(), datamodule=tiny.data(eval_batch_size=2))

    lines = lines_of(capsys)
    assert [line.split("  ")[1] for line in lines[:5]] == [
        "batch 1/3",
        "batch 2/3",
        "batch 3/3",
        "batch 1/3",
        "batch 2/3",
    ]
    seconds, left = map(int, re.search(r"(\d+) s, (\d+) s left", lines[0]).groups())
    assert left == 2 * seconds
    seconds, left = map(int, re.search(r"(\d+) s, (\d+) s left", lines[1]).groups())
    assert left == seconds // 2
    assert "s, done" in lines[2]
    assert re.match(r"evaluation  \d+ s, done", lines[-1])


def test_an_epoch_resumed_half_way_counts_the_time_since_then(tiny, capsys):
    every_step = ModelCheckpoint(tiny.folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    tiny.trainer(callbacks=[every_step], limit_val_batches=0).fit(tiny.module(), datamodule=tiny.data())
    capsys.readouterr()

    trainer = tiny.trainer(callbacks=[LineProgress(seconds=0)], limit_val_batches=0)
    trainer.fit(tiny.module(), datamodule=tiny.data(), ckpt_path=tiny.folder / "step=1.ckpt", weights_only=True)

    lines = lines_of(capsys)
    assert [re.search(r"batch \S+", line).group() for line in lines] == ["batch 2/3", "batch 3/3"]
    for line in lines:
        assert int(re.search(r"(\d+) s,", line).group(1)) < 60


@pytest.mark.parametrize("is_first", [True, False])
def test_only_the_first_process_prints(is_first, capsys):
    lines = LineProgress()
    lines.setup(SimpleNamespace(is_global_zero=is_first), None, "fit")

    lines.on_validation_start()
    lines.get_metrics = lambda trainer, module: {"val/AP": 0.5, "v_num": "x"}
    lines.on_validation_end(None, None)

    expected = "evaluation  0 s, done  val/AP=0.5\n" if is_first else ""
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("is_terminal", "kind"), [(True, Bars), (False, LineProgress)])
def test_bars_are_for_terminals(monkeypatch, is_terminal, kind):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: is_terminal))

    assert isinstance(progress_callback(), kind)
