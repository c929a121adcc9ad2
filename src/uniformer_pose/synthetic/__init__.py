"""Procedural pictures of people in COCO's format: a dataset to try, test and demonstrate the whole pipeline on."""

from uniformer_pose.synthetic.dataset import write_synthetic_dataset
from uniformer_pose.synthetic.settings import SyntheticSettings

__all__ = ["SyntheticSettings", "write_synthetic_dataset"]
