"""Signals that ask a training to stop: noticed at once, obeyed where everything is in a state worth keeping."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

# A person (Ctrl-C), a scheduler that takes the machine back, and SLURM's warning ahead of that.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Notes that a signal came, and does nothing else: handlers run between any two instructions.

    ``received`` is its number, 0 before. Further ones change nothing, except that a second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._received_at = 0.0
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the place of the handlers that are there; outside the main thread, where Python forbids it, do nothing.

        A signal that the parent process had this one ignore (``nohup``, jobs in the background) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        self.received = 0
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        since = time.monotonic() - self._received_at
        if self.received and number == signal.SIGINT and since > 0.5:  # not the terminal's echo
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._received_at = number, time.monotonic()


def exit_status(number: int) -> int:
    """What the process returns after it stopped for a signal: 143 for schedulers, 130 for a person."""
    return 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
