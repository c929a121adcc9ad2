"""Image files -> what is wrong with each, by the reader of the training, and which of them show the same pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.checking.report import Split
from uniformer_pose.data.coco import PersonInstances
from uniformer_pose.data.images import DecodedImage, read_image_of
from uniformer_pose.errors import InputError

_HASHED_PIXELS_PER_SIDE = 128


def check_images(splits: Sequence[Split], workers: int, on_progress: Callable[[int, int], None]) -> None:
    """Read every image with people or detector boxes as training does; training comes before validation.

    Threads, because decoding and hashing release the interpreter's lock and share the memory.
    """
    in_use = [_images_in_use(split) for split in splits]
    total, numbers = sum(map(len, in_use)), count(1)
    in_training: dict[bytes, str] = {}
    with ThreadPoolExecutor(workers) as threads:
        try:
            for split, images in zip(splits, in_use, strict=True):
                first_names: dict[bytes, str] = {}
                for name, read in zip(images, threads.map(lambda image: _read(*image), images.values()), strict=True):
                    on_progress(next(numbers), total)
                    if isinstance(read, str):
                        split.unusable.add(name)
                        split.add("image_unusable", f"{name}: {read}")
                        continue
                    digest, exif = read
                    if exif is not None:
                        advice = "set data.image_orientation=displayed, or =stored"
                        split.add("image_with_exif_rotation", f"{name}: EXIF orientation {exif}; {advice}")
                    first = first_names.setdefault(digest, name)
                    if first != name:
                        split.add("image_content_repeated", f"{name}: shows what {first} shows")
                    elif digest in in_training:
                        detail = f"{name}: shows what {in_training[digest]} of the training split shows"
                        split.add("image_also_in_training", detail)
                in_training = first_names if split.name == "train" else {}
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _images_in_use(split: Split) -> dict[str, tuple[PersonInstances, int]]:
    """Each file that training or evaluation opens, once, even if two entries name it."""
    found = [instances for instances in (split.people, split.detections) if instances is not None]
    return {str(name): (some, index) for some in found for index, name in enumerate(some.file_names)}


def _read(people: PersonInstances, index: int) -> tuple[bytes, int | None] | str:
    """The digest of an image's pixels, and its EXIF orientation where nobody said how it is meant; else what is wrong.

    Two images of one digest have the same size and the same pixels on a grid of about 128 by 128: hashing all of them
    would take as long as decoding.
    """
    try:
        image: DecodedImage = read_image_of(people, index)
    except (InputError, OSError, RuntimeError) as error:  # the last two: a link that leads to itself
        path = people.image_folder / str(people.file_names[index])
        return " ".join(str(error).split()).removeprefix(f"{path}: ")
    pixels: npt.NDArray[np.uint8] = image.pixels
    height, width = pixels.shape[:2]
    grid = pixels[:: 1 + height // _HASHED_PIXELS_PER_SIDE, :: 1 + width // _HASHED_PIXELS_PER_SIDE]
    digest = hashlib.blake2b(grid.tobytes(), digest_size=16, key=f"{height}x{width}".encode()).digest()
    return digest, image.exif if "turned" in image.remarks else None
