import time

import pytest
import torch

from uniformer_pose.evaluation import timing
from uniformer_pose.evaluation.timing import Stopwatch


def test_parts_of_one_name_add_up_and_the_total_is_the_time_since_the_start():
    watch = Stopwatch()
    for _ in range(2):
        with watch.part("network"):
            time.sleep(0.02)
    with watch.part("decoding"):
        pass
    seconds = watch.seconds()
    assert list(seconds) == ["network", "decoding", "total"]
    assert 0.04 <= seconds["network"] <= seconds["total"]
    assert seconds["decoding"] < 0.02


def test_the_wait_for_each_batch_counts_as_loading_and_the_step_does_not():
    watch = Stopwatch()
    time.sleep(0.02)
    watch.batch_arrived()
    time.sleep(0.2)
    watch.loop_waits()
    time.sleep(0.02)
    watch.batch_arrived()
    assert 0.04 <= watch.seconds()["loading"] < 0.2


class FakeEvent:
    """An event of a GPU whose clock goes on by 1.5 s with every event."""

    clock = 0.0

    def __init__(self):
        FakeEvent.clock += 1500
        self.time, self.waited = FakeEvent.clock, False

    def synchronize(self):
        self.waited = True

    def elapsed_time(self, other):
        return other.time - self.time


class FakeStream:
    events: list

    def __init__(self):
        self.events = []

    def record_event(self, event):
        self.events.append(event)
        return event


def test_work_on_a_gpu_is_timed_by_its_own_events_and_waited_for_only_at_the_end(monkeypatch):
    stream = FakeStream()
    monkeypatch.setattr(timing, "_timing_event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    watch = Stopwatch()
    for name in ("network", "decoding", "network"):
        with watch.part(name, torch.device("cuda")):
            pass
    assert [event.waited for event in stream.events] == [False] * 6
    seconds = watch.seconds()
    assert (seconds["network"], seconds["decoding"]) == (3.0, 1.5)
    assert [event.waited for event in stream.events] == [False] * 5 + [True]
    assert watch.seconds()["network"] == 3.0  # asking again adds nothing


@pytest.mark.gpu
def test_a_kernel_is_timed_by_the_time_it_runs_and_not_by_the_time_it_takes_to_queue_it():
    device = torch.device("cuda")
    matrix = torch.randn(8192, 8192, device=device)
    torch.cuda.synchronize()
    watch = Stopwatch()
    with watch.part("network", device):
        start = time.perf_counter()
        for _ in range(20):
            matrix = matrix @ matrix
        queued = time.perf_counter() - start
    seconds = watch.seconds()
    assert queued < seconds["network"] <= seconds["total"]
