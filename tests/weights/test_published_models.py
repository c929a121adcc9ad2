"""The table of released files says where each is, what it needs, and what its publishers measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.weights.published_models import (
    RESULT_NAMES,
    ZOO_VARIABLE,
    PublishedBackbone,
    PublishedModel,
    published_file,
    published_models,
)

CONF = Path(__file__).parents[2] / "conf"


def test_all_six_models_are_there_with_five_results_each() -> None:
    models = published_models().pose_models
    sizes = {(model.network[-1], model.height, model.width) for model in models.values()}
    assert sizes == {(size, *hw) for size in "sb" for hw in ((256, 192), (384, 288), (448, 320))}
    for name, model in models.items():
        assert name == f"{model.network}_coco_{model.height}x{model.width}"
        assert tuple(model.results) == RESULT_NAMES
        assert model.url.endswith(f"/{model.file_name}")
        assert len(model.sha256) == 8


def test_a_zoo_name_gives_address_and_digest() -> None:
    url, sha256 = published_file("uniformer_b_coco_384x288")
    assert url.startswith("https://")
    assert url.endswith("/top_down_384x288_global_base-c650da38_20230724.pth")
    assert sha256 == "c650da38"


def test_a_backbone_that_cannot_be_fetched_is_asked_for_as_a_file() -> None:
    assert published_file("uniformer_small_in1k")[1] is None
    with pytest.raises(InputError, match=r"download by hand only .*; give the path of uniformer_small_tl_224.pth"):
        published_file("uniformer_small_tl_224")


def test_an_unknown_zoo_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"uniformer_b_coco_384x388: no such model; did you mean uniformer_b_coco"):
        published_file("uniformer_b_coco_384x388")


def test_a_released_file_is_known_by_its_bytes_whatever_it_is_called() -> None:
    found = published_models().of_file("weights.pth", "a05c185f" + 56 * "0")
    assert isinstance(found, PublishedModel)
    assert found.name == "uniformer_b_coco_448x320"


@pytest.mark.parametrize(
    "file_name", ["top_down_256x192_global_small-d4a7fdac_20230724.pth", "top_down_256x192_global_small.pth"]
)
def test_a_released_file_is_known_by_its_name(file_name: str) -> None:
    found = published_models().of_file(file_name, 64 * "0")
    assert isinstance(found, PublishedModel)
    assert found.name == "uniformer_s_coco_256x192"


@pytest.mark.parametrize(
    "file_name",
    ["weights.pth", "top_down_256x192_global_small-00000000_20230724.pth", "top_down_256x192_global_large.pth"],
)
def test_any_other_file_is_not_known(file_name: str) -> None:
    assert published_models().of_file(file_name, 64 * "0") is None


@pytest.mark.parametrize(
    ("file_name", "head_dim"),
    [
        ("uniformer_small_in1k.pth", 64),
        ("uniformer_base_in1k.pth", 64),
        ("uniformer_small_plus_in1k.pth", 32),
        ("uniformer_small_tl_224.pth", 32),
        ("uniformer_base_tl_224.pth", 32),
    ],
)
def test_released_backbones_are_known_by_name_with_their_head_dim(file_name: str, head_dim: int) -> None:
    found = published_models().of_file(file_name, 64 * "0")
    assert isinstance(found, PublishedBackbone)
    assert found.head_dim == head_dim


def test_every_backbone_names_a_model_that_can_be_chosen() -> None:
    for backbone in published_models().backbones.values():
        choice = CONF / "model" / f"{backbone.network}.yaml"
        assert choice.is_file(), backbone


def test_preprocessing_and_sigmas_are_those_of_the_data_configs() -> None:
    table = published_models()
    people = yaml.safe_load((CONF / "data" / "_people.yaml").read_text())
    assert (list(table.mean), list(table.std), table.box_padding, table.skeleton) == (
        people["mean"],
        people["std"],
        people["box_padding"],
        people["skeleton"],
    )
    for model in table.pose_models.values():
        codec = yaml.safe_load((CONF / "data" / f"coco_{model.height}x{model.width}.yaml").read_text())["codec"]
        assert codec == {"height": model.height, "width": model.width, "sigma": model.sigma}


def test_another_table_can_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load((Path(published_models.__code__.co_filename).with_suffix(".yaml")).read_text())
    content["pose_models"]["source"] = "https://mirror.example/weights/"
    mirror = tmp_path / "mirror.yaml"
    mirror.write_text(yaml.safe_dump(content))
    monkeypatch.setenv(ZOO_VARIABLE, str(mirror))
    assert published_file("uniformer_s_coco_256x192")[0].startswith("https://mirror.example/weights/top_down")


@pytest.mark.parametrize(
    "text", ["", "[]", "pose_models: {}", "pose_models: [", "pose_models: {source: x, files: {a: {file: b}}}"]
)
def test_a_table_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    table = tmp_path / "zoo.yaml"
    table.write_text(text)
    with pytest.raises(InputError, match=r"zoo.yaml: not a table of released files") as caught:
        published_models(table)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.yaml: cannot be read"):
        published_models(tmp_path / "absent.yaml")


def test_of_copies_under_several_names_the_one_of_that_name_counts(tmp_path: Path) -> None:
    content = yaml.safe_load((Path(published_models.__code__.co_filename).with_suffix(".yaml")).read_text())
    for entry in content["pose_models"]["files"].values():
        entry["file"] = re.sub(r"-[0-9a-f]{8}_", "-01234567_", entry["file"])
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(content))
    found = published_models(tmp_path / "zoo.yaml").of_file(
        "top_down_384x288_global_base-01234567_20230724.pth", "01234567" + 56 * "0"
    )
    assert isinstance(found, PublishedModel)
    assert found.name == "uniformer_b_coco_384x288"
