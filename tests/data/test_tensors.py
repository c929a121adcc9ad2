import pytest
import torch

from uniformer_pose.data.tensors import CropNormalization

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 64, 48, 3), (0, 8, 6, 3)])
@pytest.mark.parametrize("compiled", [False, True])
def test_images_are_those_of_the_formula_to_the_bit_and_channels_last(shape, compiled):
    every_value = torch.arange(shape[0] * shape[1] * shape[2] * 3) % 256
    crops = every_value.to(torch.uint8).view(shape)
    before = crops.clone()
    normalize = CropNormalization(MEAN, STD)
    if compiled:
        normalize = torch.compile(normalize, backend="eager", fullgraph=True)

    images = normalize(crops)

    expected = ((crops.float() - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    assert images.dtype == torch.float32
    assert torch.equal(images, expected)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(crops, before)


def test_crops_that_lie_otherwise_in_memory_give_the_same_images():
    crops = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8).permute(0, 2, 3, 1)
    normalize = CropNormalization(MEAN, STD)
    assert torch.equal(normalize(crops), normalize(crops.contiguous()))


def test_the_numbers_are_no_weights():
    normalization = CropNormalization(MEAN, STD)
    assert normalization.state_dict() == {}
    assert list(normalization.parameters()) == []
    assert {name for name, _ in normalization.named_buffers()} == {"mean", "std"}  # they move with the module
