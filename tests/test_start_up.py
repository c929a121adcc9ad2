"""What the programs that train and evaluate do not import, and that it can be imported all the same."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from uniformer_pose.start_up import _TAKEN_ALONG, import_training_libraries

import_training_libraries()
import uniformer_pose.data.datamodule
import uniformer_pose.training.pictures
import uniformer_pose.training.resume.resume_checkpoints
import uniformer_pose.training.trainer

print([name for name in (*_TAKEN_ALONG, "pandas", "sklearn", "albumentations") if name in sys.modules])
import scipy.signal, wandb
import uniformer_pose.training.loggers
"""


def test_training_imports_no_plots_signals_or_language_models_and_they_are_there_for_who_wants_them() -> None:
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "[]\n"
