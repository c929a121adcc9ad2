"""The data configs of published sets, on the real samples that lie beside a developer's checkout."""

from pathlib import Path

import pytest
from hydra.utils import instantiate

from programs import composed
from uniformer_pose.config_parts import TrainConfig
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError

PUBLISHED = {
    "crowdpose_256x192": (14, 6, "github.com/Jeff-sjtu/CrowdPose"),
    "aic_256x192": (14, 9, "github.com/AIChallenger"),
    "ochuman_256x192": (17, 5, "github.com/liruilong940607/OCHumanApi"),
    "halpe26_256x192": (26, 118, "github.com/Fang-Haoshu/Halpe-FullBody"),
    "coco_wholebody_256x192": (133, 118, "github.com/jin-s13/COCO-WholeBody"),
    "ap10k_256x256": (17, 2, "github.com/AlexTheBad/AP-10K"),
    "humanart_256x192": (17, 4, "idea-research.github.io/HumanArt"),
    "exlpose_256x192": (14, 6, "cg.postech.ac.kr/research/ExLPose"),
    "mpii_256x256": (16, 5, "from=mpii"),
}


def crops(data: str, root: Path) -> PersonCrops:
    config = checked_config(composed("train", f"data={data}", f"data.root={root}"), TrainConfig)
    made = instantiate(config["data"], _convert_="all")
    assert isinstance(made, PersonCrops)
    return made


@pytest.mark.parametrize("data", PUBLISHED)
def test_who_lacks_a_set_is_told_where_to_get_it(data, tmp_path):
    num_keypoints, _boxes, source = PUBLISHED[data]
    made = crops(data, tmp_path / "nowhere")
    assert made.skeleton.num_keypoints == num_keypoints
    with pytest.raises(InputError, match=f"nowhere/.* does not exist; .*{source}.*data.root=<folder>") as raised:
        made.setup("validate")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", [name for name in PUBLISHED if name != "mpii_256x256"])
def test_a_real_sample_is_read_and_can_be_scored_against(data, shared_folder):
    num_keypoints, num_boxes, _source = PUBLISHED[data]
    folder = data.rpartition("_")[0].removesuffix("26")
    made = crops(data, shared_folder / "other_datasets" / folder)
    made.setup("validate")
    assert made.val_people is not None
    assert len(made.val_people) == num_boxes
    assert made.val_people.image_path(0).is_file()
    assert made.ground_truth.keypoints_in_image.shape[1:] == (num_keypoints, 2)
    assert (made.ground_truth.areas[made.ground_truth.is_scored] > 0).all()
