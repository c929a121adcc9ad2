"""Poses of people in pictures, folders and videos: source and weights -> drawn pictures, COCO results, a table.

Exit status: 0 all done, 1 some pictures or videos could not be read, 2 unusable settings, 130 interrupted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig

from uniformer_pose.config_parts import Detector, Engine, Precision
from uniformer_pose.entry_point import checked_config, report_input_errors, run
from uniformer_pose.errors import InputError
from uniformer_pose.ranges import Count, Share

if TYPE_CHECKING:
    from uniformer_pose.data.images import DecodedImage
    from uniformer_pose.prediction.boxes import BoxesOfFile, BoxFinder
    from uniformer_pose.prediction.pictures import ReadPicture
    from uniformer_pose.prediction.sources import SourceItem


@dataclass
class PredictConfig:
    """The keys of conf/predict.yaml."""

    detector: Detector
    source: str | int
    ckpt_path: str
    output: str | None
    boxes: str
    boxes_category: str | int | list[str | int] | None
    image_orientation: Literal["stored", "displayed"] | None
    flip_test: bool
    draw: bool
    score_threshold: Share
    table: Literal["csv", "parquet"] | None
    overwrite: bool
    show: bool
    track: bool
    smooth: bool
    input_size: tuple[Count, Count] | None
    head_dim: Count | None
    model_class: str | None
    device: str | None
    precision: Precision
    batch_size: Count
    engine: Engine


@hydra.main(version_base="1.3", config_path="../conf", config_name="predict")
def main(config: DictConfig) -> None:
    """Check the config before any work, then predict."""
    with report_input_errors():
        failed = predict(checked_config(config, PredictConfig))
    if failed:
        sys.exit(1)


def predict(config: dict[str, Any]) -> dict[str, str]:
    """Do what a checked, plain config asks for; returns what could not be read, with the reasons."""
    # Imported here because a misspelt key should not have to wait for torch.
    from uniformer_pose.data.images import remark_line
    from uniformer_pose.prediction.display import window
    from uniformer_pose.prediction.estimator import PoseEstimator
    from uniformer_pose.prediction.journal import Journal
    from uniformer_pose.prediction.run import PoseRun, write_results
    from uniformer_pose.prediction.sources import find_source
    from uniformer_pose.prediction.videos import VideoSettings

    source = find_source(str(config["source"]))
    pictures = [item for item in source.items if item.kind == "picture"]
    videos = [item for item in source.items if item.kind != "picture"]
    output = Path(config["output"] or Path("runs") / "predict" / (Path(str(config["source"])).stem or "here"))
    listed = boxes_in_file(config)
    if listed is not None:
        print(listed.summary())
        if videos:
            raise InputError(f"boxes={config['boxes']}: a file has boxes of pictures, not of videos; use a detector")
        listed.require_boxes_on([item.name for item in pictures])
    with ExitStack() as stack:
        show = stack.enter_context(window()) if config["show"] else None
        estimator = PoseEstimator(
            config["ckpt_path"],
            input_size=config["input_size"] and tuple(config["input_size"]),
            head_dim=config["head_dim"],
            model_class=config["model_class"],
            device=config["device"],
            precision=config["precision"],
            batch_size=config["batch_size"],
            engine=config["engine"],
        )
        find_boxes = box_finder(config, listed)  # which may have to be fetched, before anything is written
        journal = stack.enter_context(
            Journal(output, _what_poses_depend_on(config, estimator.precision), overwrite=config["overwrite"])
        )
        if journal.finished_before:
            print(f"{output}: {journal.finished_before} of {len(source.items)} were done before")
        run = PoseRun(
            estimator,
            find_boxes,
            output,
            journal,
            flip_test=config["flip_test"],
            draw=config["draw"],
            score_threshold=config["score_threshold"],
            overwrite=config["overwrite"],
            show=show,
            read=picture_reader(config, listed),
        )
        failed = dict(source.refused)
        try:
            failed |= run.pictures([item for item in pictures if item.name not in journal])
            failed |= run.videos(
                [item for item in videos if item.name not in journal],
                VideoSettings(track=config["track"], smooth=config["smooth"]),
            )
        except KeyboardInterrupt:
            print(f"interrupted: {len(journal)} of {len(source.items)} are done, the same command continues")
            sys.exit(130)
        known = {item.name: listed.of_picture(item.name) for item in pictures} if listed else {}
        written = write_results(
            output,
            journal,
            estimator.skeleton,
            table=config["table"],
            numbers={name: said.number for name, said in known.items() if said and said.number is not None},
            **({"category_id": next(iter(listed.categories))} if listed and len(listed.categories) == 1 else {}),
        )
    assumed = listed.assumed if listed else "displayed"
    of_pictures = [
        remark_line(kind, names[0], len(names), assumed=assumed, option="image_orientation")
        for kind, names in run.remarkable.items()
    ]
    for line in [*find_boxes.remarks(), *of_pictures, *run.remarks, *written]:
        print(line)
    if config["draw"]:
        print(f"drawn               {output / 'drawn'}")
    if source.ignored:
        endings = ", ".join(f"{count} {ending}" for ending, count in sorted(source.ignored.items()))
        print(f"passed over, neither pictures nor videos: {endings}")
    if failed:
        print(f"could not be read: {len(failed)} of {len(source.items) + len(source.refused)}", file=sys.stderr)
        for name, reason in failed.items():
            print(f"  {name}: {reason}", file=sys.stderr)
    return failed


def boxes_in_file(config: dict[str, Any]) -> BoxesOfFile | None:
    """The boxes of the file that ``boxes`` names, if it does."""
    from uniformer_pose.prediction.boxes import boxes_of_file

    chosen = config["boxes_category"]
    if config["boxes"] not in ("full", "detector"):
        categories = chosen if chosen is None or isinstance(chosen, list) else [chosen]
        return boxes_of_file(config["boxes"], categories=categories)
    if chosen is not None:
        raise InputError(f"boxes_category={chosen}: chooses among the boxes of a file; give boxes=<file>")
    return None


def picture_reader(config: dict[str, Any], listed: BoxesOfFile | None) -> ReadPicture:
    """How a picture is read: upright, or in the frame that the boxes of the file refer to."""
    from uniformer_pose.data.images import decode_photo
    from uniformer_pose.prediction.boxes import ListedPicture
    from uniformer_pose.prediction.detection import PersonBoxes

    said = config["image_orientation"]
    if listed is None:
        return lambda item: decode_photo(item.path, orientation=said or "displayed")

    def read(item: SourceItem) -> DecodedImage:
        picture = listed.of_picture(item.name) or ListedPicture(PersonBoxes.empty())
        return decode_photo(
            item.path,
            height=picture.height,
            width=picture.width,
            orientation=said or listed.orientation,
            assumed=listed.assumed,
        )

    return read


def box_finder(config: dict[str, Any], listed: BoxesOfFile | None) -> BoxFinder:
    """Where the boxes come from: the whole picture, a file, or the detector of the config."""
    from hydra.utils import instantiate

    from uniformer_pose.prediction.boxes import DetectedBoxes, FullPictures, ListedBoxes

    if listed is not None:
        return ListedBoxes(listed)
    if config["boxes"] == "full":
        return FullPictures()
    detector = config["detector"]
    if detector["model"] is None:
        raise InputError(
            "detector=none finds nobody; give detector=torchvision, a file detector=<model>.onnx, or boxes="
        )
    return DetectedBoxes(
        instantiate(detector["model"], _convert_="all"), instantiate(detector["keep"], _convert_="all")
    )


def _what_poses_depend_on(config: dict[str, Any], precision: str) -> dict[str, Any]:
    names = [
        "source",
        "ckpt_path",
        "boxes",
        "boxes_category",
        "image_orientation",
        "flip_test",
        "draw",
        "track",
        "smooth",
        "input_size",
        "head_dim",
    ]
    names += ["detector"] if config["boxes"] == "detector" else []
    names += ["score_threshold"] if config["draw"] else []
    return {**{name: config[name] for name in names}, "precision": precision}


def detector_file_as_choice(arguments: list[str]) -> list[str]:
    """The command line with ``detector=<file>.onnx`` as what Hydra understands: a choice, and the path in it."""
    given: list[str] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "detector" and value.lower().endswith(".onnx"):
            given += ["detector=onnx", f"detector.model.path={value}"]
        else:
            given.append(argument)
    return given


if __name__ == "__main__":
    sys.argv[1:] = detector_file_as_choice(sys.argv[1:])
    run(main)
