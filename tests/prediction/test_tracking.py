from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from uniformer_pose.prediction.tracking import Tracker
from uniformer_pose.skeleton import load_skeleton

SIGMAS = load_skeleton("coco_17").oks_sigmas
# A person of height 1 seen from the front, x from the middle and y from the top, and how far each keypoint swings.
STANDING = np.array(
    [
        *([0, 0.05], [0.03, 0.03], [-0.03, 0.03], [0.06, 0.05], [-0.06, 0.05], [0.13, 0.2], [-0.13, 0.2]),
        *([0.17, 0.36], [-0.17, 0.36], [0.18, 0.5], [-0.18, 0.5], [0.08, 0.52], [-0.08, 0.52]),
        *([0.09, 0.75], [-0.09, 0.75], [0.1, 0.95], [-0.1, 0.95]),
    ]
)
SWING = np.array([0, 0, 0, 0, 0, 0, 0, 0.05, -0.05, 0.1, -0.1, 0, 0, -0.07, 0.07, -0.16, 0.16])
RATE = 30


class People:
    """Walkers of 300 pixels, given by their place (pixels) at time 0 and speed (pixels per second)."""

    def __init__(self, places: list[tuple[float, float]], speeds: list[float], *, noise: float = 3.0) -> None:
        self.places, self.speeds, self.noise = np.array(places), np.array(speeds), noise
        self.generator = np.random.default_rng(0)

    def at(self, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        swing = np.sin(2 * np.pi * seconds + np.arange(len(self.places)))[:, None] * SWING
        keypoints = 300 * (STANDING + np.stack([swing, np.zeros_like(swing)], axis=-1)) + self.places[:, None]
        keypoints[..., 0] += self.speeds[:, None] * seconds
        keypoints += self.generator.normal(0, self.noise, keypoints.shape)
        low, high = keypoints.min(axis=1) - 15, keypoints.max(axis=1) + 15
        boxes = np.concatenate([low, high - low], axis=1)
        return keypoints, np.ones(keypoints.shape[:2]), boxes, boxes[:, 2] * boxes[:, 3]


def ids_of(people: People, frames: int, *, rate: float = RATE, hidden: object = None) -> Iterator[list[int]]:
    """Per frame the number of each person, 0 for the hidden; the people come in another order in each frame."""
    tracker = Tracker(SIGMAS)
    order_of = np.random.default_rng(1)
    for frame in range(frames):
        found = people.at(frame / rate)
        shown = [p for p in range(len(people.places)) if not (callable(hidden) and hidden(frame, p))]
        order = order_of.permutation(shown).astype(int)
        ids = tracker.update(*(array[order] for array in found), seconds=frame / rate)
        assert ids.dtype == np.int64
        assert len(set(ids.tolist())) == len(order)
        numbers = dict(zip(order.tolist(), ids.tolist(), strict=True))
        yield [numbers.get(person, 0) for person in range(len(people.places))]


def is_constant(numbers: list[list[int]]) -> bool:
    return len({tuple(frame) for frame in numbers}) == 1


@pytest.mark.parametrize("rate", [30, 15, 10, 5])
def test_people_keep_their_numbers_at_low_frame_rates(rate: int) -> None:
    people = People([(300, 100), (640, 110), (980, 90)], [-80, 40, 150])
    assert is_constant(list(ids_of(people, 5 * rate, rate=rate)))


def test_people_who_cross_in_front_of_each_other_keep_their_numbers() -> None:
    # At walking speed (250 pixels per second for 300 pixels of height); the third stands where they meet.
    people = People([(200, 100), (1200, 120), (700, 60)], [250, -250, 0])
    assert is_constant(list(ids_of(people, 4 * RATE)))


def test_who_is_hidden_while_crossing_gets_the_old_number_back() -> None:
    people = People([(200, 100), (1200, 120)], [250, -250])
    numbers = list(ids_of(people, 4 * RATE, hidden=lambda frame, person: person == 1 and 50 <= frame < 70))
    first, second = numbers[0]
    assert all(frame[0] == first for frame in numbers)
    assert {frame[1] for frame in numbers[:50] + numbers[70:]} == {second}


def test_the_memory_is_counted_in_seconds_not_frames() -> None:
    people = People([(300, 100)], [0])
    tracker = Tracker(SIGMAS)
    found = people.at(0)
    nobody = [array[:0] for array in found]
    assert tracker.update(*found, seconds=0).tolist() == [1]
    for frame in range(1, 100):
        tracker.update(*nobody, seconds=frame / 120)
    assert tracker.update(*found, seconds=0.9).tolist() == [1]
    tracker.update(*nobody, seconds=1.0)
    assert tracker.update(*found, seconds=2.0).tolist() == [2]


def test_keypoints_tell_apart_two_people_with_the_same_box() -> None:
    keypoints, scores, boxes, areas = People([(300, 100)], [0], noise=0).at(0)
    mirrored = keypoints.copy()
    mirrored[..., 1] = 2 * mirrored[..., 1].mean() - mirrored[..., 1]  # standing on the hands
    both = np.concatenate([keypoints, mirrored])
    tracker = Tracker(SIGMAS)
    arguments = (np.repeat(scores, 2, 0), np.repeat(boxes, 2, 0), np.repeat(areas, 2, 0))
    assert tracker.update(both, *arguments, seconds=0).tolist() == [1, 2]
    assert tracker.update(both[::-1], *arguments, seconds=1 / 30).tolist() == [2, 1]


def test_doubtful_keypoints_do_not_count() -> None:
    keypoints, scores, boxes, areas = People([(300, 100), (340, 100)], [0, 0], noise=0).at(0)
    tracker = Tracker(SIGMAS)
    first = tracker.update(keypoints, scores, boxes, areas, seconds=0).tolist()
    doubtful = scores.copy()
    doubtful[:, 5:] = 0.1
    guessed = keypoints.copy()
    guessed[:, 5:] = keypoints[::-1, 5:]  # the doubtful ones lie where the other person's are
    assert tracker.update(guessed, doubtful, boxes, areas, seconds=1 / 30).tolist() == first


def test_without_any_certain_keypoint_the_boxes_decide() -> None:
    keypoints, scores, boxes, areas = People([(300, 100), (500, 100)], [0, 0]).at(0)
    tracker = Tracker(SIGMAS)
    first = tracker.update(keypoints, 0 * scores, boxes, areas, seconds=0).tolist()
    assert tracker.update(keypoints[::-1], 0 * scores, boxes, areas, seconds=1 / 30).tolist() == first


def test_many_people_keep_their_numbers() -> None:
    places = [(100.0 * column, 320.0 * row) for row in range(5) for column in range(20)]
    speeds = np.random.default_rng(3).uniform(-40, 40, 20).tolist() * 5
    numbers = np.array(list(ids_of(People(places, speeds), 30)))
    changed = (numbers[1:] != numbers[:-1]).any(axis=0).sum()
    assert numbers.max() <= 102
    assert changed <= 2  # they overlap by half
