"""CSV tables of points to pixels, in both forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.conversion.points_table import read_points_table
from uniformer_pose.errors import InputError
from uniformer_pose.skeleton import Skeleton, load_skeleton

BY_PERSON = """image,split,nose_x,nose_y,left_hand_x,left_hand_y,left_hand_visibility,box_x,box_y,box_width,box_height
a.png,train,10,12,20.5,30,1,5,6,20,30
a.png,train,44,8,40,31,2,30,1,20,35
b.png,val,5,6,,,,1,2,30,35
"""


@pytest.fixture
def table(tmp_path: Path, picture: Callable[..., Path], convert: Callable[..., Any]) -> Callable[..., Any]:
    """Converts a table beside the pictures a.png and b.png, 40x80 each; one of them is for validation."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)

    def run(text: str, **settings: Any) -> Any:
        (tmp_path / "points.csv").write_text(text, encoding="utf-8")
        return convert(read_points_table, tmp_path / "points.csv", **settings)

    return run


def everybody(converted: Any, name: str = "a.png") -> list[list[list[float]]]:
    """Keypoints in an image, of whichever split it is."""
    split = next(s for s in ("train", "val") if name in [i["file_name"] for i in converted.content(s)["images"]])
    return converted.keypoints(name, split)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_one_row_a_person_with_any_delimiter_and_the_mark_of_spreadsheets(
    table: Callable[..., Any], delimiter: str
) -> None:
    converted = table("\ufeff" + BY_PERSON.replace(",", delimiter), categories=["hand"])
    assert converted.content()["categories"][0]["name"] == "hand"
    assert converted.skeleton.keypoint_names == ("nose", "left_hand")
    assert converted.keypoints("a.png") == [[[10, 12, 2], [20.5, 30, 1]], [[44, 8, 2], [40, 31, 2]]]
    assert converted.box("a.png") == [5, 6, 20, 30]
    assert converted.keypoints("b.png", "val") == [[[5, 6, 2], [0, 0, 0]]]


def test_without_a_split_some_are_for_validation_and_without_boxes_they_are_drawn(table: Callable[..., Any]) -> None:
    converted = table("image,p_x,p_y,q_x,q_y\na.png,1,2,30,20\nb.png,1,2,30,20\n")
    assert everybody(converted) == [[[1, 2, 2], [30, 20, 2]]]
    assert converted.content()["annotations"][0]["bbox"] == pytest.approx([0, 0, 32.9, 22.9])
    assert any("1 of the images, drawn by their names" in note for note in converted.log.notes)


def test_fractions_of_the_size_are_read_if_said(table: Callable[..., Any]) -> None:
    text = "image,p_x,p_y,q_x,q_y\na.png,0.5,0.25,0.75,0.5\nb.png,0.5,0.25,0.1,0.2\n"
    assert everybody(table(text, normalised=True)) == [[[40, 10, 2], [60, 20, 2]]]
    with pytest.raises(InputError, match="if they are fractions of the size, give normalised=true"):
        table(text)


def test_columns_in_another_order_than_a_given_skeletons_are_read_by_name(
    table: Callable[..., Any], skeleton_of_three: Skeleton
) -> None:
    text = "image,right-ear_x,right-ear_y,Nose_x,Nose_y,left ear_x,left ear_y\n"
    text += "a.png,1,2,30,31,20,21\nb.png,1,2,30,31,20,21\n"
    assert [point[0] for point in everybody(table(text, skeleton=skeleton_of_three))[0]] == [30, 20, 1]
    with pytest.raises(InputError, match="are not the 17"):
        table(text, skeleton=load_skeleton("coco_17"))


