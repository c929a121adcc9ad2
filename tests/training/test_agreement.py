import threading
from types import SimpleNamespace

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.training.agreement import CheckpointOfFirstProcess


class Strategy:
    """Two processes, of which the first has this word."""

    def __init__(self, word):
        self.word, self.mine = word, None

    def broadcast(self, mine):
        self.mine = mine
        return self.word

    def reduce_boolean_decision(self, seen, **_how):
        return seen


class Connector:
    def __init__(self):
        self.started = []

    def resume_start(self, path=None, weights_only=None):
        self.started.append((path, weights_only))


def on_second_process(word, chosen=None, **settings):
    """What the second process of two reads, first where Lightning continues, then at an evaluation of best.ckpt."""
    connector = Connector()
    trainer = SimpleNamespace(
        world_size=2, is_global_zero=False, strategy=Strategy(word), _checkpoint_connector=connector
    )
    CheckpointOfFirstProcess(chosen, **settings).setup(trainer, None, "fit")
    connector.resume_start(chosen, weights_only=None)
    connector.resume_start("best.ckpt", weights_only=True)
    return connector.started


def test_the_second_process_reads_what_the_first_one_chose_whatever_it_would_have_found(tmp_path):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"whole")
    for own in (None, tmp_path / "periodic.ckpt"):
        assert on_second_process((file, 5), own) == [(file, True), ("best.ckpt", True)]
    assert on_second_process((None, 0), file) == [(None, True), ("best.ckpt", True)]


def test_a_file_that_a_shared_disk_shows_late_is_waited_for(tmp_path):
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"who")
    late = threading.Timer(0.3, file.write_bytes, [b"whole"])
    late.start()
    assert on_second_process((file, 5), seconds=30.0)[0] == (file, True)
    late.join()


@pytest.mark.parametrize("there", [None, b"who"])
def test_a_file_that_stays_away_ends_all_processes(tmp_path, there):
    file = tmp_path / "last.ckpt"
    if there:
        file.write_bytes(there)
    with pytest.raises(InputError, match=r"last\.ckpt.*disk that all of them share"):
        on_second_process((file, 5), seconds=0.0)
