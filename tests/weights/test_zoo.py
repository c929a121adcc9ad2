"""The table of released files says where each is, what it needs, and what its publishers measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from uniformer_pose.errors import InputError
from uniformer_pose.weights.zoo import ZOO_VARIABLE, read_zoo, released_address

CONF = Path(__file__).parents[2] / "conf"


def test_all_six_models_are_there_with_five_results_each() -> None:
    models = read_zoo().pose_models
    sizes = {(model.network[-1], model.height, model.width) for model in models.values()}
    assert sizes == {(size, *hw) for size in "sb" for hw in ((256, 192), (384, 288), (448, 320))}
    for name, model in models.items():
        assert name == f"{model.network}_coco_{model.height}x{model.width}"
        assert list(model.results) == ["AP", "AP50", "AP75", "AR", "AR50"]
        assert len(str(model.sha256)) == 8


def test_a_name_gives_address_and_digest() -> None:
    url, sha256 = released_address("uniformer_b_coco_384x288")
    assert url.startswith("https://")
    assert url.endswith("/top_down_384x288_global_base-c650da38_20230724.pth")
    assert sha256 == "c650da38"
    assert released_address("uniformer_small_in1k")[1] is None
    with pytest.raises(InputError, match=r"download by hand only .*; give the path of uniformer_small_tl_224.pth"):
        released_address("uniformer_small_tl_224")
    with pytest.raises(InputError, match=r"uniformer_b_coco_384x388: no such model; did you mean uniformer_b_coco"):
        released_address("uniformer_b_coco_384x388")


@pytest.mark.parametrize(
    ("file_name", "sha256", "name", "head_dim"),
    [
        ("weights.pth", "a05c185f", "uniformer_b_coco_448x320", 64),
        ("top_down_256x192_global_small-d4a7fdac_20230724.pth", "", "uniformer_s_coco_256x192", 64),
        ("top_down_256x192_global_small.pth", "", "uniformer_s_coco_256x192", 64),
        ("uniformer_small_plus_in1k.pth", "", "uniformer_small_plus_in1k", 32),
        ("uniformer_base_in1k.pth", "", "uniformer_base_in1k", 64),
        ("weights.pth", "", None, None),
        ("top_down_256x192_global_small-00000000_20230724.pth", "", None, None),
    ],
)
def test_a_released_file_is_known_by_its_name_or_its_bytes(
    file_name: str, sha256: str, name: str | None, head_dim: int | None
) -> None:
    found = read_zoo().of_file(file_name, sha256.ljust(64, "0"))
    assert (found and found.name, found and found.head_dim) == (name, head_dim)


def test_the_table_and_the_configs_agree() -> None:
    zoo = read_zoo()
    for backbone in zoo.backbones.values():
        assert (CONF / "model" / f"{backbone.network}.yaml").is_file(), backbone
    crops, people = (yaml.safe_load((CONF / "data" / f"_{name}.yaml").read_text()) for name in ("crops", "people"))
    ours = {"mean": list(zoo.mean), "std": list(zoo.std), "box_padding": zoo.box_padding, "skeleton": zoo.skeleton}
    assert ours == {name: (crops | people)[name] for name in ours}
    for model in zoo.pose_models.values():
        codec = yaml.safe_load((CONF / "data" / f"coco_{model.height}x{model.width}.yaml").read_text())["codec"]
        assert codec == {"height": model.height, "width": model.width, "sigma": model.sigma}


@pytest.mark.parametrize(
    "text",
    [None, "", "[]", "pose_models: [", "{pose_models: {a: {}}, backbones: {}}"],
)
def test_a_table_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    table = tmp_path / "zoo.yaml"
    monkeypatch.setenv(ZOO_VARIABLE, str(table))
    if text is not None:
        table.write_text(text)
    with pytest.raises(InputError, match=r"zoo.yaml: not a table of released files") as caught:
        read_zoo()
    assert "\n" not in str(caught.value)
