"""Files of networks with other heads than the plain heatmap one: complete, matched by name, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import assert_same, checkpoint, contents_of, network, refusal, saved, trained_model

from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton
from uniformer_pose.weights.loading import load_into, load_model, load_network

COCO = load_skeleton("coco_17")
VISIBILITY = {"visibility": True}


def test_a_training_with_visibility_starts_from_a_file_without_it_and_says_so(tmp_path: Path) -> None:
    path, model = checkpoint(tmp_path)
    target = network(num_keypoints=17, head=VISIBILITY)
    before = {name: entry.clone() for name, entry in target.state_dict().items()}
    line = str(load_into(target, path, skeleton=COCO))
    assert "4 left as they were (head.visibility." in line
    for name, entry in target.state_dict().items():
        expected = before[name] if "visibility" in name else model.network.state_dict()[name]
        assert torch.equal(entry, expected), name


def test_a_file_with_visibility_is_loaded_whole_and_matched_by_name(tmp_path: Path) -> None:
    written = trained_model(head=VISIBILITY)
    path = saved(contents_of(written), tmp_path)
    assert_same(load_model(path)[0], written)
    images = torch.randn(2, 3, 64, 64)
    expected = written.network(images)[1]
    fields = COCO.to_dict()
    backwards = fields | {"keypoints": dict(reversed(fields["keypoints"].items()))}
    model = load_model(path, skeleton=Skeleton.from_dict(backwards))[0]
    torch.testing.assert_close(model.network(images)[1], expected.flip(1))


def test_a_file_that_lacks_the_visibility_it_describes_is_refused(tmp_path: Path) -> None:
    contents = contents_of(trained_model(head=VISIBILITY))
    del contents["state_dict"]["network.head.visibility.visible.bias"]
    path = saved(contents, tmp_path)
    target = network(num_keypoints=17, head=VISIBILITY)
    for load in (load_model, load_network, lambda path: load_into(target, path, skeleton=COCO)):
        assert "1 missing (head.visibility.visible.bias)" in refusal(path, load)
    contents["state_dict"]["network.head.visibility.visible.bias"] = torch.zeros(3)
    path = saved(contents, tmp_path)
    with pytest.raises(InputError, match="of another shape"):
        load_model(path)
