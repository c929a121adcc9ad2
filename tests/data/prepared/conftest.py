"""JPEGs of every kind that decoders meet, of pictures with edges, colours and noise."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

MakeJpeg = Callable[..., bytes]


@pytest.fixture
def make_jpeg() -> MakeJpeg:
    """A picture of ``height`` x ``width`` as JPEG; ``sampling`` is one of OpenCV's names such as ``420``."""

    def make(height: int = 75, width: int = 101, *, sampling: str = "444", gray: bool = False, **flags: int) -> bytes:
        rng = np.random.default_rng(height * 1000 + width)
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int64)
        picture[height // 3 : height // 2, width // 4 : width // 2] = (250, 3, 120)
        picture = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        for name, value in {"quality": 93, **flags}.items():
            options += [getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value]
        return cv2.imencode(".jpg", picture[..., 0] if gray else picture, options)[1].tobytes()

    return make
