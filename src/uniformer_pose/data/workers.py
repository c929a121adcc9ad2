"""A DataLoader's worker processes: how many, and what each does first."""

from __future__ import annotations

import gc
import os
import signal
import threading

import cv2
from torch.utils.data import get_worker_info

_MOST_WORKERS = 16


def workers_for(processes: int, *, on_gpu: bool) -> int:
    """How many workers each of ``processes`` on this machine gets: at least 1, at most 16.

    Beside a GPU: its share of the cores, less one for the process itself, which feeds the GPU. Without one the network
    computes on the cores, and a quarter of them keeps it busy. Neither order nor pixels depend on it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // processes
    return max(1, min(_MOST_WORKERS, share - 1 if on_gpu else share // 4))


def prepare_worker(_worker_id: int) -> None:
    """One thread, a quiet garbage collection, and deaf to what ends the whole job. A ``worker_init_fn``.

    What the worker has inherited is taken out of its garbage collection: a full one, which may come after an hour,
    writes into every inherited object and so copies 40 MB and more that were shared with the main process.
    """
    cv2.setNumThreads(0)  # the workers are the parallelism
    if get_worker_info() is not None:
        gc.freeze()
        outlive_stop_signals()


def outlive_stop_signals() -> None:
    """Ignore SIGINT, SIGUSR1 and SIGTERM in this process, but for a SIGTERM from its parent, which ends it at once.

    A terminal sends Ctrl-C, and some schedulers SIGTERM, to every process of a job: workers that obeyed would end the
    training with an error before it has written its checkpoint. To be called in a worker's main thread before it starts
    threads of its own. A worker whose parent has died ends by itself: torch's workers look for that.
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
