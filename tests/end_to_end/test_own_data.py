"""From other people's annotations to a trained model, as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from check_data import CheckDataConfig, check_data
from convert_data import convert_data
from programs import composed
from uniformer_pose.data.datamodule import PersonCrops
from uniformer_pose.entry_point import checked_config
from uniformer_pose.errors import InputError
from uniformer_pose.keypoints.heatmap_codec import HeatmapCodec

NAMES = ("nose", "left_hand", "right_hand", "left_foot", "right_foot")
POINTS = np.array([[40, 12], [52, 30], [28, 30], [48, 52], [32, 52]], dtype=float)
BOX = (20, 5, 40, 54)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of 64x80 in a folder, all with the same five points."""
    rng = np.random.default_rng(0)
    (tmp_path / "mine/images").mkdir(parents=True)
    for number in range(12):
        picture = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"mine/images/{number:02d}.png"), picture)
    return tmp_path / "mine"


def as_yolo(folder: Path) -> list[str]:
    (folder / "labels").mkdir()
    x, y, width, height = BOX
    box = [(x + width / 2) / 80, (y + height / 2) / 64, width / 80, height / 64]
    line = " ".join(map(str, [0, *box, *np.column_stack([POINTS / (80, 64), np.full(5, 2)]).ravel().tolist()]))
    for image in (folder / "images").iterdir():
        (folder / f"labels/{image.stem}.txt").write_text(line)
    description = {"train": "images", "kpt_shape": [5, 3], "names": ["person"], "kpt_names": {0: list(NAMES)}}
    (folder / "data.yaml").write_text(yaml.safe_dump(description))
    return ["from=yolo_pose", f"source={folder}"]


def as_csv(folder: Path) -> list[str]:
    header = "image,box_x,box_y,box_width,box_height," + ",".join(f"{name}_x,{name}_y" for name in NAMES)
    values = ",".join(map(str, [*BOX, *POINTS.ravel().tolist()]))
    rows = [f"{image.name},{values}" for image in sorted((folder / "images").iterdir())]
    (folder / "points.csv").write_text("\n".join([header, *rows]))
    return ["from=points_csv", f"source={folder / 'points.csv'}", f"images={folder / 'images'}"]


def as_coco(folder: Path) -> list[str]:
    names = sorted(image.name for image in (folder / "images").iterdir())
    keypoints = np.column_stack([POINTS, np.full(5, 2)]).ravel().tolist()
    content = {
        "categories": [{"id": 4, "name": "person", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]}],
        "images": [{"id": i, "file_name": name, "height": 64, "width": 80} for i, name in enumerate(names)],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 4, "bbox": list(BOX), "area": 1500, "keypoints": keypoints}
            for i in range(len(names))
        ],
    }
    (folder / "mine.json").write_text(json.dumps(content))
    return ["from=coco", f"source={folder / 'mine.json'}", f"images={folder / 'images'}"]


FORMATS: dict[str, Callable[[Path], list[str]]] = {"yolo_pose": as_yolo, "points_csv": as_csv, "coco": as_coco}
SIZE = {"height": 64, "width": 64, "sigma": 1.5}


def people_of(root: Path, skeleton: str) -> PersonCrops:
    config = yaml.safe_load((root / f"conf/data/sets/{root.name}.yaml").read_text())
    paths = {key: config[key] for key in config if key.endswith(("_annotations", "_images", "_boxes"))}
    data = PersonCrops(
        root=config["root"],
        skeleton=skeleton,
        codec=HeatmapCodec(**SIZE),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        batch_size=4,
        num_workers=0,
        **paths,
    )
    data.setup("fit")
    return data


def convert(arguments: list[str]) -> None:
    convert_data(composed("convert_data", *arguments))


def check(arguments: list[str], folder: Path) -> bool:
    return check_data(checked_config(composed("check_data", *arguments, f"run_dir={folder}"), CheckDataConfig))


