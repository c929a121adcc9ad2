"""Runs trainings in processes of their own, and kills or stops them: killed_trainings.py <folder> <trials> [joint].

One process imports everything and forks: a trial costs its training, not the libraries. ``trials`` is a JSON list of
mappings: ``signal``, ``to`` (a rank, or "all"), ``moment`` (a share of the undisturbed training's time) and settings of
``resumable_training.train``. Prints one JSON line a trial: ``differences`` to the training that was left alone,
``statuses`` and ``seconds`` of the processes after the signal, and ``damaged``, what is said of files it left. With
``joint`` they are on the three sets of ``joint_setup``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from joint_setup import joint_setup, write_sets
from resumable_training import PEOPLE_PER_IMAGE, differences, train
from tiny_setup import TinySetup, tiny_setup

from uniformer_pose.training.resume.start import newest_whole_checkpoint

LIMIT_SECONDS = 120.0


def start(tiny: TinySetup, folder: Path, settings: dict[str, Any]) -> list[int]:
    """The processes of one training."""
    processes = settings.get("processes", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with (folder / f"output_{rank}.txt").open("a") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                if processes > 1:  # as torchrun sets them
                    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                    os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                train(tiny, folder, **settings)
                status = 0
            except SystemExit as left:
                status = int(left.code or 0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return children


def wait(children: list[int], limit: float = LIMIT_SECONDS) -> list[int]:
    """Exit statuses, negative for a signal; -1000 for a process that did not end in time."""
    deadline, statuses = time.monotonic() + limit, []
    for child in children:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                statuses.append(os.waitstatus_to_exitcode(status))
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                statuses.append(-1000)
                break
            time.sleep(0.005)
    return statuses


def until(path: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def main() -> None:
    folder, trials = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    (folder / "people").mkdir(parents=True)
    if "joint" in sys.argv[3:]:
        write_sets(folder / "people")
        tiny: TinySetup = joint_setup(folder / "people")
    else:
        tiny = tiny_setup(folder / "people")
        tiny.write_people(PEOPLE_PER_IMAGE)
    undisturbed: dict[str, tuple[Path, float]] = {}
    for number, trial in enumerate(trials):
        name, to, moment = trial.pop("signal"), trial.pop("to", "all"), trial.pop("moment")
        key = json.dumps(trial, sort_keys=True)
        if key not in undisturbed:
            straight = folder / f"straight_{len(undisturbed)}"
            straight.mkdir()
            children = start(tiny, straight, trial)
            until(straight / "journal_0.jsonl")
            begun = time.monotonic()
            if any(wait(children)):
                sys.exit((straight / "output_0.txt").read_text())
            undisturbed[key] = straight, time.monotonic() - begun
        straight, seconds = undisturbed[key]

        run = folder / f"trial_{number}"
        run.mkdir()
        children = start(tiny, run, trial)
        until(run / "journal_0.jsonl")
        time.sleep(moment * seconds)
        struck = time.monotonic()
        for rank, child in enumerate(children):
            if to in ("all", rank):
                os.kill(child, getattr(signal, name))
        statuses = wait(children, 30.0)
        outcome = {"trial": number, "statuses": statuses, "seconds": round(time.monotonic() - struck, 2)}
        with warnings.catch_warnings(record=True) as damaged:
            newest_whole_checkpoint(run / "checkpoints")
        outcome["damaged"] = [str(warning.message) for warning in damaged]
        resumed = wait(start(tiny, run, trial))
        processes = trial.get("processes", 1)
        outcome["differences"] = (
            differences(run, straight, processes=processes) if not any(resumed) else [f"resumed: {resumed}"]
        )
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
