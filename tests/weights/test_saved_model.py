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
from uniformer_pose.saved_model import SavedModel, arguments_by_set, data_arguments, saved_record
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


def jointly_trained() -> SavedModel:
    model = trained_model()
    one = {
        "root": "a",
        "train_annotations": "t.json",
        "train_images": "i",
        "val_annotations": "v.json",
        "val_images": "i",
    }
    other = one | {"root": "b", "skeleton": "crowdpose_14", "metric": "crowd_levels", "max_images": 3}
    model.config["data"] = {
        "_target_": "uniformer_pose.data.joint.JointCrops",
        **{"eval_batch_size": 7, "batch_size": 4, "on_bad_image": "skip", "skeleton": None, "sampling": "size"},
        "sets": {"coco": one, "crowd": other | {"stages": None, "geometric": None}},
    }
    return model


def test_a_model_of_several_sets_is_evaluated_on_each_in_the_sets_own_points() -> None:
    model = jointly_trained()
    found = arguments_by_set(model, {"num_workers": 0, "sets": {"crowd": {"root": "c"}}})
    assert [(name, each["root"], each["name"]) for name, each in found.items()] == [
        ("coco", "a", "coco"),
        ("crowd", "c", "crowd"),
    ]
    assert found["coco"]["skeleton"] is model.skeleton
    crowd = PersonCrops(**found["crowd"])
    assert (crowd.own_skeleton.name, crowd.skeleton, crowd.metric) == ("crowdpose_14", model.skeleton, "crowd_levels")
    assert (crowd.eval_batch_size, crowd.num_workers, crowd.on_bad_image, crowd.max_images) == (7, 0, "error", None)
    assert crowd.scored_places == [*range(5, 17)]


def test_what_is_chosen_as_a_whole_takes_the_place_of_the_trainings_sets() -> None:
    model = jointly_trained()
    single = model.config["data"]["sets"]["coco"] | {
        "val_boxes": "gt",
        "root": "d",
        "codec": {"height": 256},
        "skeleton": "aic_14",
    }
    ((name, arguments),) = arguments_by_set(model, single).items()
    assert (name, arguments["root"], arguments["skeleton"].name) == ("", "d", "aic_14")
    of_two = {"codec": {"height": 256}, "sampling": "size", "skeleton": "union", "eval_batch_size": 3}
    joint = arguments_by_set(trained_model(), of_two | {"sets": model.config["data"]["sets"]})
    assert [each["eval_batch_size"] for each in joint.values()] == [3, 3]
    assert joint["crowd"]["max_images"] == 3  # asked for here


def test_a_set_without_a_split_for_training_is_evaluated_on_and_one_of_other_figures_is_refused() -> None:
    model, files = trained_model(), {"root": "d", "train_images": "i", "val_annotations": "v", "val_images": "i"}
    whole = files | {"codec": {"height": 256}, "train_annotations": None, "val_boxes": "gt"}
    assert PersonCrops(**data_arguments(model, whole)).train_annotations is None
    animals = PersonCrops(**data_arguments(model, whole | {"skeleton": "ap10k_17"}))
    with pytest.raises(InputError, match=r"'ap10k_17' and .* \(animal and person\) have no keypoint in common"):
        _ = animals.places


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"root": "x"}, r"data\.root: there are several sets; give data\.sets\.<set>\.root, of coco, crowd"),
        ({"sets": {"aic": {"root": "x"}}}, r"data\.sets\.aic: the model was not trained on it"),
        (
            {"sets": {"crowd": {"colour": 3}}},
            r"^crowd: .*data\.sets\.crowd\.colour=3: no such argument of uniformer_pose\.data\.datamodule",
        ),
    ],
)
def test_a_setting_that_is_for_no_set_is_refused(overrides: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        arguments_by_set(jointly_trained(), overrides)


@pytest.mark.parametrize("sets", [["coco"], {"../x": {"root": "a"}}, {"a": "b"}, "coco", 3])
def test_sets_that_are_none_in_the_recorded_config_are_refused(sets: object) -> None:
    model = jointly_trained()
    model.config["data"]["sets"] = sets
    with pytest.raises(InputError, match="what the checkpoint says of its sets cannot be used"):
        arguments_by_set(model, {})
