"""Annotations of other formats -> a data set in COCO's, whole or not at all; every repair is counted and said.

A reader (``yolo_pose``, ``points_table``, ``coco_keypoints``) gives a ``Source`` as it stands there, ``usable_people``
makes it usable, ``dataset_writer`` writes it. A fourth format is a fourth reader.
"""
