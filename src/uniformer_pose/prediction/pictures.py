"""Many pictures -> their people, read ahead in threads and posed together so that the network's batches are full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from uniformer_pose.data.images import DecodedImage, Remark, decode_photo
from uniformer_pose.errors import InputError
from uniformer_pose.prediction.boxes import BoxFinder
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.sources import SourceItem

Image = npt.NDArray[np.uint8]

_READERS = 4
# Of one group: 200 MB as pixels, whatever the size of the pictures.
_MOST_PIXELS_TOGETHER = 64_000_000


ReadPicture = Callable[[SourceItem], DecodedImage]


def upright(item: SourceItem) -> DecodedImage:
    """A picture as its EXIF orientation says."""
    return decode_photo(item.path)


@dataclass(frozen=True, eq=False)
class PosedItem:
    """A picture with its pixels and people, or with the error that kept it from being read."""

    item: SourceItem
    image: Image | None = None
    people: People | None = None
    error: InputError | None = None
    remarks: tuple[Remark, ...] = ()


def posed_pictures(
    items: Iterable[SourceItem],
    find_boxes: BoxFinder,
    estimator: PoseEstimator,
    *,
    flip_test: bool,
    read: ReadPicture = upright,
) -> Iterator[PosedItem]:
    """The people of each picture, in order; one that cannot be read comes with its error, and the rest goes on.

    ``read`` runs in threads; it raises InputError for what it cannot read.
    """
    for group in _groups(_read_ahead(items, read), most_pictures=estimator.batch_size):
        readable = [(posed.item.name, posed.image) for posed in group if posed.image is not None]
        images = [image for _, image in readable]
        boxes = find_boxes([name for name, _ in readable], images)
        people = iter(
            estimator.predict_batch(
                images,
                [found.boxes_xywh for found in boxes],
                box_scores=[found.scores for found in boxes],
                flip_test=flip_test,
            )
        )
        for posed in group:
            yield posed if posed.image is None else replace(posed, people=next(people))


def _read_ahead(items: Iterable[SourceItem], read: ReadPicture) -> Iterator[PosedItem]:
    with ThreadPoolExecutor(_READERS) as readers:
        waiting: deque[Future[PosedItem]] = deque()
        try:
            for item in items:
                waiting.append(readers.submit(_read, item, read))
                if len(waiting) > _READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(item: SourceItem, read: ReadPicture) -> PosedItem:
    try:
        image = read(item)
        return PosedItem(item, image.pixels, remarks=image.remarks)
    except InputError as error:
        return PosedItem(item, error=error)


def _groups(pictures: Iterable[PosedItem], *, most_pictures: int) -> Iterator[list[PosedItem]]:
    group: list[PosedItem] = []
    pixels = 0
    for posed in pictures:
        size = 0 if posed.image is None else posed.image.shape[0] * posed.image.shape[1]
        if group and (len(group) >= most_pictures or pixels + size > _MOST_PIXELS_TOGETHER):
            yield group
            group, pixels = [], 0
        group.append(posed)
        pixels += size
    if group:
        yield group