@pytest.mark.parametrize("source_format", FORMATS)
def test_converted_people_reach_training_with_their_keypoints(
    source_format: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert([*FORMATS[source_format](pictures), f"to={tmp_path / 'five'}", "val_share=0.25"])
    assert "9 images; train.json, category person: kept 9 of 9 annotations in 9 images" in capsys.readouterr().out
    data = people_of(tmp_path / "five", str(tmp_path / "five/skeleton.yaml"))
    assert data.skeleton.keypoint_names == NAMES
    assert data.skeleton.left_right_pairs == (("left_hand", "right_hand"), ("left_foot", "right_foot"))
    assert data.train_people is not None
    assert data.val_people is not None
    assert (len(data.train_people), len(data.val_people)) == (9, 3)
    assert data.train_people.keypoints_in_image == pytest.approx(np.tile(POINTS, (9, 1, 1)), abs=1e-3)
    assert data.train_people.boxes_xywh == pytest.approx(np.tile(BOX, (9, 1)), abs=1e-3)
    batch = next(iter(data.train_dataloader()))
    # The crop shows 1.25 boxes, grown to a square, about the box's centre.
    expected = (POINTS - (40, 32)) * 64 / (54 * 1.25) + 32
    assert batch["keypoints_in_crop"][0].numpy() == pytest.approx(expected, abs=1e-2)


@pytest.mark.slow
def test_own_data_are_converted_checked_trained_on_and_evaluated(
    pictures: Path, tmp_path: Path, run_script, tiny_run: list[str]
) -> None:
    converted = run_script(
        "convert_data.py", [*as_csv(pictures), f"to={tmp_path / 'five'}", "val_share=0.25"], tmp_path
    )
    assert converted.returncode == 0, converted.stderr
    chosen = ["--config-dir", str(tmp_path / "five/conf"), "data=five"]
    assert f"python src/train.py {' '.join(chosen)}" in converted.stdout
    chosen += [f"data.codec.{key}={value}" for key, value in SIZE.items()]
    checked = run_script("check_data.py", [*chosen, "data.batch_size=4", "run_dir=check"], tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (tmp_path / "check/train.png").is_file()
    tiny = [argument for argument in tiny_run if not argument.startswith("data")]
    few = ["data.batch_size=4", "data.num_workers=0"]
    trained = run_script("train.py", [*chosen, *tiny, *few, f"hydra.run.dir={tmp_path / 'run'}"], tmp_path)
    assert trained.returncode == 0, trained.stderr
    best = tmp_path / "run/checkpoints/best.ckpt"
    evaluated = run_script("eval.py", [f"ckpt_path={best}", "trainer=cpu", f"hydra.run.dir={tmp_path / 'e'}"], tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    (result, *_) = json.loads((tmp_path / "e/predictions.json").read_text())
    assert len(result["keypoints"]) == 15


def turn(folder: Path) -> None:
    """Store every picture on its side, with an EXIF that makes viewers show it as before."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in folder.iterdir():
        with Image.open(path) as picture:
            turned = picture.transpose(Image.Transpose.ROTATE_90)
        path.unlink()  # a data set made of it holds a hard link
        turned.save(path, exif=exif)


@pytest.mark.parametrize("source_format", FORMATS)
def test_pictures_turned_by_their_exif_reach_training_as_they_are_displayed(
    source_format: str, pictures: Path, tmp_path: Path
) -> None:
    asked = [*FORMATS[source_format](pictures), "val_share=0.25"]
    asked += ["exif=displayed"] if source_format == "points_csv" else []
    convert([*asked, f"to={tmp_path / 'upright'}"])
    turn(pictures / "images")
    convert([*asked, f"to={tmp_path / 'turned'}"])
    upright, turned = (
        next(iter(people_of(tmp_path / one, str(tmp_path / one / "skeleton.yaml")).train_dataloader()))
        for one in ("upright", "turned")
    )
    assert (turned["crops"] == upright["crops"]).all()
    assert (turned["keypoints_in_crop"] == upright["keypoints_in_crop"]).all()


def test_clean_remarkable_and_defective_data_are_told_apart(
    synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(synthetic_root, copied)
    arguments = ["data=synthetic_128x96", f"data.root={copied}"]
    assert check(arguments, tmp_path / "clean")
    report = json.loads((tmp_path / "clean/report.json").read_text())
    assert (report["errors"], report["remarks"], report["train"]["defects"]) == (0, 0, [])
    for split in ("train", "val"):
        assert min(cv2.imread(str(tmp_path / f"clean/{split}.png")).shape[:2]) > 256
    file = copied / "annotations/person_keypoints_train.json"
    content = json.loads(file.read_text())
    next(person for person in content["annotations"] if not person["iscrowd"])["area"] = None
    file.write_text(json.dumps(content))
    arguments += ["read_images=false"]
    assert check(arguments, tmp_path / "a")
    assert "area_unusable" in capsys.readouterr().out


def test_the_exit_status_of_the_script_is_that_of_the_data(synthetic_root: Path, tmp_path: Path, run_program) -> None:
    content = json.loads((synthetic_root / "annotations/person_keypoints_val.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, 0, 0]
    (tmp_path / "val.json").write_text(json.dumps(content))
    arguments = [
        "data=synthetic_128x96",
        f"data.root={synthetic_root}",
        f"data.val_annotations={tmp_path / 'val.json'}",
    ]
    done = run_program("check_data.py", [*arguments, "read_images=false"], tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    (report,) = tmp_path.glob("runs/check_data/*/report.json")
    assert json.loads(report.read_text())["errors"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "data is required: give data=..."),
        (["data=from_checkpoint"], "give data=..."),
        (
            ["data=coco_256x192", "data.root=nowhere"],
            "nowhere/annotations/person_keypoints_train2017.json does not exist",
        ),
        (["data=coco_256x192", "splits=[test]"], "splits[0]='test': must be 'train' or 'val'"),
        (["data=coco_256x192", "splits=[]"], "splits=[]: name train, val or both"),
    ],
)
def test_a_wrong_check_is_refused_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        check(arguments, tmp_path / "check")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "check").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "from is required: give from=yolo_pose|points_csv|coco|mpii|aic"),
        (["from=coco"], "source is required: give source=..."),
        (["from=points_csv", "source=a", "to=b", "val_source=c"], "val_source and val_images are for from=coco"),
        (["from=coco", "source=a.json", "images=.", "to=b"], "a.json: cannot be read"),
        (["from=coco", "source=a", "to=b", "val_share=1.5"], "val_share=1.5"),
        (["from=coco", "source=b/a", "to=b"], "to=b holds the source b/a"),
        (["from=coco", "source=a", "to=coco_256x192"], "data=coco_256x192 is taken"),
        (["from=coco", "source=a", "to=b", "skeleton=horse"], "no skeleton 'horse'"),
    ],
)
def test_a_wrong_conversion_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        convert(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
