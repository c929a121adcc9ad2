"""The command line: what it prints, its exit status, and that it leaves nothing but the dataset."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "src" / "make_synthetic.py"
SMALL = ("num_train_images=10", "num_val_images=2", "image_height=64", "image_width=64", "workers=0")


def run(folder, *overrides):
    command = [sys.executable, str(SCRIPT), "root=people", *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_it_writes_once_says_so_and_refuses_other_settings_with_status_2(tmp_path):
    first = run(tmp_path, *SMALL)
    assert (first.returncode, first.stderr) == (0, "")
    assert "12/12 images" in first.stdout
    assert "wrote 12 images to people" in first.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["people"]
    assert "nothing to do" in run(tmp_path, *SMALL).stdout
    refused = run(tmp_path, *SMALL, "seed=3")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: root=people holds a synthetic dataset with other settings (seed)")
    assert refused.stderr.count("\n") == 1
