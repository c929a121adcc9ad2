"""Training on three sets at once: who loads the data, on how many processes, and stops amid it change nothing."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from joint_setup import SKELETONS, joint_setup, write_sets
from resumable_training import EPOCHS, StopAt, differences, journal, require_two_processes_to_be_as_one, train

from uniformer_pose.skeleton import load_skeleton

BATCHES = 5  # of two people, in an epoch


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roots of three sets."""
    folder = tmp_path_factory.mktemp("sets")
    write_sets(folder)
    return folder


@pytest.fixture(scope="module")
def straight(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing disturbed, and no worker helped."""
    folder = tmp_path_factory.mktemp("straight")
    train(joint_setup(rendered), folder)
    return folder


def test_an_epoch_is_of_everybody_and_two_workers_change_nothing(
    rendered: Path, straight: Path, tmp_path: Path
) -> None:
    seen = journal(straight)
    assert len(seen) == BATCHES * EPOCHS
    for epoch in range(EPOCHS):
        assert sorted(chain.from_iterable(seen[epoch, batch][0] for batch in range(BATCHES))) == [*range(2 * BATCHES)]

    train(joint_setup(rendered), tmp_path, workers=2)
    assert differences(tmp_path, straight) == []


@pytest.mark.parametrize("step", [BATCHES + 2, pytest.param(2 * BATCHES - 1, marks=pytest.mark.slow)])
def test_stopped_and_resumed_is_bit_for_bit_the_training_that_was_not(
    rendered: Path, straight: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(SystemExit):
        train(joint_setup(rendered), tmp_path, StopAt(step))
    train(joint_setup(rendered), tmp_path, workers=2)
    assert differences(tmp_path, straight) == []


@pytest.mark.slow
def test_so_is_one_of_balanced_sets_whose_order_goes_over_the_ends_of_epochs(rendered: Path, tmp_path: Path) -> None:
    balanced = joint_setup(rendered, sampling="balanced")
    train(balanced, tmp_path / "straight")
    with pytest.raises(SystemExit):
        train(balanced, tmp_path / "run", StopAt(8), workers=2)
    train(balanced, tmp_path / "run")
    assert differences(tmp_path / "run", tmp_path / "straight") == []
    people = [person for batch, _ in journal(tmp_path / "straight").values() for person in batch]
    visits = [sum(first <= person < last for person in people) for first, last in ((0, 4), (4, 7), (7, 10))]
    assert visits == [4 * EPOCHS] * 3


def test_keypoints_that_the_model_does_not_have_or_nobody_labelled_may_be_anywhere(
    rendered: Path, tmp_path: Path
) -> None:
    """CrowdPose's head and neck in a model of COCO's points, and the elbows of every other person."""
    weights = []
    for by in (0.0, 17.0):
        folder = tmp_path / str(by)
        write_moved(rendered, folder, by)
        train(joint_setup(folder), folder / "run", epochs=1)
        weights.append(torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


def write_moved(rendered: Path, folder: Path, by: float) -> None:
    """The three sets, where some keypoints to train on are not labelled, and those that teach nothing lie elsewhere."""
    taught = load_skeleton("coco_17").keypoint_names
    for name in SKELETONS:
        (folder / name / "annotations").mkdir(parents=True)
        for kept in ("images", "person_detection_results"):
            (folder / name / kept).symlink_to(rendered / name / kept)
        for file in (rendered / name / "annotations").iterdir():
            (folder / name / "annotations" / file.name).write_bytes(file.read_bytes())
        file = folder / name / "annotations" / "person_keypoints_train.json"
        content = json.loads(file.read_text())
        for person in content["annotations"]:
            for place, keypoint in enumerate(load_skeleton(SKELETONS[name]).keypoint_names):
                x, y, seen = person["keypoints"][3 * place : 3 * place + 3]
                seen = 0 if "elbow" in keypoint and person["id"] % 2 else seen
                moves = seen == 0 or keypoint not in taught
                person["keypoints"][3 * place : 3 * place + 3] = [x + by * moves, y + by * moves, seen]
        file.write_text(json.dumps(content))


def test_a_visibility_head_learns_of_a_set_what_it_could_have_labelled(rendered: Path, tmp_path: Path) -> None:
    setup = joint_setup(rendered)
    data = setup.data()
    data.setup("fit")
    asked = {"coco": 17, "crowdpose": 12, "mpii": 12}
    for batch in data.train_dataloader():
        for person, in_set in zip(batch["instance_index"].tolist(), batch["in_set"], strict=True):
            of_set = data.describe_person(person).partition(":")[0]
            assert in_set.sum() == asked[of_set]
            assert in_set[5:].all()
    head = {"head": {"visibility": True}}
    trainer = setup.trainer(limit_val_batches=0)
    module = setup.module(model=setup.model(**head))
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.slow
def test_two_processes_read_what_one_reads_and_stop_and_resume_alike(tmp_path: Path) -> None:
    """The three sets in the launcher's script, which leaves the folders of its undisturbed trainings."""
    trials = [
        {"signal": "SIGTERM", "to": 1, "moment": 0.6, "processes": 2, "workers": 2},
        {"signal": "SIGKILL", "moment": 0.6, "every_n_steps": 2},
    ]
    require_two_processes_to_be_as_one(tmp_path / "runs", trials, "joint", batches=BATCHES)
