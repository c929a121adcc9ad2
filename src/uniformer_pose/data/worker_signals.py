"""Data workers that outlive a signal to the whole group of processes, until the training has saved and lets them go.

A terminal sends Ctrl-C, and some schedulers SIGTERM, to every process of a job. Workers that obeyed would end the
training with an error before it has written its checkpoint.
"""

from __future__ import annotations

import os
import signal
import threading


def outlive_stop_signals() -> None:
    """Ignore SIGINT, SIGUSR1 and SIGTERM in this process, but for a SIGTERM from its parent, which ends it at once.

    To be called in a data worker's main thread before it starts threads of its own. A worker whose parent has died
    ends by itself: torch's workers look for that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS: no way to know who sent it
        return
    parent = os.getppid()
    # Blocked in all threads, it can be waited for in one: only so does Python tell who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait_for_parent() -> None:
        while True:
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
                os._exit(0)

    threading.Thread(target=wait_for_parent, daemon=True).start()
