import os
import signal
import threading

import pytest

from uniformer_pose.training.agreement import Agreement
from uniformer_pose.training.stop_signals import StopSignals, exit_status


@pytest.fixture
def signals():
    listening = StopSignals()
    listening.listen()
    yield listening
    listening.restore()


def test_the_first_signal_counts_and_further_ones_change_nothing(signals):
    assert signals.received == 0
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == signal.SIGUSR1
    assert 0 <= signals.seconds_since() < 10


def test_a_second_ctrl_c_interrupts_at_once_but_the_terminals_echo_of_the_first_does_not(signals, monkeypatch):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(signals, "seconds_since", lambda: 1.0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_earlier_handlers_come_back_and_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        interrupt = signal.getsignal(signal.SIGINT)
        signals = StopSignals()
        signals.listen()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is not interrupt
        signals.restore()
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_outside_the_main_thread_nothing_is_changed():
    before, signals = signal.getsignal(signal.SIGTERM), StopSignals()
    thread = threading.Thread(target=lambda: (signals.listen(), signals.restore()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_schedulers_get_143_and_persons_130():
    assert [exit_status(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == [143, 143, 130]


def test_a_single_process_agrees_with_itself_at_once():
    agreement = Agreement()
    agreement.start(world_size=1)
    assert agreement.exchange(3) == 3
    assert agreement.smallest(4) == 4
