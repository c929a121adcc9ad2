"""One training on two hosts: network namespaces, each with a torchrun of its own and a cable between them.

Where the machine does not permit namespaces, the two are on one loopback interface, and only the cable is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TRAIN = Path(__file__).resolve().parents[2] / "src" / "train.py"
PORT = 29711


@dataclass
class Host:
    """Where a process is started, and how it is reached."""

    prefix: list[str]
    address: str
    interface: str


@pytest.fixture
def two_hosts() -> Iterator[list[Host]]:
    """Two hosts that reach each other."""
    names = [f"pose{os.getpid()}h{number}" for number in range(2)]
    ends = [f"p{os.getpid()}v{number}" for number in range(2)]
    commands = [f"netns add {name}" for name in names]
    commands.append(f"link add {ends[0]} type veth peer name {ends[1]}")
    for number, (name, end) in enumerate(zip(names, ends, strict=True)):
        commands += [
            f"link set {end} netns {name}",
            f"-n {name} addr add 10.79.0.{number + 1}/24 dev {end}",
            f"-n {name} link set {end} up",
            f"-n {name} link set lo up",
        ]
    permitted = shutil.which("ip") is not None and all(
        subprocess.run(["ip", *command.split()], capture_output=True, check=False).returncode == 0
        for command in commands
    )
    try:
        if permitted:
            yield [
                Host(["ip", "netns", "exec", name], f"10.79.0.{number + 1}", end)
                for number, (name, end) in enumerate(zip(names, ends, strict=True))
            ]
        else:
            yield [Host([], "127.0.0.1", "lo"), Host([], "127.0.0.1", "lo")]
    finally:
        for name in names if shutil.which("ip") else []:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start(host: Host, first: Host, arguments: Sequence[str], folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A torchrun on one host, whose output goes to a file of this name."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=1"]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:{PORT}", f"--local-addr={host.address}"]
    meeting += [f"--rdzv-conf=is_host={int(host is first)},join_timeout=120", "--monitor-interval=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": host.interface}
    # Else a restart finds the addresses of the processes before it, where one is faster than the other (torch 2.15).
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*host.prefix, *launcher, *meeting, str(TRAIN), *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def training_process_below(torchrun: subprocess.Popen[bytes]) -> int:
    """The process that a torchrun started."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    return int(children[0])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the training's process in Linux's /proc")
def test_a_killed_process_on_one_of_two_hosts_restarts_both_from_the_last_checkpoint(
    two_hosts: list[Host], tiny_run: list[str], synthetic_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "hosts" / "together"
    arguments = [
        *(argument for argument in tiny_run if not argument.startswith("trainer=")),
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.num_nodes=2",
        "trainer.strategy.timeout.minutes=1",
        "trainer.max_epochs=12",
        "trainer.check_val_every_n_epoch=12",
        "data.batch_size=2",
        "callbacks.resume_checkpoints.every_n_steps=3",
        f"data.root={synthetic_root}",
        "name=hosts",
        "run_id=together",
        "resume=auto",
    ]
    running = [start(host, two_hosts[0], arguments, tmp_path, f"host_{n}") for n, host in enumerate(two_hosts)]
    try:
        deadline = time.monotonic() + 200
        while not (run / "checkpoints" / "periodic.ckpt").exists():
            assert time.monotonic() < deadline, (tmp_path / "host_0.log").read_text()
            assert all(process.poll() is None for process in running), (tmp_path / "host_0.log").read_text()
            time.sleep(0.1)
        os.kill(training_process_below(running[1]), signal.SIGKILL)
        statuses = [process.wait(timeout=200) for process in running]
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    log = (tmp_path / "host_0.log").read_text()
    assert statuses == [0, 0], log
    assert "resuming from" in log
    assert (run / "metrics.json").is_file()
    assert [folder.name for folder in (tmp_path / "runs" / "hosts").iterdir()] == ["together"]
