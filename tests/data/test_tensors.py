import pytest
import torch

from uniformer_pose.data.tensors import CropNormalization

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def test_a_pixel_loses_the_mean_and_is_divided_by_the_deviation_of_its_colour():
    crops = torch.tensor([[[[0, 128, 255], [255, 0, 1]]]], dtype=torch.uint8)

    images = CropNormalization(MEAN, STD)(crops)

    assert images.dtype == torch.float32
    assert images.shape == (1, 3, 1, 2)
    assert images[0, :, 0, 0].tolist() == pytest.approx([-123.675 / 58.395, 11.72 / 57.12, 151.47 / 57.375])
    assert images[0, :, 0, 1].tolist() == pytest.approx([131.325 / 58.395, -116.28 / 57.12, -102.53 / 57.375])


def test_images_lie_channels_last_in_memory_without_a_copy():
    crops = torch.zeros(2, 8, 6, 3, dtype=torch.uint8)

    images = CropNormalization(MEAN, STD)(crops)

    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.shape == (2, 3, 8, 6)


def test_the_numbers_are_no_weights():
    normalization = CropNormalization(MEAN, STD)

    assert normalization.state_dict() == {}
    assert list(normalization.parameters()) == []
    assert {name for name, _ in normalization.named_buffers()} == {"mean", "std"}  # they move with the module


def test_the_crops_are_left_as_they_are():
    crops = torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)

    CropNormalization(MEAN, STD)(crops)

    assert crops.unique().tolist() == [7]
