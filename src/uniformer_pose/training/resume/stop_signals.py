"""Signals that ask a training to stop: noticed at once, obeyed where everything is in a state worth keeping."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any


class StopSignals:
    """Notes that a signal came, and does nothing else: handlers run between any two instructions.

    The signals are a person's Ctrl-C, a scheduler's that takes the machine back, and SLURM's warning ahead of that.
    ``received`` is the number of the first, 0 before; later ones change nothing, except that a second Ctrl-C interrupts
    at once.
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
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._received_at > 0.5:  # not the terminal's echo
            raise KeyboardInterrupt
