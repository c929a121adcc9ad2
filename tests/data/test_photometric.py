import subprocess
import sys

import numpy as np
import pytest

from uniformer_pose.data.photometric import PhotometricAugmentation
from uniformer_pose.errors import InputError

EFFECTS = ("color", "gray", "contrast_equalization", "blur", "noise", "compression", "dropout")
NOTHING = {f"{effect}_probability": 0.0 for effect in EFFECTS}


@pytest.fixture(scope="module")
def crop():
    """Smooth colours with a white square in rows 30 to 39 and columns 40 to 49."""
    crop = np.empty((96, 72, 3), dtype=np.uint8)
    crop[..., 0] = np.linspace(40, 120, 72).astype(np.uint8)
    crop[..., 1] = np.linspace(40, 100, 96).astype(np.uint8)[:, None]
    crop[..., 2] = 60
    crop[30:40, 40:50] = 250
    return crop


def only(effect, **arguments):
    return PhotometricAugmentation(**(NOTHING | {f"{effect}_probability": 1.0} | arguments))


def test_the_same_generator_state_gives_the_same_pixels(crop):
    augmentation = PhotometricAugmentation(**dict.fromkeys(NOTHING, 0.5))
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    first = [augmentation(crop, rng) for _ in range(10)]
    second = [augmentation(crop, again) for _ in range(10)]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
    assert len({image.tobytes() for image in first}) > 5


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_effect_changes_a_copy_of_the_pixels(crop, effect):
    original = crop.copy()
    changed = only(effect)(crop, np.random.default_rng(0))
    assert (changed.shape, changed.dtype) == (crop.shape, np.uint8)
    assert not np.array_equal(changed, original)
    assert np.array_equal(crop, original)


@pytest.mark.parametrize("effect", EFFECTS)
def test_no_effect_moves_anything(crop, effect):
    augmentation = only(effect)
    rows, columns = np.mgrid[:96, :72]
    for seed in range(20):
        bright = augmentation(crop, np.random.default_rng(seed)).astype(float).sum(axis=2)
        bright = np.where(bright > bright.max() * 0.75, bright, 0.0)
        center = (bright * rows).sum() / bright.sum(), (bright * columns).sum() / bright.sum()
        if effect != "dropout":  # which may cover a part of the square
            assert center == pytest.approx((34.5, 44.5), abs=0.6)
        assert bright[30:40, 40:50].sum() > 0.9 * bright.sum()


def test_effects_are_drawn_independently_of_each_other(crop):
    # Seeding albumentations' Compose would apply all transforms of one probability together, or none.
    augmentation = PhotometricAugmentation(**(NOTHING | {"gray_probability": 0.5, "dropout_probability": 0.5}))
    rng = np.random.default_rng(0)
    gray, covered = np.zeros(200, dtype=bool), np.zeros(200, dtype=bool)
    for index in range(200):
        changed = augmentation(crop, rng)
        covered[index] = (changed == 0).all(axis=2).any()
        gray[index] = (changed[..., 0] == changed[..., 2]).all()
    assert gray.mean() == pytest.approx(0.5, abs=0.12)
    assert covered.mean() == pytest.approx(0.5, abs=0.12)
    assert (gray & covered).mean() == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(
    "argument", [{"blur_probability": -0.1}, {"hue_strength": 0.7}, {"dropout_max_size": 2}, {"noise_max_std": -1}]
)
def test_numbers_out_of_range_are_refused(argument):
    ((name, value),) = argument.items()
    with pytest.raises(InputError, match=f"{name}={value}"):
        PhotometricAugmentation(**argument)


def test_no_socket_is_opened_and_the_library_is_imported_only_when_used():
    program = """
import os, socket, sys
os.environ.pop("NO_ALBUMENTATIONS_UPDATE", None)
opened = []  # an exception alone could be swallowed by the library
def refuse(*arguments, **options):
    opened.append(arguments)
    raise OSError("no network in this test")
class NoSocket(socket.socket):
    __init__ = refuse
socket.socket, socket.create_connection, socket.getaddrinfo = NoSocket, refuse, refuse
from uniformer_pose.data.photometric import PhotometricAugmentation
assert "albumentations" not in sys.modules
PhotometricAugmentation()
assert "albumentations" in sys.modules
assert not opened, opened
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
