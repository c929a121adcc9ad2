"""Fixtures of the whole test suite."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import uniformer_pose  # noqa: F401 - before any test imports torch: it says how long torch's threads spin
from uniformer_pose.skeleton import load_skeleton
from uniformer_pose.synthetic import write_synthetic_dataset

# Beside other test processes, a process with a thread per core spends its time waiting for its own threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

# Whoever starts the tests in the background hands down an ignored Ctrl-C, which what is tested would rightly respect.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REFERENCE = Path(__file__).parent / "reference"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """The committed reference numbers; `tests/reference/README.md` says what each file is."""
    return REFERENCE


@pytest.fixture(scope="session")
def rendered_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four committed pictures with eight rendered people, in the folders and under the names of COCO 2017."""
    root = tmp_path_factory.mktemp("rendered_coco")
    content = (REFERENCE / "rendered_people" / "annotations.json").read_text()
    detections = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": 0.9}
        for person in json.loads(content)["annotations"]
    ]
    for split in ("train2017", "val2017"):
        (root / split).symlink_to(REFERENCE / "rendered_people")
        for name, text in {
            f"annotations/person_keypoints_{split}.json": content,
            f"person_detection_results/COCO_{split}_detections_AP_H_56_person.json": json.dumps(detections),
        }.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)
    return root


@pytest.fixture(scope="session")
def rendered_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Skeleton -> root of twelve rendered images for training, six for validation, in the form of its published set."""
    folder = tmp_path_factory.mktemp("rendered_sets")
    sizes: dict[str, Any] = {"num_train_images": 12, "num_val_images": 6, "image_height": 96, "image_width": 128}

    def root(skeleton: str) -> Path:
        write_synthetic_dataset(folder / skeleton, skeleton=load_skeleton(skeleton), crowd_share=0.3, **sizes)
        return folder / skeleton  # rendered by whoever is first

    return root


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """A folder beside the checkout with photographs of COCO, which are not ours to commit."""
    return SHARED


@pytest.fixture(params=["rendered", pytest.param("photographs", marks=pytest.mark.shared)])
def numbers_folder(request: pytest.FixtureRequest) -> Path:
    """Reference numbers of the same names and kinds, on rendered people and on photographs of COCO."""
    return REFERENCE if request.param == "rendered" else SHARED / "reference"


@pytest.fixture
def pictures_folder(numbers_folder: Path) -> Path:
    """The pictures that the numbers are for."""
    return REFERENCE / "rendered_people" if numbers_folder == REFERENCE else SHARED / "coco_mini" / "train2017"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_folder" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("shared") and not SHARED.is_dir():
        pytest.skip("needs ../shared, see tests/reference/README.md")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = [report for report in terminalreporter.stats.get("skipped", []) if "shared" in report.keywords]
    if left_out:
        terminalreporter.write_line(f"{len(left_out)} tests left out without ../shared, see tests/reference/README.md")


@pytest.fixture(autouse=True)
def lightnings_log_level() -> Iterator[None]:
    """Entry points that run in this process make Lightning quieter, or louder, than the next test expects."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    yield
    logger.setLevel(before)
