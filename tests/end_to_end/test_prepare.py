"""``src/prepare.py``: from a data config to a folder that a training reads."""

import shutil

import pytest


@pytest.mark.slow
def test_a_prepared_dataset_trains_like_its_files_and_goes_stale_with_them(
    run_script, tiny_run, synthetic_root, tmp_path
):
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    prepare = ["data=synthetic_128x96", f"data.root={root}", "workers=2"]
    first = run_script("prepare.py", prepare, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "12 of 12 images" in first.stdout
    assert f"data.prepared={root}/prepared" in first.stdout

    (root / "images" / "train").rename(root / "images" / "elsewhere")
    train = [*tiny_run, f"data.root={root}", f"data.prepared={root}/prepared"]
    trained = run_script("train.py", train, tmp_path)
    assert trained.returncode == 0, trained.stderr

    (root / "images" / "elsewhere").rename(root / "images" / "train")
    image = min((root / "images" / "train").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    stale = run_script("train.py", train, tmp_path)
    assert stale.returncode == 2
    assert "has changed since it was prepared; run python src/prepare.py" in stale.stderr
    assert len(stale.stderr.strip().splitlines()) == 1


def test_what_cannot_be_prepared_is_told_in_one_line(run_program, tmp_path):
    for arguments, sentence in (
        ([], "data is required"),
        (["data=coco_256x192", "data.root=nowhere"], "put COCO 2017 there"),
        (["data=coco_256x192", "wrokers=3"], "workers"),
    ):
        result = run_program("prepare.py", arguments, tmp_path)
        assert result.returncode == 2
        assert sentence in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
