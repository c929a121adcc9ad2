import csv

import pytest

from uniformer_pose.training.csv_log import ContinuedCSVLogger, cut_log


def rows(file):
    with file.open(newline="") as stream:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]


def logger(folder):
    return ContinuedCSVLogger(str(folder), name="", version="csv")


def test_a_second_start_appends_to_what_the_first_one_logged(tmp_path):
    first = logger(tmp_path)
    first.log_metrics({"train/loss": 1.0}, step=0)
    first.save()
    second = logger(tmp_path)
    second.log_metrics({"train/loss": 0.5}, step=1)
    second.log_metrics({"val/AP": 0.25}, step=1)
    second.save()

    assert rows(tmp_path / "csv" / "metrics.csv") == [
        {"step": "0", "train/loss": "1.0"},
        {"step": "1", "train/loss": "0.5"},
        {"step": "1", "val/AP": "0.25"},
    ]


def test_rows_on_a_full_disk_are_kept_until_there_is_space_again(tmp_path, monkeypatch):
    log = logger(tmp_path)
    log.log_metrics({"train/loss": 1.0}, step=0)
    log.save()
    file = tmp_path / "csv" / "metrics.csv"
    whole = file.read_text()
    log.log_metrics({"train/loss": 0.5}, step=1)

    def half_a_row(writer, rows):
        writer.writer.writerow([1])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(csv.DictWriter, "writerows", half_a_row)
        with pytest.warns(UserWarning, match="kept in memory, and training goes on"):
            log.save()
    assert file.read_text() == whole

    log.save()
    assert [row["step"] for row in rows(file)] == ["0", "1"]


@pytest.mark.parametrize(
    ("pending", "left"), [(True, ["0", "1"]), (False, ["0", "1", "1"])], ids=["before evaluation", "after"]
)
def test_rows_that_will_be_written_again_and_half_rows_are_cut(tmp_path, pending, left):
    file = tmp_path / "metrics.csv"
    file.write_text("step,train/loss,val/AP\n0,1.0,\n1,0.5,\n1,,0.25\n2,0.4,\n3,0.")

    cut_log(file, last_step=1, evaluation_pending=pending)

    assert [row["step"] for row in rows(file)] == left
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_log_that_is_not_there_needs_no_cutting(tmp_path):
    cut_log(tmp_path / "metrics.csv", last_step=1, evaluation_pending=False)

    assert list(tmp_path.iterdir()) == []
