"""A checkpoint is rebuilt from itself alone, as data; one that is damaged or contradicts itself is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import assert_same, contents_of, refusal, saved, trained_model

from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import SavedModel, data_arguments, saved_record
from uniformer_pose.weights.loading import load_model

Contents = dict[str, Any]


def with_record(content: Contents, **entries: Any) -> Contents:
    return content | {"uniformer_pose": content["uniformer_pose"] | entries}


def without(content: Contents, name: str) -> Contents:
    record = {key: value for key, value in content["uniformer_pose"].items() if key != name}
    return content | {"uniformer_pose": record}


def other_network(content: Contents, **arguments: Any) -> Contents:
    return with_record(content, network=content["uniformer_pose"]["network"] | arguments)


def test_the_record_is_plain_data(tmp_path: Path) -> None:
    model = trained_model()
    model.versions["torch"] = torch.__version__  # a class of its own
    record = saved_record(model)
    assert json.loads(json.dumps(record)) == record
    assert torch.load(saved(contents_of(model), tmp_path), weights_only=True)["uniformer_pose"] == record


def model_or_refusal(path: Path) -> SavedModel | str:
    try:
        return load_model(path)[0]
    except InputError as error:
        return str(error)


def test_a_flipped_byte_anywhere_is_refused_in_one_line_or_does_no_harm(tmp_path: Path) -> None:
    model = trained_model()
    path = saved(contents_of(model), tmp_path)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randint(len(whole), (20,), generator=generator).tolist()
    directory = range(len(whole) - 1500, len(whole), 41)  # of the archive, and its end mark
    for position in [*anywhere, *directory, *range(0, 120, 7)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        found = model_or_refusal(path)
        if isinstance(found, str):
            assert "\n" not in found
        else:
            assert_same(found, model)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda content: [1, 2], "holds a list, not names and tensors"),
        (lambda content: {"state_dict": content["state_dict"]}, "multiples of head_dim=64"),
        (lambda content: content | {"uniformer_pose": "yes"}, "its 'uniformer_pose' entry is damaged"),
        (partial(with_record, codec={"_target_": "os.system", "command": "touch x"}), "entry is damaged"),
        (partial(with_record, format=2), "format 2, this version reads 1; update uniformer-pose"),
        (lambda content: without(content, "network"), "entry is damaged (KeyError: 'network')"),
        (partial(with_record, std=[1.0, 0.0, 1.0]), "std and box_padding must be above 0"),
        (partial(with_record, mean=[1.0, float("nan"), 1.0]), "three finite numbers"),
        (partial(other_network, head_dim=0), "entry is damaged"),
        (partial(other_network, depths=[1, 1, 3, 1]), "check that the file is whole"),
        (partial(other_network, num_keypoints=3), "check that the file is whole"),
    ],
)
def test_a_checkpoint_that_is_not_ours_or_contradicts_itself_is_refused(
    tmp_path: Path, spoil: Callable[[Contents], Any], expected: str
) -> None:
    assert expected in refusal(saved(spoil(contents_of(trained_model())), tmp_path), load_model)


@pytest.mark.parametrize(
    ("evil_data", "expected"),
    [
        ({"_target_": "os.system", "command": "touch {marker}"}, "command"),
        ({"root": {"_target_": "os.system"}}, "data.root is a mapping, not a value; give data.root=<value>"),
        ({"root": 5}, "data.root=5"),
    ],
)
def test_a_target_in_the_recorded_config_is_never_called(
    tmp_path: Path, evil_data: dict[str, Any], expected: str
) -> None:
    marker = tmp_path / "marker"
    model = trained_model()
    model.config["data"] |= {k: v.format(marker=marker) if isinstance(v, str) else v for k, v in evil_data.items()}
    loaded = load_model(saved(contents_of(model), tmp_path))[0]
    with pytest.raises(InputError, match=expected) as raised:
        data_arguments(loaded, {})
    assert "\n" not in str(raised.value)
    assert not marker.exists()


def test_an_evaluation_uses_the_data_of_the_training_with_the_models_own_preprocessing() -> None:
    model = trained_model()
    model.config["data"] |= {"codec": {"height": 64}, "mean": [0, 0, 0], "std": [1, 1, 1], "box_padding": 2.0}
    data = PersonCrops(**data_arguments(model, {}))
    assert (str(data.root), data.val_boxes, data.eval_batch_size) == ("people", "boxes.json", 7)
    assert data.skeleton == model.skeleton
    group = {"skeleton": "coco_17", "codec": {"height": 256}, "mean": [0, 0, 0], "std": [1, 1, 1], "box_padding": 2.0}
    for arguments in (data_arguments(model, {}), data_arguments(model, group)):
        own = [arguments[name] for name in ("codec", "mean", "std", "box_padding", "skeleton")]
        assert own == [model.codec, model.mean, model.std, model.box_padding, model.skeleton]


def test_of_the_trainings_data_limits_and_what_is_overridden_do_not_pass_into_an_evaluation() -> None:
    model = trained_model()
    limits = {"max_images": 4, "prepared": "shards", "on_bad_image": "skip"}
    whole_group = model.config["data"] | {"root": "coco", "codec": {"height": 256}}
    model.config["data"] = {**model.config["data"], **limits, "categories": ["dog"]}
    arguments = data_arguments(model, {})
    assert limits.keys().isdisjoint(arguments)
    assert arguments["categories"] == ["dog"]  # what the data are, not how much of them
    arguments = data_arguments(model, {"root": "elsewhere", "val_boxes": None, "num_workers": 0})
    assert (arguments["root"], arguments["val_boxes"], arguments["num_workers"]) == ("elsewhere", "boxes.json", 0)
    whole = data_arguments(model, {**whole_group, "max_images": 2, "categories": None})
    assert whole["max_images"] == 2
    assert "categories" not in whole
    model.config.clear()
    with pytest.raises(InputError, match="does not say what it was trained on; give data=<one of conf/data>"):
        data_arguments(model, {})
