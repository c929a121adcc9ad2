import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.evaluation.protocol import EvaluationProtocol


def test_the_default_is_the_published_protocol():
    protocol = EvaluationProtocol()
    assert (protocol.flip_test, protocol.score_mode, protocol.nms_mode) == (True, "bbox_keypoint", "oks_nms")
    assert (protocol.keypoint_score_threshold, protocol.nms_threshold) == (0.2, 0.9)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"score_mode": "box"}, "score_mode is 'box'; choose one of bbox_keypoint, bbox, keypoint, bbox_rle"),
        ({"nms_mode": "nms"}, "nms_mode is 'nms'; choose one of oks_nms, none, soft_oks_nms"),
        ({"nms_threshold": 0.0}, "nms_threshold is 0.0; an OKS lies between 0 and 1, the usual threshold is 0.9"),
        ({"nms_threshold": 1.5}, "nms_threshold is 1.5; an OKS lies between 0 and 1, the usual threshold is 0.9"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(choice, message):
    with pytest.raises(InputError) as caught:
        EvaluationProtocol(**choice)
    assert str(caught.value) == message