def test_an_exif_rotated_picture_needs_the_users_word(
    table: Callable[..., Any], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture(tmp_path / "a.png", 40, 80, 6)
    with pytest.raises(InputError, match="has EXIF orientation 6; give exif=displayed if"):
        table(BY_PERSON)
    assert table(BY_PERSON, exif="stored").keypoints("a.png")[0][0] == [27, 10, 2]
    assert table(BY_PERSON, exif="displayed").keypoints("a.png")[0][0] == [10, 12, 2]


BAD_LINES = {
    "a.png,train,1,2,2,,,,1,2,3,": "has no usable box, and 1 labelled",
    "a.png,train,100,2,2,,,,1,2,3,4": "all of its 1 labelled keypoints are outside the picture",
    "a.png,val,1,2,2,,,,,,,": "puts a.png into split 'val', an earlier line into 'train'",
    "a.png,train,1,2,2": "has 5 fields, the header 12",
    ",train,1,2,2,,,,,,,": "has no image",
    "../c.png,train,1,2,2,,,,1,2,3,4": "'../c.png' is not in",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_with_its_number(table: Callable[..., Any], line: str) -> None:
    header = "image,split,nose_x,nose_y,nose_v,tail_x,tail_y,tail_v,box_x,box_y,box_width,box_height\n"
    good = "a.png,train,1,2,2,,,,1,2,30,40\nb.png,val,1,2,2,,,,1,2,30,40\n"
    (sentence,) = table(f"{header}{good}{line}\n", skip=True).log.problems
    assert BAD_LINES[line] in sentence
    assert "points.csv:4: " in sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is of no known form"),
        ("image,keypoint,x,y\na.png,p,1,2\n", "a row a person has image, <name>_x"),
        ("image,p_x,p_y,p_x\n", "the column 'p_x' stands twice"),
        ("image,p_x,p_y,box_x\n", "has box_x of box_x, box_y, box_width, box_height; give all four or none"),
        ("image,p_x,p_y\n", "has no usable rows below its header"),
        ("image,p_x,p_y,split\na.png,1,2,test\n", "image a.png is in split 'test'; use train or val"),
        ('image,p_x,p_y\n"a.png,1,2\n', "cannot be read as CSV"),
        ("scorer,me\n", "has no rows 'bodyparts' and 'coords'"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_in_one_line(
    table: Callable[..., Any], tmp_path: Path, text: str, expected: str, convert: Callable[..., Any]
) -> None:
    (tmp_path / "points.csv").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InputError) as error:
        convert(read_points_table, tmp_path / "points.csv")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


DEEPLABCUT = """scorer,me,me,me,me
bodyparts,nose,nose,left_hand,left_hand
coords,x,y,x,y
labeled-data/video/a.png,10,12,20.5,30
labeled-data/video/b.png,5,6,7,8
"""
SEVERAL_ANIMALS = """scorer,,,me,me,me,me,me,me
individuals,,,one,one,one,one,two,two
bodyparts,,,nose,nose,left_hand,left_hand,nose,nose
coords,,,x,y,x,y,x,y
labeled-data,video,a.png,10,12,20.5,30,44,8
labeled-data,video,b.png,5,6,7,8,,
"""


@pytest.mark.parametrize("text", [DEEPLABCUT, "\ufeff" + DEEPLABCUT.replace("\n", "\r\n")])
def test_deeplabcuts_header_of_three_lines_is_read(table: Callable[..., Any], text: str) -> None:
    converted = table(text)
    assert converted.skeleton.keypoint_names == ("nose", "left_hand")
    assert everybody(converted) == [[[10, 12, 2], [20.5, 30, 2]]]


def test_deeplabcuts_individuals_are_people(table: Callable[..., Any]) -> None:
    converted = table(SEVERAL_ANIMALS, skip=True)
    assert everybody(converted, "b.png") == [[[5, 6, 2], [7, 8, 2]]]
    assert everybody(converted) == [[[10, 12, 2], [20.5, 30, 2]]]
    assert "has no usable box, and 1 labelled keypoints" in converted.log.problems[0]  # of the second animal


def test_likelihoods_are_confidences(table: Callable[..., Any]) -> None:
    text = "image,nose.x,nose.y,nose.score,tail_x,tail_y,tail_likelihood,ear_x,ear_y,\na.png,9,8,1.0,30,31,0.4,20,21,\n"
    converted = table(text + "b.png,9,8,0.97,30,31,0.9,20,21,\n")
    assert [point[2] for point in everybody(converted)[0]] == [2, 0, 2]
    assert [point[2] for point in everybody(converted, "b.png")[0]] == [2, 2, 2]
    assert converted.log.repairs["confidences below 0.5 read as not labelled"] == 1


def test_a_spreadsheet_with_semicolons_has_decimal_commas(table: Callable[..., Any]) -> None:
    text = "Filename;Nose_X;Nose_Y;Tail_X;Tail_Y;Ear_X;Ear_Y\r\na.png;10,5;12;20,25;30;;\r\nb.png;1;2;NaN;nan;8;9\r\n"
    assert everybody(table("\ufeff" + text))[0][:2] == [[10.5, 12, 2], [20.25, 30, 2]]


@pytest.mark.parametrize("cells", ["x,2,", "1,,", ",,2", "1,2,5", "90,2,2"])
def test_a_point_that_cannot_be_used_is_unlabelled_and_counted(table: Callable[..., Any], cells: str) -> None:
    rest = "10,11,30,31\n"
    converted = table(f"image,n_x,n_y,n_v,l_x,l_y,r_x,r_y\na.png,{cells},{rest}b.png,1,2,2,{rest}")
    assert everybody(converted) == [[[0, 0, 0], [10, 11, 2], [30, 31, 2]]]
    assert sum(count for repair, count in converted.log.repairs.items() if "not labelled" in repair) == 1
