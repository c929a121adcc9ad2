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
from uniformer_pose.data.images import decode_image, read_file, read_image_of
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
                examined = threads.map(lambda image: examine_image(*image), images.values())
                first_names: dict[bytes, str] = {}
                for name, (digest, kind, detail) in zip(images, examined, strict=True):
                    on_progress(next(numbers), total)
                    if kind is not None:
                        split.findings.add(kind, detail, file_name=name)
                    if digest is None:
                        continue
                    first = first_names.setdefault(digest, name)
                    if first != name:
                        split.findings.add("image_content_repeated", f"shows what {first} shows", file_name=name)
                    elif digest in in_training:
                        detail = f"shows what {in_training[digest]} of the training split shows"
                        split.findings.add("image_also_in_training", detail, file_name=name)
                in_training = first_names if split.name == "train" else {}
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _images_in_use(split: Split) -> dict[str, tuple[PersonInstances, int]]:
    """Each file that training or evaluation opens, once, even if two entries name it."""
    found = [instances for instances in (split.people, split.detections) if instances is not None]
    return {str(name): (some, index) for some in found for index, name in enumerate(some.file_names)}


def examine_image(people: PersonInstances, index: int) -> tuple[bytes | None, str | None, str]:
    """The digest of an image's pixels, None where it cannot be read; and the kind of defect, if any, with words.

    Two images of one digest have the same size and the same pixels on a grid of about 128 by 128.
    """
    try:
        image = read_image_of(people, index)
    except (InputError, OSError, RuntimeError) as error:  # the last two: a link that leads to itself
        path = people.image_folder / str(people.file_names[index])
        detail = " ".join(str(error).split()).removeprefix(f"{path}: ")
        return None, "image_size_differs" if _is_readable(people, index) else "image_unreadable", detail
    if "turned" in image.remarks:
        advice = "set data.image_orientation=displayed, or =stored"
        return _digest(image.pixels), "image_with_exif_rotation", f"EXIF orientation {image.exif}; {advice}"
    return _digest(image.pixels), None, ""


def _is_readable(people: PersonInstances, index: int) -> bool:
    """Whether an image can be read, of whatever size it is."""
    try:
        path = people.image_path(index)
        return decode_image(path, read_file(path)).pixels.size > 0
    except (InputError, OSError, RuntimeError):
        return False


def _digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A hash of the size and of pixels evenly spread: hashing all of them would take as long as decoding."""
    height, width = pixels.shape[:2]
    grid = pixels[:: 1 + height // _HASHED_PIXELS_PER_SIDE, :: 1 + width // _HASHED_PIXELS_PER_SIDE]
    return hashlib.blake2b(grid.tobytes(), digest_size=16, key=f"{height}x{width}".encode()).digest()
