"""Poses in COCO's results format: what pycocotools scores, and the file that COCO's evaluation server takes."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from uniformer_pose.data.categories import DEFAULT_PERSON_CATEGORY
from uniformer_pose.evaluation.coco_metrics import require_usable, select_poses
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.files import write_json, write_whole
from uniformer_pose.skeleton import Skeleton, load_skeleton


def coco_results(
    predictions: PosePredictions,
    protocol: EvaluationProtocol | None = None,
    *,
    skeleton: Skeleton | None = None,
    category_id: int = DEFAULT_PERSON_CATEGORY,
    with_boxes: bool = True,
) -> list[dict[str, Any]]:
    """Rescored predictions that NMS kept, in COCO's results format.

    One dict per pose: ``image_id``, ``category_id`` (its box's, where that is known), ``keypoints`` [x, y, keypoint
    score] x K in image pixels, ``score``, and ``bbox``, the box the pose was looked for in; of a network that says so
    ``visibility``, too, [probability that it is labelled, that it is visible] x K. By image id, and within an image
    best first (``nms_mode="none"``: by id). The published protocol is the default. Unusable predictions raise
    ``InputError`` as in ``coco_keypoint_metrics``.

    The format for keypoints has neither, and ``with_boxes=False`` leaves both out: for the test server. With ``bbox``,
    ``COCO.loadRes`` takes a pose's area from the box rather than from the extent of its keypoints, and ``COCOeval``
    gives the numbers of ``coco_keypoint_metrics``, APM, APL, ARM and ARL included.
    """
    skeleton = skeleton or load_skeleton("coco_17")
    require_usable(predictions, skeleton)
    poses, scores = select_poses(predictions, protocol or EvaluationProtocol(), skeleton.oks_sigmas)
    triplets = np.concatenate([poses.keypoints_in_image, poses.keypoint_scores[..., None]], axis=-1)
    flat = triplets.reshape(len(poses), 3 * poses.num_keypoints)
    categories = np.full(len(poses), category_id) if poses.category_ids is None else poses.category_ids
    columns = (poses.image_ids, categories, flat, scores, poses.boxes_xywh)
    names = ("image_id", "category_id", "keypoints", "score", "bbox")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    results = [dict(zip(names, row, strict=True)) for row in rows]
    if not with_boxes:
        return [{name: r[name] for name in r if name != "bbox"} for r in results]
    if poses.visibility is None:
        return results
    return [r | {"visibility": of_pose} for r, of_pose in zip(results, poses.visibility.tolist(), strict=True)]


def write_submission(
    folder: Path,
    predictions: PosePredictions,
    protocol: EvaluationProtocol,
    skeleton: Skeleton,
    *,
    image_file: Path,
    algorithm: str,
    complete: bool = True,
) -> str:
    """Write the poses that are to be reported, and the zip to upload; returns what was written where, as text.

    The server wants ``person_keypoints_<set>_<algorithm>_results.json`` in a zip of the same name
    (cocodataset.org/#upload). ``image_file`` is COCO's list of the images, whose name says which set it is
    (``image_info_test-dev2017.json``). In ``algorithm``, what is no letter, digit, dot or hyphen becomes a hyphen.
    Where the images are not ``complete`` there is no zip, and the file's name says that it is a part.

    The results have the four entries of COCO's format for keypoints and no box: the server then takes a pose's area
    from its keypoints, as for every published result, and its APM and APL are not quite those of our own evaluation.
    """
    results = coco_results(predictions, protocol, skeleton=skeleton, with_boxes=False)
    images = re.sub(r"^(image_info|person_keypoints|instances)_", "", image_file.stem)
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", algorithm).strip("-.") or "algorithm"
    name = f"person_keypoints_{images}_{plain}_results" if complete else "predictions_partial"
    file, archive = folder / f"{name}.json", folder / f"{name}.zip"
    write_json(file, results, indent=None)
    written = f"predictions         {file} ({len(results)} poses)"
    if not complete:
        return f"Partial evaluation: nothing to upload.\n{written}"
    with write_whole(archive) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(file, file.name)
    return f"{written}\nto upload           {archive}"
