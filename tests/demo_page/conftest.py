"""A page that is ready to answer."""

from __future__ import annotations

import pytest

from demo_pages import LIMITS, random_model
from uniformer_pose.demo_page.answers import Example, PageAnswers, rendered_examples
from uniformer_pose.prediction.estimator import PoseEstimator
from uniformer_pose.synthetic import SyntheticSettings


@pytest.fixture(scope="session")
def estimator() -> PoseEstimator:
    return PoseEstimator(random_model(), device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return rendered_examples(SyntheticSettings(0, 2, image_height=96, image_width=128, poses="frontal", crowd_share=0))


@pytest.fixture
def answers(estimator: PoseEstimator, examples: list[Example]) -> PageAnswers:
    return PageAnswers(estimator, limits=LIMITS, examples=examples, notes=["A model."])
