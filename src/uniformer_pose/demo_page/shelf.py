"""The pictures that visitors of the page work with, in memory, each under a name that nobody can guess."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from uniformer_pose.errors import InputError

Image = npt.NDArray[np.uint8]


class PictureGoneError(InputError):
    """A picture that is not on the shelf, or no longer; the page hands it in again."""


@dataclass(frozen=True, eq=False)
class ShelvedPicture:
    """RGB pixels (H, W, 3), the name a visitor knows them by, and ``preview``: a JPEG of them, smaller if large."""

    name: str
    pixels: Image
    preview: bytes


class PictureShelf:
    """Holds ``most_pixels`` at most, over all pictures; for a new one those go that nobody has asked for longest.

    A picture larger than that stands there alone. All methods may be called from several threads.
    """

    def __init__(self, most_pixels: int) -> None:
        self._most_pixels = most_pixels
        self._pictures: OrderedDict[str, ShelvedPicture] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures)

    def add(self, picture: ShelvedPicture) -> str:
        """Put a picture there; returns the name to get it by."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._pictures[key] = picture
            while len(self._pictures) > 1 and self._pixels() > self._most_pixels:
                self._pictures.popitem(last=False)
        return key

    def get(self, key: str) -> ShelvedPicture:
        """The picture of that name; PictureGoneError if there is none."""
        with self._lock:
            picture = self._pictures.get(key)
            if picture is None:
                raise PictureGoneError("this picture is no longer held here; open it again")
            self._pictures.move_to_end(key)
        return picture

    def _pixels(self) -> int:
        return sum(picture.pixels.shape[0] * picture.pixels.shape[1] for picture in self._pictures.values())
