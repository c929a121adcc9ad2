"""Procedural pictures of people in COCO's format: a dataset to try, test and demonstrate the whole pipeline on."""

from uniformer_pose.synthetic.dataset import SyntheticSettings, write_synthetic_dataset

__all__ = ["SyntheticSettings", "write_synthetic_dataset"]
