"""Poses on images without public ground truth -> the file that COCO's evaluation server takes.

The server wants ``person_keypoints_<set>_<algorithm>_results.json`` in a zip of the same name
(cocodataset.org/#upload).
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from uniformer_pose.evaluation.coco_metrics import coco_results, write_coco_results
from uniformer_pose.evaluation.predictions import PosePredictions
from uniformer_pose.evaluation.protocol import EvaluationProtocol
from uniformer_pose.skeleton import Skeleton


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

    ``image_file`` is COCO's list of the images, whose name says which set it is (``image_info_test-dev2017.json``).
    ``algorithm`` names the entry; what is no letter, digit, dot or hyphen becomes a hyphen. Where the images are not
    ``complete`` there is no zip, and the file's name says that it is a part.

    The results have the four entries of COCO's format for keypoints and no box: the server then takes a pose's area
    from its keypoints, as for every published result, and its APM and APL are not quite those of our own evaluation.
    """
    results = coco_results(predictions, protocol, skeleton=skeleton, with_boxes=False)
    if not complete:
        file = folder / "predictions_partial.json"
        write_coco_results(file, results)
        return f"Only a part of the images was looked at: nothing to upload.\npredictions         {file}"
    images = re.sub(r"^(image_info|person_keypoints|instances)_", "", image_file.stem)
    name = f"person_keypoints_{images}_{_plain(algorithm)}_results"
    file, archive = folder / f"{name}.json", folder / f"{name}.zip"
    write_coco_results(file, results)
    temporary = archive.with_suffix(".zip.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(file, file.name)
    temporary.replace(archive)
    return f"predictions         {file} ({len(results)} poses)\nto upload           {archive}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "algorithm"
