"""CSV tables of points to pixels, in both forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniformer_pose.data.conversion.points_table import read_points_table
from uniformer_pose.errors import InputError

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
        (tmp_path / "points.csv").write_bytes(text.encode(errors="surrogatepass"))
        return convert(read_points_table, tmp_path / "points.csv", **settings)

    return run


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_one_row_a_person_with_any_delimiter_and_the_mark_of_spreadsheets(
    table: Callable[..., Any], delimiter: str
) -> None:
    converted = table("\ufeff" + BY_PERSON.replace(",", delimiter), categories=["hand"])
    assert converted.content()["categories"][0]["name"] == "hand"
    assert converted.skeleton.keypoint_names == ("nose", "left_hand")
    assert converted.keypoints("a.png") == [[[10, 12, 2], [20.5, 30, 1]], [[44, 8, 2], [40, 31, 2]]]
    assert converted.people_in("a.png")[0]["bbox"] == [5, 6, 20, 30]
    assert converted.keypoints("b.png") == [[[5, 6, 2], [0, 0, 0]]]


def test_without_a_split_some_are_for_validation_and_without_boxes_they_are_drawn(table: Callable[..., Any]) -> None:
    converted = table("image,p_x,p_y,q_x,q_y\na.png,1,2,30,20\nb.png,1,2,30,20\n")
    assert converted.keypoints("a.png") == [[[1, 2, 2], [30, 20, 2]]]
    assert converted.people_in("a.png")[0]["bbox"] == pytest.approx([0, 0, 32.9, 22.9])
    assert any("1 of the images, drawn by their names" in note for note in converted.log.notes)


def test_an_exif_rotated_picture_needs_the_users_word(
    table: Callable[..., Any], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture(tmp_path / "a.png", 40, 80, 6)
    with pytest.raises(InputError, match="has EXIF orientation 6; give exif=displayed if"):
        table(BY_PERSON)
    for frame, sides in (("stored", (40, 80)), ("displayed", (80, 40))):
        content = table(BY_PERSON, exif=frame).content()
        assert content["info"]["image_orientation"] == frame
        assert (content["images"][0]["height"], content["images"][0]["width"]) == sides


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.png,train,1,2,2,,,,1,2,3,", "points.csv:4: has no usable box"),
        ("a.png,train,100,2,2,,,,1,2,3,4", "points.csv:4: all of its 1 labelled keypoints are outside the picture"),
        ("a.png,train,1,2,2", "points.csv:4: has 5 fields, the header 12"),
        (",train,1,2,2,,,,,,,", "points.csv:4: has 12 fields, the header 12, of which one is the image"),
        ("../c.png,train,1,2,2,,,,1,2,3,4", "points.csv:4: '../c.png' is not in"),
        ("b.png,test,1,2,2,,,,1,2,30,40", "puts b.png into split 'test'; an image is of train or of val"),
        ("b.png,,1,2,2,,,,1,2,30,40", "puts b.png into split ''; an image is of train or of val"),
        ("b.png,train,1,2,2,,,,1,2,30,40", "puts b.png into split 'val'; an image is of train or of val"),
    ],
)
def test_a_bad_line_is_named_with_its_number(table: Callable[..., Any], line: str, expected: str) -> None:
    header = "image,split,nose_x,nose_y,nose_v,tail_x,tail_y,tail_v,box_x,box_y,box_width,box_height\n"
    good = "a.png,train,1,2,2,,,,1,2,30,40\nb.png,val,1,2,2,,,,1,2,30,40\n"
    with pytest.raises(InputError) as error:
        table(f"{header}{good}{line}\n")
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is of no known form"),
        ("image,keypoint,x,y\na.png,p,1,2\n", "a row a person has image, <name>_x"),
        ("image,p_x,p_y,p_x\n", "the column 'p_x' stands twice"),
        ("image,p_x,p_y\n", "has no usable rows below its header"),
        ("image,p_x,p_y\na.png,0.5,0.1\na.png,0.5,0.1", "if they are fractions, multiply them by the size"),
        ('image,p_x,p_y\n"a.png,1,2\n', "cannot be read as CSV"),
        ("scorer,me\n", "has no rows 'bodyparts' and 'coords'"),
        ("\ud800", "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_in_one_line(table: Callable[..., Any], text: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        table(text)
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


@pytest.mark.parametrize("text", [DEEPLABCUT, "\ufeff" + SEVERAL_ANIMALS.replace("\n", "\r\n")])
def test_deeplabcuts_header_is_read_and_individuals_are_people(table: Callable[..., Any], text: str) -> None:
    converted = table(text, skip=True)
    assert converted.skeleton.keypoint_names == ("nose", "left_hand")
    assert converted.keypoints("a.png") == [[[10, 12, 2], [20.5, 30, 2]]]
    assert converted.keypoints("b.png") == [[[5, 6, 2], [7, 8, 2]]]
    assert len(converted.log.problems) == ("individuals" in text)  # the second animal: one point, no box


def test_a_spreadsheet_has_decimal_commas_empty_columns_confidences_and_points_that_cannot_be_used(
    table: Callable[..., Any],
) -> None:
    text = "Filename;Nose_X;Nose_Y;Tail.x;Tail.y;Tail.score;Ear_X;Ear_Y;Hip_X;Hip_Y;\r\n"
    converted = table(text + "a.png;10,5;12;20,25;30;0,4;x;2;9;8;\r\nb.png;1;2;30;21;0.9;NaN;nan;;;\r\n")
    assert converted.keypoints("b.png") == [[[1, 2, 2], [30, 21, 2], [0, 0, 0], [0, 0, 0]]]
    assert converted.keypoints("a.png") == [[[10.5, 12, 2], [0, 0, 0], [0, 0, 0], [9, 8, 2]]]
    assert converted.log.repairs["confidences below 0.5 read as not labelled"] == 1
    assert converted.log.repairs["labelled keypoints without coordinates read as not labelled"] == 1
