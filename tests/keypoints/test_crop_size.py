from __future__ import annotations

import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.crop_size import HEATMAP_STRIDE, check_crop_size, check_network_stride


@pytest.mark.parametrize(("height", "width"), [(256, 192), (384, 288), (448, 320), (32, 32)])
def test_sizes_that_the_backbone_divides_evenly_are_accepted(height: int, width: int) -> None:
    check_crop_size(height, width)


@pytest.mark.parametrize(("height", "width"), [(250, 192), (256, 200), (0, 192), (256, -32)])
def test_other_sizes_are_refused_by_name(height: int, width: int) -> None:
    with pytest.raises(InputError) as caught:
        check_crop_size(height, width)
    assert str(caught.value) == (
        f"crop size {height}x{width} (height x width): both must be positive multiples of 32, such as 256x192"
    )


def test_only_the_stride_of_the_pose_head_is_accepted() -> None:
    check_network_stride(HEATMAP_STRIDE)
    with pytest.raises(InputError, match=r"^heatmap stride 8: must be 4, which is what the pose head gives$"):
        check_network_stride(8)
