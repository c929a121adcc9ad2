"""Poses as files that other tools read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.people import People
from uniformer_pose.prediction.writers import COLUMNS, PosedPicture, write_coco_results, write_csv, write_parquet
from uniformer_pose.skeleton import load_skeleton

SKELETON = load_skeleton("coco_17")


def posed() -> list[PosedPicture]:
    random = np.random.default_rng(0)

    def people(count: int, ids: bool) -> People:
        return People(
            keypoints=random.uniform(0, 100, (count, 17, 2)),
            scores=random.uniform(0.3, 1, (count, 17)),
            boxes=np.tile([1.0, 2, 30, 40], (count, 1)),
            box_scores=np.ones(count),
            areas=np.full(count, 900.0),
            skeleton=SKELETON,
            ids=np.arange(count) + 5 if ids else None,
        )

    return [
        PosedPicture("a, b.jpg", 139, people(2, ids=False)),
        PosedPicture("c.jpg", 140, people(0, ids=False)),
        PosedPicture("d.mp4", 141, people(1, ids=True), frame=3, seconds=0.1),
    ]


def test_coco_results_are_a_list_of_poses(tmp_path: Path) -> None:
    assert write_coco_results(tmp_path / "poses.json", posed()) == 3
    results = json.loads((tmp_path / "poses.json").read_text())
    assert [result["image_id"] for result in results] == [139, 139, 141]
    assert results[0]["file_name"] == "a, b.jpg"
    assert len(results[0]["keypoints"]) == 51
    assert (results[2]["frame"], results[2]["seconds"], results[2]["track_id"]) == (3, 0.1, 5)


def test_pycocotools_reads_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    write_coco_results(tmp_path / "poses.json", posed())
    coco = COCO()
    coco.dataset = {"images": [{"id": 139}, {"id": 140}, {"id": 141}], "annotations": [], "categories": [{"id": 1}]}
    coco.createIndex()
    assert len(coco.loadRes(str(tmp_path / "poses.json")).anns) == 3


def test_the_table_has_a_row_per_keypoint(tmp_path: Path) -> None:
    write_csv(tmp_path / "poses.csv", posed())
    with (tmp_path / "poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3 * 17
    assert (rows[0]["file"], rows[0]["frame"], rows[0]["person"], rows[0]["track"]) == ("a, b.jpg", "", "0", "")
    assert rows[17]["person"] == "1"
    assert rows[1]["keypoint"] == "left_eye"
    assert float(rows[1]["x"]) == pytest.approx(posed()[0].people.keypoints[0, 1, 0], abs=1e-3)
    assert (rows[34]["frame"], rows[34]["seconds"], rows[34]["track"]) == ("3", "0.1", "5")


def test_parquet_holds_the_same_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(tmp_path / "poses.parquet", posed())
    table = parquet.read_table(tmp_path / "poses.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert table.num_rows == 51
    assert table["track"].to_pylist()[33:35] == [None, 5]
    write_parquet(tmp_path / "empty.parquet", [])
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def pictures():  # type: ignore[no-untyped-def]
        yield posed()[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_csv(tmp_path / "poses.csv", pictures())
    assert list(tmp_path.iterdir()) == []
