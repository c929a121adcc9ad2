import os
import signal
import subprocess
import time

from uniformer_pose.data.worker_signals import outlive_stop_signals


def test_a_worker_outlives_everybodys_signals_but_not_its_parents():
    ready, told = os.pipe()
    worker = os.fork()
    if worker == 0:
        outlive_stop_signals()
        os.write(told, b"x")
        time.sleep(60)
        os._exit(1)
    os.read(ready, 1)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        subprocess.run(["kill", f"-{int(number)}", str(worker)], check=True)
    time.sleep(0.2)
    assert os.waitpid(worker, os.WNOHANG) == (0, 0)

    os.kill(worker, signal.SIGTERM)

    assert os.waitpid(worker, 0) == (worker, 0)
